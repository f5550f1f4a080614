"""Retrieval metrics on the whole corpus during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras
from tfmtl.data import to_batch
from tfmtl.evaluation.corpus import Embedder, Seen, locate


class RetrievalEvaluation(keras.callbacks.Callback):
    """Adds the metrics of every retrieval task on the whole corpus to the log of an epoch, as `val_seen_recall@10`.

    Use it for early stopping and tuning by retrieval quality; the names are those of `tfmtl.evaluate` behind
    `val_<task>_`. Put it before callbacks that read the log, such as
    `EarlyStopping`.

    Args:
        frame: validation table.
        seen: table of known interactions to remove from the lists of their users, or None.
        ks: cut-offs, as in `tfmtl.evaluate`.
        every: epochs between two measurements; the log of other epochs repeats the last values.

    Cost: one pass of each tower and one matrix product per block of users, far below the cost of a training epoch.
    """

    def __init__(self, frame: Any, seen: Any = None, ks: Sequence[int] | int | None = None, every: int = 1) -> None:
        super().__init__()
        require_positive_int(every=every)
        self.frame, self.seen, self.ks, self.every = frame, seen, ks, every
        self._corpora: dict[str, Any] = {}
        self._last: dict[str, float] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> RetrievalEvaluation:
        """Share the tables with the copy, because a tuner copies its callbacks for every trial."""
        return RetrievalEvaluation(self.frame, self.seen, self.ks, self.every)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Locate the positives in the corpus."""
        batch = to_batch(self.frame, self.model.preprocessor)
        for task in self.model.tasks:
            if task.retrieves:
                seen = None if self.seen is None else Seen.from_frame(self.model, task.name, self.seen)
                self._corpora[task.name] = locate(self.model, task.name, batch, seen)
        self._towers = (Embedder(self.model.tower("query")), Embedder(self.model.tower("candidate")))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure and log."""
        if (epoch + 1) % self.every == 0 or not self._last:
            self._last = {}
            for task, corpus in self._corpora.items():
                ranks = corpus.rank(*self._towers, task)
                values = corpus.metrics(ranks, self.ks)
                self._last |= {f"val_{task}_{name}": value for name, value in values.items()}
        if logs is not None:
            logs.update(self._last)
