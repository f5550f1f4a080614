"""Conflict-averse gradient descent."""

from __future__ import annotations

import math
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.min_norm import ITERATIONS, directions, dot, equal_shares, outer, simplex_step, to_boundary
from tfmtl.balancing.step_gradients import At

_CENTRING = 0.1
_GAP = 1e-9
_FLOOR = 1e-8
_NO_MEAN = 1e-7
_State = tuple[tf.Tensor, ...]


@register
class CAGrad(GramianBalancer):
    """CAGrad: conflict-averse gradient descent, the update near the mean gradient that most helps the worst-off task.

    Use it for two or three tasks that conflict while their mean loss is still the objective.

    d = argmax over |d - g_0| <= c |g_0| of min_i g_i . d, with the mean g_0 = sum_i g_i / K. In the dual,
    w* = argmin over the simplex of g_w . g_0 + c |g_0| |g_w|, g_w = sum_i w_i g_i, and the weights are
    w = 1 / K + c |g_0| / |g_w*| w*.

    Args:
        c: size of the neighbourhood, 0 or more: at 0 the update is the mean, below 1 every stationary point is one of
            the mean loss, above 1 the update comes close to MGDA's.
        rescale: whether to divide the update by 1 + c^2, as the authors' code does.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = CAGrad(c=0.5)
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 4.0]])
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [1.059, 0.5]

    Reference:
        Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
        https://arxiv.org/abs/2110.14048, algorithm 1.

    Where we differ: the authors minimise the dual numerically with SciPy, we solve primal and dual together by an
    interior-point method, so that the update never leaves the neighbourhood. Where the paper is silent: a mean shorter
    than 3e-4 of the longest gradient is below the resolution of float32, and its weights are the mean's; a task with a
    zero gradient puts no condition on d and has weight 1 / K; eigenvalues of the cosines count as at least 1e-8.

    Cost: some 12 solutions of a K x K system per step. Evidence in recommenders: only as a baseline in GradCraft's
    repository (KDD 2024).
    """

    def __init__(self, c: float = 0.5, rescale: bool = False, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)
        valid = isinstance(c, int | float) and math.isfinite(c) and c >= 0
        require(valid, "`c` of CAGrad must be a number of at least 0.", c=c)
        self.c = c
        self.rescale = rescale

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weights of the update."""
        weights = conflict_averse_weights(gramian, observed, self.c)
        return weights / (1 + self.c**2) if self.rescale else weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "c": self.c, "rescale": self.rescale}


def conflict_averse_weights(gramian: tf.Tensor, observed: tf.Tensor, c: float) -> tf.Tensor:
    """Return w [K] with d = sum_i w_i g_i.

    Args:
        gramian: [K, K].
        observed: bool [K].
        c: radius relative to the mean gradient, 0 or more.
    """
    share = equal_shares(observed)
    if c == 0:
        return tf.cast(share, tf.float32)
    split = directions(gramian, observed, _FLOOR)
    matrix = split.matrix()
    projections = dot(matrix, share)
    mean = tf.sqrt(tf.maximum(tf.reduce_sum(share * projections), 0.0))
    towards = tf.math.divide_no_nan(projections, mean)
    z = best_of_ball(c**2 * matrix, towards, split.active)
    return tf.cast(share + tf.where(mean**2 > _NO_MEAN, c**2 * mean * z, 0.0), tf.float32)


def best_of_ball(matrix: tf.Tensor, offset: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
    """Return z [K] with q = sum_i z_i a_i that maximises min_i (b_i + a_i . q) over |q| <= 1.

    Primal-dual interior point on z, the level y = min_i, the multipliers x of the tasks (on the simplex, with slacks s)
    and v of the ball (with slack `room`). Newton's equations for z and v are solved by hand, which leaves one system of
    the simplex; p_i = a_i . q.

    Args:
        matrix: inner products of the a_i, float64 [K, K], positive semidefinite.
        offset: b, float64 [K].
        active: bool [K], the tasks that count.
    """
    mask, share = tf.cast(active, tf.float64), equal_shares(active)
    idle, members = 1.0 - mask, tf.reduce_sum(mask) + 1.0

    def step(gap: tf.Tensor, z: tf.Tensor, p: tf.Tensor, pairs: tf.Tensor, v: tf.Tensor, room: tf.Tensor) -> _State:
        x, s = tf.unstack(pairs)
        target, square = _CENTRING * gap, tf.reduce_sum(z * p)
        outside = 0.5 * (1.0 - square) - room
        curved = (matrix - outer(p) / (room + square)) / v
        pull = mask * (z * ((target - v * outside) / room) - x)
        dx, dy = simplex_step(curved, s / x, mask * (target / x - s) + dot(curved, pull), mask)
        h = dx - pull
        dz = (h - z * (tf.reduce_sum(p * h) / (room + square))) / v
        dp = dot(matrix, dz)
        droom = outside - tf.reduce_sum(p * dz)
        dv = target / room - v - v / room * droom
        moves = tf.stack([dx, mask * (dp - dy)])
        length = tf.minimum(to_boundary(pairs, moves), to_boundary(tf.stack([v, room]), tf.stack([dv, droom])))
        z, p, pairs = z + length * dz, p + length * dp, pairs + length * moves
        v, room = v + length * dv, room + length * droom
        gap = (tf.reduce_sum(mask * tf.reduce_prod(pairs, axis=0)) + v * room) / members
        return gap, z, p, pairs, v, room

    lowest = tf.reduce_min(tf.where(active, offset, math.inf))
    slack = tf.where(active, offset - lowest + 1.0, 1.0)
    one, zeros = tf.constant(1.0, tf.float64), tf.zeros_like(mask)
    start = (one, zeros, zeros, tf.stack([share + idle, slack]), one, 0.5 * one)
    found = tf.while_loop(lambda gap, *_: gap > _GAP, step, start, maximum_iterations=ITERATIONS)
    z = found[1] * mask
    return z / tf.sqrt(tf.maximum(tf.reduce_sum(z * dot(matrix, z)), 1.0))
