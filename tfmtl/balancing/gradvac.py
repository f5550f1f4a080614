"""Gradient vaccine: gradients are bent towards the cosines they usually have."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import next_seed
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.step_gradients import At

_STEEPEST = 0.99


@register
class GradVac(GramianBalancer):
    """GradVac, gradient vaccine: adds to each task's gradient as much of another's as restores their usual cosine.

    Use it for related tasks of similar loss scale, many of which agree most of the time.

    p_i starts as g_i; for the other tasks j in random order, with c = cos(p_i, g_j) and the target t_ij: if c < t_ij,
    p_i <- p_i + |p_i| (t sqrt(1 - c^2) - c sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j, so that cos(p_i, g_j) = t_ij.
    Then t_ij <- (1 - beta) t_ij + beta c. The update is sum_i p_i. With t = 0 it is PCGrad. All of it happens on the
    coefficients of the g_j, so that only the Gramian is needed; no coefficient is below zero.

    Args:
        beta: weight of the newest cosine in the moving average, from 0 (targets stay 0) to 1.
        seed: seed of the order.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = GradVac()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gramian = tf.constant([[1.0, -1.0], [-1.0, 2.0]])  # of (1, 0) and (-1, 1)
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [2.0, 1.5]

    Reference:
        Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual
        Models", ICLR 2021, https://arxiv.org/abs/2010.05874, algorithm 1.

    Where the paper leaves a choice: the average takes the cosine with p_i as it stands, before its correction; it
    starts at 0 and stays for pairs of which a task is unobserved or has a zero gradient; one average for all variables
    at `at`, where the paper has one for each layer; targets count as at most 0.99, or a pair that always agreed would
    add many times its gradients when it does not. A task with a zero gradient keeps weight 1.

    Cost: K^2 inner products of vectors of K numbers per step. Evidence in recommenders: only as a baseline in
    GradCraft's repository (KDD 2024).
    """

    def __init__(self, beta: float = 0.01, seed: int = 0, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)
        valid = isinstance(beta, int | float) and 0 <= beta <= 1
        require(valid, "`beta` of GradVac must be a number in [0, 1].", beta=beta)
        self.beta = beta
        self.seed = seed

    def build_state(self) -> None:
        """Create the targets and the counter that the orders depend on."""
        self._targets = self.add_state("targets", [len(self.task_names)] * 2)
        self._draws = self.add_state("draws", [])

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the sum of the corrected gradients' coefficients."""
        tasks = gramian.shape[0]
        draws = tf.random.stateless_uniform([tasks, tasks], next_seed(self.seed, self._draws))
        orders = tf.argsort(draws, axis=1)
        weights, targets = vaccinated(gramian, observed, orders, tf.convert_to_tensor(self._targets), self.beta)
        self._targets.assign(targets)
        return weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "seed": self.seed}


def vaccinated(
    gramian: tf.Tensor, observed: tf.Tensor, orders: tf.Tensor, targets: tf.Tensor, beta: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return w [K] with sum_i p_i = sum_j w_j g_j, and the new targets [K, K].

    Args:
        gramian: [K, K]; one with a number that is not finite counts as zero.
        observed: bool [K].
        orders: int [K, K], row i the order in which p_i meets the tasks; its own index is skipped.
        targets: [K, K], row i those of p_i.
        beta: weight of the newest cosine.
    """
    tasks = gramian.shape[0]
    known = tf.reduce_all(tf.math.is_finite(gramian))
    gramian = tf.where(known, gramian, tf.zeros_like(gramian))
    norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(gramian), 0.0))
    inverse = tf.math.divide_no_nan(tf.ones_like(norms), norms)
    cosines = gramian * inverse[:, tf.newaxis] * inverse  # everything in units of u_i = g_i / |g_i|
    own = tf.range(tasks)
    active = observed & (norms > 0)
    coefficients, products = tf.eye(tasks), cosines  # row i: p_i / |g_i| in terms of the u_j; its products with them
    for position in range(tasks):  # the rows are independent: all corrections of one position happen at once
        other = orders[:, position]
        hot = tf.one_hot(other, tasks)
        valid = active & tf.gather(active, other) & (other != own)
        length = tf.sqrt(tf.maximum(tf.reduce_sum(coefficients * products, axis=1), 0.0))
        cosine = tf.math.divide_no_nan(tf.reduce_sum(hot * products, axis=1), length)
        cosine = tf.clip_by_value(cosine, -1.0, 1.0)
        target = tf.minimum(tf.reduce_sum(hot * targets, axis=1), _STEEPEST)
        amount = length * (target * _sine(cosine) / _sine(target) - cosine)
        added = tf.where(valid & (cosine < target), amount, 0.0)[:, tf.newaxis] * hot
        coefficients += added
        products += tf.matmul(added, cosines)
        change = tf.where(valid, beta * (cosine - tf.reduce_sum(hot * targets, axis=1)), 0.0)
        targets += change[:, tf.newaxis] * hot
    weights = tf.reduce_sum(coefficients * norms[:, tf.newaxis], axis=0) * inverse
    return tf.where(norms > 0, weights, 1.0), targets


def _sine(cosine: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(1.0 - cosine**2)
