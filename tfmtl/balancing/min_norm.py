"""Solvers over the simplex that several balancers share, and the form of the Gramian that they read.

All of it is tensor operations of static shape in loops of bounded length, in float64 inside. Tasks that take no part
are left out by masks, so that the others get the solution of the smaller problem.
"""

from __future__ import annotations

from typing import NamedTuple

from tfmtl._keras import tf

ITERATIONS = 40
"""Bound of the interior-point iterations; 13 is the median over hostile Gramians of 2 to 8 tasks, 21 the most."""

GAP = 1e-11
"""Mean complementarity, relative to the largest gradient's square, at which they stop."""

_TO_BOUNDARY = 0.99
_CENTRING = 0.1


class Directions(NamedTuple):
    """A Gramian split into directions and lengths, cleaned of rounding.

    Attributes:
        cosines: float64 [K, K], positive semidefinite, zero in rows and columns of tasks without a direction.
        lengths: float64 [K], gradient norms relative to the largest; 0 for unobserved tasks.
        largest: float64 scalar, the largest norm.
        active: bool [K], observed with a gradient other than zero.
    """

    cosines: tf.Tensor
    lengths: tf.Tensor
    largest: tf.Tensor
    active: tf.Tensor

    def matrix(self) -> tf.Tensor:
        """Return the Gramian [K, K] relative to the largest squared norm."""
        return outer(self.lengths) * self.cosines


def directions(gramian: tf.Tensor, observed: tf.Tensor, floor: float = 0.0) -> Directions:
    """Split a Gramian [K, K].

    A Gramian with a number that is not finite (mixed precision overflows now and then) counts as zero.

    Args:
        gramian: inner products, float32 [K, K].
        observed: bool [K].
        floor: smallest eigenvalue of the cosines among active tasks; separates tasks that are equal in float32.

    Example:
        >>> split = directions(tf.constant([[4.0, -1.0], [-1.0, 1.0]]), tf.constant([True, True]))
        >>> split.lengths.numpy().tolist(), [round(c, 6) for c in split.cosines.numpy()[0].tolist()]
        ([1.0, 0.5], [1.0, -0.5])
    """
    known = tf.reduce_all(tf.math.is_finite(gramian))
    exact = tf.cast(tf.where(known, gramian, tf.zeros_like(gramian)), tf.float64)
    norms = tf.sqrt(tf.where(observed, tf.maximum(tf.linalg.diag_part(exact), 0.0), 0.0))
    inverse = tf.math.divide_no_nan(tf.ones_like(norms), norms)
    values, vectors = tf.linalg.eigh(tf.clip_by_value(exact * inverse[:, tf.newaxis] * inverse, -1.0, 1.0))
    active = norms > 0
    clean = tf.matmul(vectors * tf.maximum(values, floor), vectors, transpose_b=True)
    largest = tf.reduce_max(norms)
    cosines = clean * outer(tf.cast(active, tf.float64))
    return Directions(cosines, tf.math.divide_no_nan(norms, largest), largest, active)


def outer(vector: tf.Tensor) -> tf.Tensor:
    """Return the products [K, K] of a vector's entries."""
    return vector[:, tf.newaxis] * vector


def dot(matrix: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """Return a symmetric matrix [K, K] times a vector [K]."""
    return tf.reduce_sum(matrix * vector, axis=1)


def equal_shares(observed: tf.Tensor) -> tf.Tensor:
    """Return 1 / K for each of the K observed tasks, 0 for others, float64 [tasks]."""
    mask = tf.cast(observed, tf.float64)
    return tf.math.divide_no_nan(mask, tf.reduce_sum(mask))


def min_norm_weights(matrix: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return argmin over the simplex of w^T M w, float64 [K], by a primal-dual interior-point method.

    KKT residual below 1e-9 of the largest entry of M; of several solutions the one in the middle of their face, so that
    equal tasks get equal weights. Unobserved tasks get 0.

    Args:
        matrix: float64 [K, K], positive semidefinite, at most 1; zero in rows and columns of unobserved tasks.
        observed: bool [K].

    Example:
        >>> matrix = tf.constant([[1.0, 0.0], [0.0, 0.25]], tf.float64)
        >>> [round(w, 6) for w in min_norm_weights(matrix, tf.constant([True, True])).numpy().tolist()]
        [0.2, 0.8]

    Reference:
        Wright, "Primal-Dual Interior-Point Methods", SIAM 1997, chapter 8 (convex quadratic programmes).
    """
    mask = tf.cast(observed, tf.float64)
    share = equal_shares(observed)
    idle = 1.0 - mask  # entries of 1 for the tasks left out keep all divisions defined

    def step(gap: tf.Tensor, w: tf.Tensor, s: tf.Tensor) -> tuple[tf.Tensor, ...]:
        target = _CENTRING * gap / w
        change, _ = simplex_step(matrix, s / w, mask * (target - dot(matrix, w)), mask)
        slack = mask * (target - s) - s / w * change
        length = to_boundary(tf.stack([w, s]), tf.stack([change, slack]))
        w, s = w + length * change, s + length * slack
        return tf.reduce_sum(share * w * s), w, s

    start = (tf.constant(1.0, tf.float64), share + idle, tf.ones_like(mask))
    _, weights, _ = tf.while_loop(lambda gap, w, s: gap > GAP, step, start, maximum_iterations=ITERATIONS)
    return weights * mask


def simplex_step(
    matrix: tf.Tensor, diagonal: tf.Tensor, residual: tf.Tensor, mask: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return x and y with (M + diag) x - y 1 = residual and sum x = 0, over the tasks of the mask."""
    system = tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + diagonal)
    solved = tf.linalg.solve(system, tf.stack([residual, mask], axis=1))
    sums = tf.reduce_sum(solved, axis=0)
    level = -tf.math.divide_no_nan(sums[0], sums[1])
    return solved[:, 0] + level * solved[:, 1], level


def to_boundary(positive: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Return the step length, at most 1, that keeps `positive + length * change` above 0."""
    return tf.minimum(_TO_BOUNDARY / tf.maximum(tf.reduce_max(-change / positive), 1e-30), 1.0)


def project_to_simplex(point: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the closest point [K] with observed entries of at least 0 that sum to 1; the others are 0.

    Example:
        >>> project_to_simplex(tf.constant([1.0, 0.5, 9.0]), tf.constant([True, True, False])).numpy().tolist()
        [0.75, 0.25, 0.0]

    Reference:
        Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High Dimensions", ICML 2008, figure 1; its
        threshold is the largest of (sum of the k largest entries - 1) / k, found here by comparing all pairs.
    """
    top = tf.reduce_max(tf.where(observed, point, point.dtype.min))
    # More than 1 below the largest entry means 0 at any distance.
    shifted = tf.where(observed, tf.maximum(point - top, -2.0), -2.0)
    above = tf.cast((shifted >= shifted[:, tf.newaxis]) & observed, point.dtype)
    counts = tf.maximum(tf.reduce_sum(above, axis=1), 1.0)
    thresholds = (tf.reduce_sum(above * shifted, axis=1) - 1.0) / counts
    threshold = tf.reduce_max(tf.where(observed, thresholds, -2.0))
    return tf.where(observed, tf.maximum(shifted - threshold, 0.0), 0.0)
