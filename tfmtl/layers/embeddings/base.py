"""The base of compressed embeddings, which have fewer parameters than one row per index."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, spawn, tf


class CompressedEmbedding(keras.layers.Layer, abc.ABC):
    """Base of compressed embeddings: embeds indices with fewer parameters than a table of one row per index.

    Use one instead of `keras.layers.Embedding` for a vocabulary that makes the table too large. Subclasses create the
    weights in `build` with `add_table`, compute embeddings from them in `call`, and approximate a given table in
    `fit_to`.

    Args:
        input_dim: number of indices V.
        output_dim: width d.
        embeddings_initializer: initializer of every weight; each weight has its own draw.
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
        """Set the weights to the least-squares approximation of a table [V, d], or close to it."""

    def add_table(self, name: str, rows: int, columns: int) -> tf.Variable:
        """Return a new weight [rows, columns]."""
        initializer = spawn(self.embeddings_initializer, len(self._tables), self.seed)
        table = self.add_weight(name, [rows, columns], initializer=initializer, experimental_autocast=False)
        self._tables.append(table)
        return table

    def rows_of(self, table: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
        """Look rows up in the variable itself: the gradient of its half-precision value would be dense."""
        return tf.cast(tf.nn.embedding_lookup(table, rows), self.compute_dtype)

    def checked(self, table: np.ndarray) -> np.ndarray:
        """Return a table as float64, or raise `ValueError` if it is not [V, d]."""
        shape = (self.input_dim, self.output_dim)
        require(np.shape(table) == shape, f"`table` must have the shape {shape}.", shape=np.shape(table))
        if not self.built:
            self.build(tf.TensorShape([None]))
        return np.asarray(table, np.float64)

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the tables, in the protocol of the model-optimization toolkit."""
        return list(self._tables)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "seed": self.seed,
        }
