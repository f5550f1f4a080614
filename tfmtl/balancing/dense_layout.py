"""One vector for all dense shared variables, so that state kept about their gradients is one variable."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfmtl._keras import tf
from tfmtl.balancing.gramian import Gradient, TaskGradients

Gradients = Sequence[TaskGradients | None]

_SMALLEST = 1e-37
"""Values of at most this count as zero; their inverse would leave the range of float32."""


@dataclasses.dataclass(frozen=True)
class DenseLayout:
    """Joins the tasks' gradients of the dense shared variables to one matrix, and splits a vector of its width again.

    Embedding tables are left out, since state by task and element would cost K tables. Before the first step a table
    differs from other variables only by its name: a variable named `embeddings`, as in Keras' `Embedding`, is a table.

    Attributes:
        shapes: of the shared variables, None for tables.

    Example:
        >>> layout = DenseLayout.of([tf.Variable(tf.ones([9, 2]), name="item/embeddings"), tf.Variable(tf.ones([3]))])
        >>> layout.shapes, layout.size
        ((None, (3,)), 3)
    """

    shapes: tuple[tuple[int, ...] | None, ...]

    @classmethod
    def of(cls, shared: Sequence[tf.Variable]) -> DenseLayout:
        """Return the layout of the given variables."""
        return cls(tuple(None if is_table(variable) else tuple(variable.shape) for variable in shared))

    @property
    def sizes(self) -> list[int]:
        """The number of elements of each dense variable."""
        return [math.prod(shape) for shape in self.shapes if shape is not None]

    @property
    def size(self) -> int:
        """The number of elements of all dense variables."""
        return sum(self.sizes)

    def join(self, gradients: Gradients, tasks: int) -> tf.Tensor:
        """Return the gradients of the dense variables [tasks, size], zero where there is none."""
        parts = [tf.zeros([tasks, 0])]  # a network may share tables only
        for shape, gradient in zip(self.shapes, gradients, strict=True):
            if shape is None:
                continue
            if gradient is None or gradient.rows is not None:
                parts.append(tf.zeros([tasks, math.prod(shape)]))
            else:
                parts.append(gradient.matrix())
        return tf.concat(parts, axis=1)

    def others(self, gradients: Gradients) -> list[TaskGradients]:
        """Return the gradients that `join` leaves out."""
        pairs = zip(self.shapes, gradients, strict=True)
        return [g for shape, g in pairs if g is not None and (shape is None or g.rows is not None)]

    def split(self, vector: tf.Tensor, weights: tf.Tensor, gradients: Gradients) -> list[Gradient]:
        """Return one gradient for each shared variable.

        Args:
            vector: of the dense variables [size].
            weights: of the tasks' gradients [K], for those that `join` leaves out.
            gradients: of the batch.
        """
        parts = iter(tf.split(vector, self.sizes) if self.sizes else ())
        dense = [None if shape is None else tf.reshape(next(parts), shape) for shape in self.shapes]
        left_out = {id(gradient) for gradient in self.others(gradients)}
        return [
            None if g is None else g.weighted(weights) if id(g) in left_out else part
            for g, part in zip(gradients, dense, strict=True)
        ]


def is_table(variable: tf.Variable) -> bool:
    """Return whether a variable is an embedding table, by its name."""
    return str(variable.name).rsplit("/", 1)[-1].split(":")[0] == "embeddings"


def task_norms(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return each task's norm [K] over matrices [K, ...], also where the squares leave the range of float32.

    Example:
        >>> [f"{norm:.3g}" for norm in task_norms([tf.constant([[3e30], [0.0]]), tf.constant([[4e30], [0.0]])])]
        ['5e+30', '0']
    """
    peaks = tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(part), axis=1) for part in parts]), axis=0)
    peaks = tf.maximum(peaks, 0.0)[:, tf.newaxis]  # the largest of no elements is -inf
    inverse = tf.math.divide_no_nan(1.0, tf.where(peaks > _SMALLEST, peaks, 0.0))
    squares = [tf.reduce_sum(tf.square(part * inverse), axis=1) for part in parts]
    return peaks[:, 0] * tf.sqrt(tf.add_n(squares))
