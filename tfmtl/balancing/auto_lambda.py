"""Weights that lower the loss on a meta split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import NONNEGATIVE, numbers_by_task
from tfmtl.balancing.meta_weights import MetaGramian, MetaWeights


@register
class AutoLambda(MetaWeights):
    """Auto-Lambda: learns the weights under which a step lowers the loss on a meta split the most.

    Use it to train auxiliary tasks for a primary one, with its `importance` 1 and that of the others 0. `fit` needs the
    callback `training.MetaGradients`; without it the weights stay equal.

    After a step of gradient descent with rate r, dL_meta / dw_i = -r <v, g_i>, v = sum_j q_j v_j, for the gradients g
    of the tasks' losses on the training batch and v_j on a batch of the meta split. Every n-th step
    w_i = w_i exp(h <v, g_i> / (|v| max_j |g_j|)), scaled to the sum of before: a step of the exponentiated gradient on
    the simplex. `MetaWeights` adds the minimum m.

    Args:
        importance: q_j by task name, at least 0; 1 for the others.
        learning_rate: h, above 0.
        minimum: m in [0, 1); no observed task has a weight below m.

    Example:
        >>> balancer = AutoLambda({"click": 0.0}, learning_rate=1.0, minimum=0.0)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gradients = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])  # g, then v = v_rating
        >>> balancer.learn(gradients @ tf.transpose(gradients), tf.constant([True, True]))
        >>> _ = balancer(tf.constant([1.0, 1.0]), training=True)
        >>> [round(float(weight), 3) for weight in balancer.current_weights()]  # 2 softmax([0.6, 0.8])
        [0.9, 1.1]

    Reference:
        Liu, James, Davison, Johns, "Auto-Lambda: Disentangling Dynamic Task Relationships", TMLR 2022,
        https://arxiv.org/abs/2202.03091, to first order: theirs differentiates through a step of the model with second
        derivatives, by finite differences. Decided here: weights on a simplex, since free weights fall to 0 where they
        only have to lower a loss; the derivative is divided by its largest value, which depends on scales and on r.

    Cost: at the n-th steps 2 K backward passes and a forward pass on the meta batch. On the simplex the task with the
    longest gradient along v gains most, also where it needs no help. No evidence in recommenders.
    """

    task_arguments: ClassVar = {"importance": 1.0}

    def __init__(
        self,
        importance: Mapping[str, float] | None = None,
        learning_rate: float = 0.1,
        minimum: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, minimum, **kwargs)
        self.importance = numbers_by_task(importance, "importance", NONNEGATIVE)

    def advantages(self, gramian: MetaGramian, shares: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return <v, g_i> / (|v| max_j |g_j|) [K]."""
        importance = tf.constant(self.in_task_order("importance"), tf.float32)[:, tf.newaxis]
        along = tf.squeeze(gramian.cross @ importance, axis=1)
        square = tf.squeeze(tf.transpose(importance) @ gramian.meta @ importance)
        longest = tf.sqrt(tf.reduce_max(tf.linalg.diag_part(gramian.training)))
        return tf.math.divide_no_nan(tf.math.divide_no_nan(along, tf.sqrt(tf.maximum(square, 0.0))), longest)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "importance": dict(self.importance)}
