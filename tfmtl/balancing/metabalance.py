"""Auxiliary gradients brought to the size of the target task's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_known
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import assign_if_finite
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients

SMALLEST = 1e-20
"""Norms of at most this count as zero; squares of smaller numbers vanish in float32."""


@register
class MetaBalance(GradientBalancer):
    """MetaBalance: scales the auxiliary tasks' gradients towards the size of the target task's, variable by variable.

    Use it for one task that matters and others that help it; for tasks of equal rank take another method.

    m_i is a moving average of |g_i| at the variable. The update is g_main + sum over the others of
    r g_i m_main / m_i + (1 - r) g_i.

    Args:
        main: name of the target task.
        relax: r in [0, 1]; 0 is the plain sum, 1 gives every task the target's size.
        beta: share of the old average that a step keeps, in [0, 1).

    Example:
        >>> balancer = MetaBalance("click", relax=0.5)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.prepare([tf.Variable([0.0, 0.0])])
        >>> gradients = TaskGradients(tf.constant([[3.0, 4.0], [10.0, 0.0]]), None, None)
        >>> balancer.mix([gradients], tf.ones([2]), tf.constant([True, True]))[0].numpy().tolist()
        [10.5, 4.0]

    Raises:
        ValueError: if `main` is not a task of the model.

    Reference:
        He et al., "MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient Magnitudes of Auxiliary
        Tasks", WWW 2022, https://arxiv.org/abs/2203.06801, in the form of the authors' code, which brings gradients
        both up and down. The paper has no missing labels: here the average of a task without a label stays, and
        averages are corrected for their start at zero, which changes nothing as long as all tasks are observed. The
        target's average is used also in batches without its label. Where the target has never had a gradient, the
        others stay as they are. A table counts with the rows that the batch touches.

    Cost: K norms per variable. It was made for recommenders and reported there, offline.
    """

    def __init__(self, main: str, relax: float = 0.7, beta: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(0 <= relax <= 1, "`relax` must be a number in [0, 1].", relax=relax)
        require_fraction(beta=beta)
        self.main, self.relax, self.beta = main, float(relax), float(beta)

    def build_state(self) -> None:
        """Check the target's name and create the number of steps by task."""
        require_known([self.main], self.task_names, "task", "`main` of MetaBalance")
        self._main_index = self.task_names.index(self.main)
        self._steps = self.add_state("steps", [len(self.task_names)])

    def prepare(self, shared: Sequence[tf.Variable]) -> None:
        """Create the averages [variables, K]."""
        self._averages = self.add_state("averages", [len(shared), len(self.task_names)])

    def mix(
        self, gradients: Sequence[TaskGradients | None], losses: tf.Tensor, observed: tf.Tensor
    ) -> Sequence[Gradient]:
        """Return the sums of the scaled gradients."""
        none = tf.zeros([len(self.task_names)])
        norms = tf.stack([none if g is None else tf.norm(g.matrix(), axis=1) for g in gradients])
        steps = self._steps + tf.cast(observed, tf.float32)
        averages = tf.where(observed, self.beta * self._averages + (1.0 - self.beta) * norms, self._averages)
        unbiased = tf.math.divide_no_nan(averages, 1.0 - tf.pow(self.beta, steps))
        factors = tf.where(observed, towards(unbiased, self._main_index, self.relax), 0.0)
        weights = tf.math.divide_no_nan(tf.reduce_sum(factors * norms, axis=0), tf.reduce_sum(norms, axis=0))
        state = (self._steps, steps), (self._averages, averages), (self.last_weights, weights)
        assign_if_finite(norms, *state)
        pairs = zip(gradients, tf.unstack(factors), strict=True)
        return [None if g is None else g.weighted(factor) for g, factor in pairs]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "main": self.main, "relax": self.relax, "beta": self.beta}


def towards(sizes: tf.Tensor, main: int, relax: float) -> tf.Tensor:
    """Return r m_main / m_i + 1 - r for sizes m [..., K]; 1 where either size is zero.

    Example:
        >>> towards(tf.constant([[5.0, 10.0], [0.0, 10.0]]), main=0, relax=0.5).numpy().tolist()
        [[1.0, 0.75], [1.0, 1.0]]
    """
    target = sizes[..., main : main + 1]
    known = (sizes > SMALLEST) & (target > SMALLEST)
    ratio = tf.where(known, target, 1.0) / tf.where(known, sizes, 1.0)
    return relax * ratio + (1.0 - relax)
