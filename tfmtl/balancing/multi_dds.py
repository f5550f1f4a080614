"""Weights by the agreement of training gradients with gradients on a meta split."""

from __future__ import annotations

from tfmtl._keras import register, tf
from tfmtl.balancing.meta_weights import MetaGramian, MetaWeights


@register
class MultiDDS(MetaWeights):
    """MultiDDS-S: gives more weight to tasks with training gradients along the gradients of all tasks on a meta split.

    Use it where some tasks have noisy labels or rows unlike those that count. `fit` needs the callback
    `training.MetaGradients`; without it the weights stay equal.

    w = n softmax(x) over the n observed tasks, with the minimum of `MetaWeights`. Every n-th step
    x_k = x_k + h sum_i R_i d log p_i / d x_k = x_k + h (R_k - p_k sum_i R_i), with R_i the mean over j of the cosine of
    g_i, the gradient of task i on the training batch, with v_j, that of task j on a batch of the meta split.

    Args:
        learning_rate: h, above 0.
        minimum: m in [0, 1); no observed task has a weight below m.

    Example:
        >>> balancer = MultiDDS(learning_rate=1.0, minimum=0.0)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gradients = tf.constant([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.6, 0.8]])  # g, then v
        >>> balancer.learn(gradients @ tf.transpose(gradients), tf.constant([True, True]))
        >>> _ = balancer(tf.constant([1.0, 1.0]), training=True)
        >>> [round(float(weight), 3) for weight in balancer.current_weights()]  # R = [0.8, 0.4]: 2 softmax([0.2, -0.2])
        [1.197, 0.803]

    Reference:
        Wang, Tsvetkov, Neubig, "Balancing Training for Multilingual Neural Machine Translation", ACL 2020,
        https://arxiv.org/abs/2004.06748, algorithm 1 with the reward of MultiDDS-S. There p is the distribution that
        the language of a batch is drawn from; here all tasks learn from one batch and p weights their losses. Decided
        here: gradients of a task of zero length have the cosine 0.

    Cost: at the n-th steps 2 K backward passes and a forward pass on the meta batch. No evidence in recommenders.
    """

    def advantages(self, gramian: MetaGramian, shares: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return R_k - p_k sum_i R_i [K]."""
        rows, columns = (tf.sqrt(tf.linalg.diag_part(part)) for part in (gramian.training, gramian.meta))
        cosines = tf.math.divide_no_nan(tf.math.divide_no_nan(gramian.cross, rows[:, tf.newaxis]), columns)
        count = tf.reduce_sum(tf.cast(observed, tf.float32))
        rewards = tf.math.divide_no_nan(tf.reduce_sum(cosines, axis=1), count)
        return rewards - shares * tf.reduce_sum(rewards)
