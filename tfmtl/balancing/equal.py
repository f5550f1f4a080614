"""Equal weights."""

from __future__ import annotations

from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import shares
from tfmtl.balancing.loss_weighting import LossWeighting


@register
class EqualWeights(LossWeighting):
    """Equal weighting (EW): the mean of the losses that the batch observes.

    Use it as a baseline; first tune `FixedWeights` before any other method.

    objective = 1/m sum_i L_i over the m observed tasks.

    Example:
        >>> balancer = EqualWeights()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> float(balancer(tf.constant([2.0, 4.0])))
        3.0

    The difference to `FixedWeights()`, the sum: a batch in which few tasks have labels counts as much as one in which
    all have, and the learning rate keeps its meaning when tasks are added.

    Cost: none.
    """

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean and 1/m."""
        weights = shares(tf.ones_like(losses), observed)
        return tf.reduce_sum(weights * losses), weights
