"""The least combination of the tasks' gradients with lower bounds on its coefficients."""

from __future__ import annotations

from tfmtl._keras import tf
from tfmtl.balancing.min_norm import directions

FLOOR = 1e-5
"""Smallest eigenvalue of the cosines: float32 inner products of 2 million numbers are wrong by up to 5e-6 of 1."""

_TOLERANCE = 1e-8
_PATIENCE = 3
_PIVOTS = 100


def cosines_of(gramian: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the cosines between the gradients [K, K], made positive definite by `FLOOR`, and their lengths [K].

    Both are float64. A gradient of length zero is orthogonal to the others. A Gramian that is not finite counts as one
    of zeros, so that a step that mixed precision skips does no harm.

    Example:
        >>> cosines, lengths = cosines_of(tf.constant([[4.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
        >>> cosines.numpy().round(3).tolist(), lengths.numpy().tolist()
        ([[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 1.0]], [2.0, 1.0, 0.0])
    """
    split = directions(gramian, tf.ones(gramian.shape[0], tf.bool), FLOOR)
    idle = tf.cast(~split.active, tf.float64)
    cosines = tf.linalg.set_diag(split.cosines, tf.linalg.diag_part(split.cosines) + idle)
    return cosines, split.lengths * split.largest


def least_weights(gramian: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    """Return argmin_{v >= l} |sum_i v_i g_i|^2 for each of R lower bounds l, float32 [R, K].

    At the minimum d = sum_i v_i g_i opposes no g_j, and is orthogonal to it where v_j > l_j. The Gramian need not have
    full rank: no eigenvalue of the cosines between the g_i counts as less than `FLOOR`, so that the minimum is unique,
    equal for equal tasks, and every v_i |g_i| at most sum_j l_j |g_j| / sqrt(FLOOR). In return d . g_j / |g_j| may be
    below zero by `FLOOR` times the norm of (v_1 |g_1|, ..., v_K |g_K|).

    Args:
        gramian: products of the gradients [K, K]. A row of zeros is a task without a gradient; its
            coefficient is its lower bound.
        lower: lower bounds, at least 0 [R, K].

    Example:
        >>> least_weights(tf.constant([[1.0, -1.0], [-1.0, 2.0]]), tf.eye(2)).numpy().round(3).tolist()
        [[1.0, 0.5], [1.0, 1.0]]

    Reference:
        Block principal pivoting of linear complementarity problems: Júdice & Pires, "A Block Principal Pivoting
        Algorithm for Large-Scale Strictly Monotone Linear Complementarity Problems", Computers & Operations Research
        1994, https://doi.org/10.1016/0305-0548(94)90106-6.

    Cost: 1 to 5 solutions of R systems of K equations, rarely up to 100, after which the last point is made feasible.
    """
    cosines, lengths = cosines_of(gramian)
    longest = tf.reduce_max(lengths)
    lengths = tf.where(lengths > 0, lengths, tf.where(longest > 0, longest, 1.0))  # none counts for a gradient of 0
    bounds = tf.cast(lower, tf.float64) * lengths
    scale = tf.reduce_max(bounds, axis=1, keepdims=True)
    bounds = tf.math.divide_no_nan(bounds, scale)
    # The lengths leave the problem by substitution, so that their ratio does not count towards its condition.
    found = bounds + _pivot(cosines, tf.matmul(bounds, cosines))
    most = tf.reduce_sum(bounds, axis=1, keepdims=True) / FLOOR**0.5
    return tf.cast(tf.minimum(found, most) * scale / lengths, tf.float32)


def _pivot(matrix: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Return y >= 0 [R, K] with slopes matrix y + offset >= 0 and a slope of 0 wherever y > 0."""
    rows, size = offset.shape
    identity = tf.eye(size, dtype=tf.float64)

    def solve(free: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Minimise over the free coordinates; return the values and where a sign is broken."""
        block = tf.where(free[:, :, tf.newaxis] & free[:, tf.newaxis, :], matrix, identity)
        values = tf.linalg.solve(block, tf.where(free, -offset, 0.0)[:, :, tf.newaxis])[:, :, 0]
        slopes = offset + tf.matmul(values, matrix)
        return values, tf.where(free, values, slopes) < -_TOLERANCE

    def step(
        free: tf.Tensor, values: tf.Tensor, wrong: tf.Tensor, fewest: tf.Tensor, patience: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Exchange all wrong coordinates; only the last one where that has stopped to make them fewer."""
        count = tf.reduce_sum(tf.cast(wrong, tf.int32), axis=1)
        patience = tf.where(count < fewest, _PATIENCE, patience - 1)
        last = tf.cumsum(tf.cast(wrong, tf.int32), axis=1, reverse=True) == 1
        free = tf.math.logical_xor(free, wrong & (last | (patience >= 0)[:, tf.newaxis]))
        return free, *solve(free), tf.minimum(count, fewest), patience

    start = (
        tf.zeros([rows, size], tf.bool),
        tf.zeros([rows, size], tf.float64),
        offset < -_TOLERANCE,
        tf.fill([rows], size + 1),
        tf.fill([rows], _PATIENCE),
    )
    found = tf.while_loop(lambda *state: tf.reduce_any(state[2]), step, start, maximum_iterations=_PIVOTS)
    return tf.maximum(found[1], 0.0)
