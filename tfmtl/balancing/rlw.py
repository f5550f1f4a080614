"""Random loss weighting."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import next_seed
from tfmtl.balancing.by_task import observed_softmax, shares
from tfmtl.balancing.loss_weighting import LossWeighting

_DISTRIBUTIONS = ("normal", "dirichlet")


@register
class RLW(LossWeighting):
    """RLW, random loss weighting: draws new weights in each step.

    Use it as a litmus test: a method that does not beat it does not balance.

    objective = sum_i w_i L_i over the observed tasks, w drawn each training step, w_i > 0, sum w = 1. Outside training
    the mean of the losses.

    Args:
        seed: seed of the draws; a draw depends on the seed and the number of training steps so far.
        distribution: `"normal"`: w = softmax(n), n standard normal. `"dirichlet"`: w uniform on the simplex.

    Example:
        >>> balancer = RLW(seed=1)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> float(balancer(tf.constant([3.0, 3.0]), training=True))
        3.0
        >>> first = balancer.current_weights()
        >>> _ = balancer(tf.constant([3.0, 3.0]), training=True)
        >>> bool(tf.reduce_any(balancer.current_weights() == first))
        False

    Reference:
        Lin, Ye, Zhang, Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
        TMLR 2022, https://arxiv.org/abs/2111.10603.

    Left open there and decided here: a batch's weights are drawn for its observed tasks alone.

    Cost: K random numbers per step. No evidence in recommenders.
    """

    def __init__(self, seed: int = 0, distribution: str = "normal", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        known = distribution in _DISTRIBUTIONS
        require(known, f"`distribution` must be one of {list(_DISTRIBUTIONS)}.", distribution=distribution)
        self.seed = seed
        self.distribution = distribution

    def build_state(self) -> None:
        """Create the counter that the draws depend on."""
        self._draws = self.add_state("draws", [])

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the weighted sum and the drawn weights."""
        if training:
            weights = random_weights(next_seed(self.seed, self._draws), observed, self.distribution)
        else:
            weights = shares(tf.ones_like(losses), observed)
        return tf.reduce_sum(weights * losses), weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed, "distribution": self.distribution}


def random_weights(seed: tf.Tensor, observed: tf.Tensor, distribution: str) -> tf.Tensor:
    """Return random weights [K] of the observed tasks, which sum to 1.

    Args:
        seed: int64 [2].
        observed: bool [K].
        distribution: as in `RLW`.
    """
    if distribution == "normal":
        return observed_softmax(tf.random.stateless_normal(observed.shape, seed), observed)
    uniform = tf.random.stateless_uniform(observed.shape, seed, minval=1e-7)
    return shares(-tf.math.log(uniform), observed)  # exponentials over their sum are uniform on the simplex
