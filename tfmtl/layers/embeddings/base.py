"""Embeddings of fewer parameters than one row an index."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, spawn, tf


class CompressedEmbedding(keras.layers.Layer, abc.ABC):
    """Embeds indices with less than a table of one row each; takes the place of `keras.layers.Embedding`.

    Subclasses say in `build` which weights they have, by `add_table`, in `call` how rows come of them, and in `fit_to`
    which values come near to a given table.

    Args:
        input_dim: number of indices V.
        output_dim: width d.
        embeddings_initializer: initializer of every weight; each gets a draw of its own.
        seed: seed of the initial values.

    Call arguments:
        inputs: integer indices [...], each in [0, V).

    Returns:
        [..., d].
    """

    def __init__(
        self, input_dim: int, output_dim: int, *, embeddings_initializer: Any = "uniform", seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(input_dim=input_dim, output_dim=output_dim)
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.seed = seed
        self._tables: list[tf.Variable] = []

    @abc.abstractmethod
    def fit_to(self, table: np.ndarray) -> None:
        """Set the weights to what comes nearest to a table [V, d] in the sense of least squares, or close to it."""

    def add_table(self, name: str, rows: int, columns: int) -> tf.Variable:
        """Return a new weight [rows, columns]."""
        initializer = spawn(self.embeddings_initializer, len(self._tables), self.seed)
        table = self.add_weight(name, [rows, columns], initializer=initializer, experimental_autocast=False)
        self._tables.append(table)
        return table

    def rows_of(self, table: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
        """Look rows up; of the variable, not of its value in half precision, whose gradient would be dense."""
        return tf.cast(tf.nn.embedding_lookup(table, rows), self.compute_dtype)

    def checked(self, table: np.ndarray) -> np.ndarray:
        """Return a table as float64, or raise `ValueError` if it is not [V, d]."""
        shape = (self.input_dim, self.output_dim)
        require(np.shape(table) == shape, f"`table` must have the shape {shape}.", shape=np.shape(table))
        if not self.built:
            self.build(tf.TensorShape([None]))
        return np.asarray(table, np.float64)

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the tables; the model-optimization toolkit asks by this name."""
        return list(self._tables)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "seed": self.seed,
        }
