"""A uniform sample of everything seen, to train on beside what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data import Batch


class Replay:
    """A reservoir of encoded rows: after N rows, each is in it with probability min(1, capacity / N).

    Row t (from 1) takes the next free place while t <= capacity, and after that place j, drawn uniformly from
    0, ..., t - 1, if j < capacity. Indices never change their meaning while a model grows, so rows are kept encoded; a
    value that was unknown when its row came stays unknown in that row.

    Args:
        capacity: rows kept.
        share: rows drawn beside each new row in training; 0 keeps the sample without using it.
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

    Cost: the encoded rows; a pass over what is added.
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

    def __len__(self) -> int:
        """Return the number of rows in the sample."""
        return min(self.seen, self.capacity)

    def add(self, batch: Batch) -> None:
        """Let encoded rows into the sample, each with its chance."""
        columns = _flat(batch)
        rows = len(next(iter(columns.values())))
        count = self.seen + 1 + np.arange(rows)
        places = np.where(count <= self.capacity, count - 1, (self._random.random(rows) * count).astype(np.int64))
        taken = np.flatnonzero(places < self.capacity)
        # Of several rows for one place the last stays: the first one of the reversed order.
        distinct, last = np.unique(places[taken][::-1], return_index=True)
        sources = taken[::-1][last]
        self.seen += rows
        for name, column in columns.items():
            kept = self._rows.get(name, column[:0])
            if len(kept) < len(self):
                kept = np.concatenate([kept, np.zeros([len(self) - len(kept), *column.shape[1:]], column.dtype)])
            kept[distinct] = column[sources]
            self._rows[name] = kept

    def draw(self, new_rows: int) -> Batch | None:
        """Return rows to train on beside so many new ones, drawn without replacement, or None if there are none."""
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
        """Return the sample that `get_state` described."""
        replay = cls(state["capacity"], state["share"], state["seed"])
        replay.seen = state["seen"]
        replay._random.bit_generator.state = state["random"]
        replay._rows = {name: np.array(column) for name, column in rows.items()}
        return replay


def joined(batch: Batch, other: Batch | None) -> Batch:
    """Return the rows of both batches, which have the same columns."""
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
