"""Geometric mean of the losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import POSITIVE, numbers_by_task, shares
from tfmtl.balancing.loss_weighting import LossWeighting


@register
class GLS(LossWeighting):
    """GLS, geometric loss strategy: the geometric mean of the losses, which does not depend on their scales.

    Use it for positive losses of very different scales without a weight to tune.

    objective = F = prod_i (L_i + e)^{p_i}, p_i = a_i / sum a over the observed tasks, computed as exp(sum p_i log). The
    weight of task i's gradient is F p_i / (L_i + e), so that all tasks contribute in proportion to a_i.

    Args:
        task_importances: a_i by task name, above 0; tasks without one have 1.
        epsilon: e, at least 1e-12, added to every loss (a negative one counts as 0): with a loss of 0 the mean would be
            0 and its gradient infinite. A loss far below it hardly counts.

    Example:
        >>> balancer = GLS()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> round(float(balancer(tf.constant([2.0, 8.0]), training=True)), 4)
        4.0
        >>> [round(float(weight), 4) for weight in balancer.current_weights()]  # 4 / (2 L_i)
        [1.0, 0.25]

    Reference:
        Chennupati, Sistu, Yogamani, Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
        Strategy for Multi-Task Learning", CVPR Workshops 2019, https://arxiv.org/abs/1904.08492, the geometric loss
        strategy.

    Differs: the paper multiplies in the losses of the tasks to focus on a second time; here any importances a_i are the
    exponents of a weighted geometric mean. The mean is that of the observed tasks.

    Cost: none. Losses that can be 0 or negative do not suit it. No evidence in recommenders.
    """

    task_arguments: ClassVar = {"task_importances": 1.0}

    def __init__(
        self, task_importances: Mapping[str, float] | None = None, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.task_importances = numbers_by_task(task_importances, "importance", POSITIVE)
        valid = isinstance(epsilon, int | float) and np.isfinite(epsilon) and epsilon >= 1e-12
        require(valid, "`epsilon` must be a number of at least 1e-12.", epsilon=epsilon)
        self.epsilon = float(epsilon)

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the geometric mean and its derivatives."""
        exponents = shares(tf.constant(self.in_task_order("task_importances"), tf.float32), observed)
        positive = tf.maximum(losses, 0.0) + self.epsilon
        mean = tf.exp(tf.reduce_sum(exponents * tf.math.log(positive)))
        value = tf.where(tf.reduce_any(observed), mean, 0.0)
        return value, value * exponents / positive

    def get_config(self) -> dict[str, Any]:
        own = {"task_importances": dict(self.task_importances), "epsilon": self.epsilon}
        return {**super().get_config(), **own}
