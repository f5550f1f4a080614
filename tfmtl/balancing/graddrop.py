"""Gradient sign dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import next_seed
from tfmtl.balancing.by_task import UNIT_INTERVAL, numbers_by_task
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients


@register
class GradDrop(GradientBalancer):
    """GradDrop, gradient sign dropout: keeps in every element the positive gradients or the negative ones, at random.

    Use it for tasks with gradients of different signs of which none dominates; it adds noise like dropout does.

    P = (1 + sum_i g_i / sum_i |g_i|) / 2 and U uniform on [0, 1), elementwise. Kept are the g_i above 0 where P > U and
    those below 0 elsewhere: k_i. The update is sum_i l_i g_i + (1 - l_i) k_i. With equal leaks its expectation is the
    plain sum.

    Args:
        leak: l_i by task name, in [0, 1]: share of the task's own gradient that always passes; 0 for tasks
            without one.
        seed: seed of U.

    Example:
        >>> balancer = GradDrop(seed=5)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gradients = TaskGradients(tf.constant([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]), None, None)
        >>> for _ in range(2):
        ...     balancer.mix([gradients], tf.ones([2]), tf.constant([True, True]))[0].numpy().tolist()
        [6.0, 2.0, 2.0]
        [-4.0, 2.0, 2.0]

    Reference:
        Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020,
        https://arxiv.org/abs/2010.06808, algorithm 1. There the sign is drawn for activations that the tasks share,
        after the gradients were multiplied by the activations' signs and summed over the batch; here it is thrown at
        the shared variables, with gradients that are sums over the batch. A table draws for the elements of the rows
        that the batch touches. U depends on the seed, the step and the variable. A task without a label takes no part
        in P.

    Cost: one random number per element, and a few passes over the K gradients. No evidence in recommenders is known to
    us.
    """

    task_arguments: ClassVar = {"leak": 0.0}

    def __init__(self, leak: Mapping[str, float] | None = None, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.leak = numbers_by_task(leak, "leak", UNIT_INTERVAL)
        self.seed = seed

    def build_state(self) -> None:
        """Create the counter that the draws depend on."""
        self._draws = self.add_state("draws", [])

    def mix(
        self, gradients: Sequence[TaskGradients | None], losses: tf.Tensor, observed: tf.Tensor
    ) -> Sequence[Gradient]:
        """Return the sum of the kept gradients."""
        seed, step = tf.unstack(next_seed(self.seed, self._draws))
        mixed: list[Gradient] = []
        for i, of_tasks in enumerate(gradients):
            if of_tasks is None:
                mixed.append(None)
                continue
            of_variable = tf.stack([seed, step * len(gradients) + i])  # every step and variable has draws of its own
            uniform = tf.random.stateless_uniform(tf.shape(of_tasks.values)[1:], of_variable)
            mixed.append(of_tasks.gradient(one_signed(of_tasks.values, uniform, self.in_task_order("leak"))))
        return mixed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "leak": dict(self.leak), "seed": self.seed}


def one_signed(values: tf.Tensor, uniform: tf.Tensor, leaks: Sequence[float]) -> tf.Tensor:
    """Return sum_i l_i g_i + (1 - l_i) k_i [...].

    Args:
        values: the g_i [K, ...], zero for tasks that take no part.
        uniform: U [...], in [0, 1).
        leaks: the l_i [K].
    """
    sizes = tf.abs(values)
    total, size = tf.reduce_sum(values, axis=0), tf.reduce_sum(sizes, axis=0)
    positive = size + total > 2.0 * uniform * size  # P > U
    # The parts above 0 sum to (size + total) / 2, those below 0 to (total - size) / 2: no mask by task is needed.
    if not any(leaks):
        return 0.5 * (total + tf.where(positive, size, -size))
    rest = 1.0 - tf.constant(leaks, tf.float32)
    dropped = tf.tensordot(rest, values, axes=1)
    size = tf.tensordot(rest, sizes, axes=1)
    return total - 0.5 * (dropped + tf.where(positive, -size, size))
