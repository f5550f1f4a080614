"""The mathematics of perturbations: their radius, normalized directions, and ascent inside a ball.

Every row of every encoding has a perturbation of its own; the same index means the same encoding in all lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfmtl._keras import tf
from tfmtl._replicas import mean_over_replicas

Tensors = Sequence[tf.Tensor]

_UP, _SMALLEST = 2.0**30, 1e-37  # the squares of the gradients of rows with small losses would be 0


def radii(encodings: Tensors, strength: float | tf.Tensor) -> list[tf.Tensor]:
    """Return strength sqrt(mean_b |z_b|^2) of each encoding [B, d], float32 scalars without a gradient.

    The radius grows with the encodings: otherwise training would make the encodings so long that a fixed radius is
    nothing.

    Example:
        >>> [float(r) for r in radii([tf.constant([[3.0, 4.0], [0.0, 5.0]])], 0.1)]
        [0.5]
    """
    squares = [tf.reduce_sum(tf.square(tf.cast(tf.stop_gradient(z), tf.float32)), axis=-1) for z in encodings]
    return [strength * tf.sqrt(mean_over_replicas(tf.reduce_mean(square))) for square in squares]


def directions(vectors: Tensors) -> list[tf.Tensor]:
    """Return vectors [B, d] with the length of every row 1, float32; 0 where a row is 0 or not finite.

    Lengths from 1e-28 to 1e9 are exact, shorter and longer ones count as 0.

    Example:
        >>> directions([tf.constant([[3.0, 4.0], [0.0, 0.0]])])[0].numpy().astype("float64").round(2).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    found = []
    for vector in vectors:
        scaled = _UP * tf.cast(vector, tf.float32)
        square = tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True)
        kept = tf.math.is_finite(square) & (square > _SMALLEST)
        found.append(tf.where(kept, scaled * tf.math.rsqrt(tf.maximum(square, _SMALLEST)), 0.0))
    return found


def random_directions(encodings: Tensors, seed: tf.Tensor) -> list[tf.Tensor]:
    """Return directions [B, d] of length 1 for encodings: one random vector times a random sign of each row.

    A draw for each coordinate would take as long as a layer of the network.

    Args:
        encodings: gives the shapes.
        seed: two integers [2].
    """
    found = []
    for i, encoding in enumerate(encodings):
        rows, width = tf.unstack(tf.shape(encoding))
        vector, sign = tf.unstack(
            tf.random.experimental.stateless_split(tf.random.experimental.stateless_fold_in(seed, i))
        )
        drawn = tf.random.stateless_normal([1, width], vector)
        signs = tf.sign(tf.random.stateless_uniform([rows, 1], sign, -1.0, 1.0))
        found.append(signs * directions([drawn])[0])
    return found


def projected(shifts: Tensors, limits: Tensors) -> list[tf.Tensor]:
    """Return shifts [B, d], of which rows longer than their limit are cut to it.

    Example:
        >>> [found] = projected([tf.constant([[3.0, 4.0], [0.3, 0.4]])], [tf.constant(1.0)])
        >>> found.numpy().astype("float64").round(2).tolist()
        [[0.6, 0.8], [0.3, 0.4]]
    """
    lengths = [tf.norm(shift, axis=-1, keepdims=True) for shift in shifts]
    return [
        shift * tf.minimum(1.0, tf.math.divide_no_nan(limit, length) + tf.cast(length == 0, tf.float32))
        for shift, limit, length in zip(shifts, limits, lengths, strict=True)
    ]


def ascent(
    gradients: Callable[[Tensors], Tensors], start: Tensors, limits: Tensors, steps: int, step_size: float
) -> list[tf.Tensor]:
    """Return shifts after steps of projected gradient ascent (PGD), x <- P(x + a r g / |g|), row by row.

    Args:
        gradients: returns the gradient of the ascended value at the shifts [B, d].
        start: the first shifts.
        limits: r of each encoding, scalars.
        steps: number of steps; one of size 1 from zeros is the fast gradient method.
        step_size: a, length of a step in units of r.
    """
    shifts = list(start)
    for _ in range(steps):
        moves = directions(gradients(shifts))
        moved = [x + step_size * r * move for x, r, move in zip(shifts, limits, moves, strict=True)]
        shifts = projected(moved, limits)
    return [tf.stop_gradient(shift) for shift in shifts]
