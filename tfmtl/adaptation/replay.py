"""Experience replay: a uniform sample of all earlier rows, to train on together with new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data import Batch, Preprocessor, to_batch


class Replay:
    """Experience replay by reservoir sampling: after N rows, each is kept with probability min(1, capacity / N).

    Use it in `OnlineLearner` against forgetting of rare users and items; `Replay.of` fills it from a table.

    Row t (from 1) takes slot t - 1 if t <= capacity, and otherwise slot j, drawn uniformly from 0, ..., t - 1, if
    j < capacity. Rows are kept encoded, since indices keep their meaning while a model grows; a value that was unknown
    when its row was added stays unknown in that row.

    Args:
        capacity: number of rows to keep.
        share: number of rows drawn per new row in training; at 0 the sample is kept but not used.
        seed: seed of all draws.

    Raises:
        ValueError: if `capacity` is not positive or `share` is negative.

    Example:
        >>> replay = Replay(capacity=2, share=1.0)
        >>> replay.add(Batch({"item": tf.range(5)}, {}, {}))
        >>> len(replay), replay.seen, int(replay.draw(4).features["item"].shape[0])
        (2, 5, 2)

    Reference:
        Vitter, "Random Sampling with a Reservoir", ACM Transactions on Mathematical Software 11(1), 1985,
        https://doi.org/10.1145/3147.3165, algorithm R; its use against forgetting: Rolnick et al., "Experience Replay
        for Continual Learning", NeurIPS 2019, https://arxiv.org/abs/1811.11682.

    Cost: memory for the encoded rows, and one pass over the added rows.
    """

    def __init__(self, capacity: int, share: float = 1.0, seed: int = 0) -> None:
        require_positive_int(capacity=capacity)
        require(share >= 0, "`share` must be 0 or more.", share=share)
        self.capacity = capacity
        self.share = float(share)
        self.seed = seed
        self.seen = 0
        self._random = np.random.default_rng(seed)
        self._rows: dict[str, np.ndarray] = {}

    @classmethod
    def of(
        cls, table: Any, preprocessor: Preprocessor, capacity: int = 100_000, share: float = 1.0, seed: int = 0
    ) -> Replay:
        """Return a sample of the rows of a table, such as that of the first training.

        Args:
            table: pandas table with the columns of the schema.
            preprocessor: the model's preprocessor.
            capacity, share, seed: as in the constructor.
        """
        replay = cls(capacity, share, seed)
        replay.add(to_batch(table, preprocessor))
        return replay

    def __len__(self) -> int:
        """Return the number of rows in the sample."""
        return min(self.seen, self.capacity)

    def add(self, batch: Batch) -> None:
        """Add encoded rows to the sample, each with its probability."""
        columns = _flat(batch)
        rows = len(next(iter(columns.values())))
        count = self.seen + 1 + np.arange(rows)
        slots = np.where(count <= self.capacity, count - 1, (self._random.random(rows) * count).astype(np.int64))
        taken = np.flatnonzero(slots < self.capacity)
        # The last of several rows for one slot is kept: the first one in reversed order.
        distinct, last = np.unique(slots[taken][::-1], return_index=True)
        sources = taken[::-1][last]
        self.seen += rows
        for name, column in columns.items():
            kept = self._rows.get(name, column[:0])
            if len(kept) < len(self):
                kept = np.concatenate([kept, np.zeros([len(self) - len(kept), *column.shape[1:]], column.dtype)])
            kept[distinct] = column[sources]
            self._rows[name] = kept

    def draw(self, new_rows: int) -> Batch | None:
        """Return rows to train on with `new_rows` new ones, drawn without replacement, or None for none."""
        count = min(round(self.share * new_rows), len(self))
        if not count:
            return None
        chosen = self._random.choice(len(self), count, replace=False)
        return _nested({name: column[chosen] for name, column in self._rows.items()})

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return arguments and state: plain values, and the rows as arrays."""
        state = {"capacity": self.capacity, "share": self.share, "seed": self.seed, "seen": self.seen}
        return {**state, "random": self._random.bit_generator.state}, dict(self._rows)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> Replay:
        """Return a sample with the state from `get_state`."""
        replay = cls(state["capacity"], state["share"], state["seed"])
        replay.seen = state["seen"]
        replay._random.bit_generator.state = state["random"]
        replay._rows = {name: np.array(column) for name, column in rows.items()}
        return replay


def joined(batch: Batch, other: Batch | None) -> Batch:
    """Return the rows of two batches with the same columns."""
    if other is None:
        return batch
    parts = (
        {name: tf.concat([tf.cast(a, b[name].dtype), b[name]], axis=0) for name, a in ours.items()}
        for ours, b in zip(batch, other, strict=True)
    )
    return Batch(*parts)


def _flat(batch: Batch) -> dict[str, np.ndarray]:
    parts = zip(Batch._fields, batch, strict=True)
    return {f"{part}/{name}": np.asarray(column) for part, columns in parts for name, column in columns.items()}


def _nested(columns: Mapping[str, np.ndarray]) -> Batch:
    parts: dict[str, dict[str, tf.Tensor]] = {part: {} for part in Batch._fields}
    for key, column in columns.items():
        part, name = key.split("/", 1)
        parts[part][name] = tf.constant(column)
    return Batch(**parts)
