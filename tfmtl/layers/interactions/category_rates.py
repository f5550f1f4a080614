"""CategoryRates: counts of categories and out-of-fold rates of labels by category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.types import Column

_FACTOR, _MODULUS = 1_000_003, 2_147_483_647


@register
class CategoryRates(Interaction):
    """Target encoding: fixed numbers of each category, such as the rate of clicks on an item, joined to the pair.

    Use it for tables where embeddings of rare ids only memorize labels: gradient boosting on rates exceeds a network
    without them. `recipes.fit` adds it by default; by hand, add it to the interactions of `build_network` and fill the
    tables with `recipes.fill_rates`. Before that it returns zeros.

    Each index of a feature has `folds` + 1 vectors [columns]: vector f is computed from the training rows outside of
    fold f, the last one from all rows. In training a row reads the vector of its own fold, so that no number contains
    its label; otherwise the last one is read. With the indices i_1, ..., i_n of the row, the fold is h_n mod folds:

        h_0 = 0, h_j = (1,000,003 h_(j-1) + i_j) mod (2^31 - 1)

    The tables are one `JoinedEmbedding` that is not trained. They keep the rates of the training split until they are
    filled again; a new value has the numbers of the unknown value.

    Args:
        sizes: number of indices by categorical feature.
        columns: numbers of each category, by their meaning, such as `"rate of click"`.
        folds: number of folds, at least 2.

    Call arguments:
        inputs: the vectors [B, n (folds + 1) columns] that are looked up, and the indices of the row, n times [B].

    Returns:
        [B, n columns].

    Example:
        >>> rates = CategoryRates({"user": 4}, ["rate of click"], folds=2)
        >>> inputs = tf.constant([[0.25, 0.5, 0.75]]), [tf.constant([3])]  # 3 mod 2 is fold 1
        >>> rates(inputs, training=True).numpy().tolist(), rates(inputs).numpy().tolist()
        ([[0.5]], [[0.75]])

    Reference: Micci-Barreca, "A Preprocessing Scheme for High-Cardinality Categorical Attributes in Classification and
    Prediction Problems", SIGKDD Explorations 2001, https://doi.org/10.1145/507533.507538.

    Cost: (folds + 1) columns numbers of each category in memory, and one look-up of n rows for each row.
    """

    def __init__(self, sizes: Mapping[str, int], columns: Sequence[str], folds: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(bool(sizes), "`sizes` must name at least one feature.", sizes=sizes)
        require(len(columns) > 0 and not isinstance(columns, str), "`columns` must be several names.", columns=columns)
        require_positive_int(folds=folds, **dict(sizes))
        require(folds >= 2, "`folds` must be at least 2: rates of one fold would contain their own label.", folds=folds)
        self.sizes = dict(sizes)
        self.columns = tuple(columns)
        self.folds = folds

    @property
    def table(self) -> str:
        """The name of the layer that holds the tables."""
        return f"{self.name}_table"

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        # Not `join`: no trained parameter is behind these numbers, so that they are no representation that tasks share.
        read, own = zip(*(features.indices(name) for name in self.sizes), strict=True)
        units = (self.folds + 1) * len(self.columns)
        table = JoinedEmbedding(self.sizes, units, "zeros", trainable=False, name=self.table)
        found = self((table(tf.stack(read, axis=1)), list(own)))
        return keras.layers.Concatenate(name=f"{self.name}_pair")([pair, found])

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        looked_up, *indices = tf.nest.flatten(inputs)  # a loaded model passes a list of one tensor as this tensor
        shape = [-1, len(self.sizes), self.folds + 1, len(self.columns)]
        slots = tf.reshape(looked_up, shape)
        if training:
            own = tf.one_hot(self.fold_of(indices), self.folds + 1, dtype=slots.dtype)  # [B, folds + 1]
            found = tf.reduce_sum(slots * own[:, tf.newaxis, :, tf.newaxis], axis=2)
        else:
            found = slots[:, :, -1]
        return tf.reshape(found, [-1, len(self.sizes) * len(self.columns)])

    def fold_of(self, indices: Sequence[Any]) -> tf.Tensor:
        """Return the fold [B] of rows by their indices, n times [B]."""
        hashed = tf.zeros_like(tf.cast(indices[0], tf.int64))
        for index in indices:
            hashed = (hashed * _FACTOR + tf.cast(index, tf.int64)) % _MODULUS
        return hashed % self.folds

    def fill(self, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Set the tables that this layer reads in its network.

        Args:
            values: by feature the numbers [size, folds + 1, columns].
        """
        parts = [np.reshape(values[name], [size, -1]) for name, size in self.sizes.items()]
        table = tf.nest.flatten(self.get_input_at(0))[0]._keras_history.layer
        table.set_weights([np.concatenate(parts)])

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per feature and number; see `tfmtl.types.HasColumnSources`."""
        names = [(name, column) for name in self.sizes for column in self.columns]
        return [(own[0][0], *name) for name in names]  # type: ignore[index]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sizes": self.sizes, "columns": list(self.columns), "folds": self.folds}
