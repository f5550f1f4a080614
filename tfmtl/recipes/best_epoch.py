"""Early stopping by the quality of all tasks on validation rows."""

from __future__ import annotations

import math
from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras
from tfmtl.evaluation import RetrievalEvaluation

_SMALLEST = 1e-6


class BestEpoch(keras.callbacks.Callback):
    """Stop training when the tasks no longer improve on validation rows, and keep the weights of the best epoch.

    Use it instead of `EarlyStopping` on a loss where tasks are retrieved and ranked together: the loss of retrieval
    falls on while its ranks become worse.

    quality = mean_k log q_k, with q_k the NDCG@10 of a retrieval task on the whole corpus, and 1 / loss of any other
    task, so that a relative change counts alike in every task. It is logged as `val_quality`. Unlike `EarlyStopping`,
    the weights of the best epoch are kept when training ends for another reason, too.

    Args:
        validation: table outside the training table; `fit` needs it as `validation_data`, too.
        seen: table of known interactions to remove from the lists of their users, or None.
        patience: epochs without improvement after which training stops.

    Cost: that of `RetrievalEvaluation` and a copy of the weights.
    """

    def __init__(self, validation: Any, seen: Any = None, patience: int = 3) -> None:
        super().__init__()
        require_positive_int(patience=patience)
        self.patience = patience
        self.epoch = 0
        self._ranks = RetrievalEvaluation(validation, seen, ks=None)
        self._best, self._weights = -math.inf, None

    def set_model(self, model: Any) -> None:
        """Keep the model, also for the evaluation of retrieval."""
        super().set_model(model)
        self._ranks.set_model(model)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Forget an earlier training."""
        self.epoch, self._best, self._weights = 0, -math.inf, None
        self._ranks.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure; keep the weights or stop."""
        logs = {} if logs is None else logs
        self._ranks.on_epoch_end(epoch, logs)
        logs["val_quality"] = quality = self._quality(logs)
        if quality > self._best:
            self.epoch, self._best, self._weights = epoch, quality, self.model.get_weights()
        elif epoch - self.epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Restore the weights of the best epoch."""
        if self._weights is not None:
            self.model.set_weights(self._weights)

    def _quality(self, logs: dict[str, float]) -> float:
        values = []
        for task in self.model.tasks:
            ranked = [logs[key] for key in logs if key.startswith(f"val_{task.name}_ndcg@")]
            loss = logs.get(f"val_{task.name}_loss")
            if ranked or loss is not None:
                values.append(float(ranked[0]) if ranked else 1 / max(float(loss or 0.0), _SMALLEST))
        if not values or any(math.isnan(value) for value in values):
            return -math.inf  # a diverged task must not drop out of the mean
        return sum(math.log(max(value, _SMALLEST)) for value in values) / len(values)
