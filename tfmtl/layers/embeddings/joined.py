"""Joined embeddings: one table for many small vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, seed_of, spawn, tf


@register
class JoinedEmbedding(keras.layers.Layer):
    """Joined embedding: embeds several categorical features with one look-up.

    Use it for many small vocabularies: the look-up, its gradient and the optimizer's update have a fixed cost per
    table, which is paid once instead of n times.

    y = [E_1[i_1], ..., E_n[i_n]]; the tables E_j [sizes_j, units] are consecutive rows of one variable.

    Args:
        sizes: number of indices by feature, in the order of the inputs.
        units: width of every embedding.
        embeddings_initializer: initializer of a table; every feature has its own draw.
        seed: seed of the initial values; seed and name of a feature decide its table.

    Call arguments:
        inputs: integer indices [B, n], each in [0, sizes_j).

    Returns:
        [B, n * units].

    Example:
        >>> JoinedEmbedding({"colour": 3, "shape": 5}, 4)(tf.constant([[2, 4], [0, 1]])).shape
        TensorShape([2, 8])

    Cost: one gather of n rows per row of the batch.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        units: int,
        embeddings_initializer: Any = "uniform",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(bool(sizes), "`sizes` must name at least one feature.", sizes=sizes)
        require_positive_int(units=units, **dict(sizes))
        self.sizes = dict(sizes)
        self.units = units
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Create the table [sum of sizes, units], called `embeddings` like that of Keras' `Embedding`."""
        count = len(self.sizes)
        require(
            input_shape[-1] == count, f"Layer {self.name!r} takes {count} indices per row.", shape=tuple(input_shape)
        )
        shape = [sum(self.sizes.values()), self.units]
        self.embeddings = self.add_weight(
            "embeddings", shape, initializer=self._initial_values, experimental_autocast=False
        )
        super().build(input_shape)

    def _initial_values(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        tables = [
            spawn(self.embeddings_initializer, 0, seed_of(name, self.seed))([size, self.units], dtype)
            for name, size in self.sizes.items()
        ]
        return tf.concat(tables, axis=0)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        sizes = list(self.sizes.values())
        first = tf.constant([sum(sizes[:i]) for i in range(len(sizes))], tf.int32)
        # Look up in the variable itself: the gradient of its half-precision value would be dense.
        looked_up = tf.nn.embedding_lookup(self.embeddings, tf.cast(inputs, tf.int32) + first)
        return tf.cast(tf.reshape(looked_up, [-1, len(sizes) * self.units]), self.compute_dtype)

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the table, in the protocol of the model-optimization toolkit."""
        return [self.embeddings]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sizes": self.sizes,
            "units": self.units,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "seed": self.seed,
        }
