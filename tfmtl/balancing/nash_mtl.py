"""The Nash bargaining solution among the tasks."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.balancing.fairgrad import fair_weights
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.step_gradients import At


@register
class NashMTL(GramianBalancer):
    """Nash-MTL: the Nash bargaining solution, the update that maximises the product of its benefits to the tasks.

    Use it as an experiment for tasks of very different loss scales.

    d = argmax over |d| <= 1 of sum_i log(g_i . d); its direction is d = sum_i w_i g_i with w > 0, M w = 1 / w, M the
    Gramian. No task's scale matters: w_i |g_i| depends on the angles only, and |d|^2 = K.

    Args:
        normalize: whether M is divided by the mean of |g_i|^2 first, so that the update keeps the gradients' size:
            |d|^2 = sum_i |g_i|^2. If not, the equation is the paper's and |d|^2 = K at every step.
        max_norm: longest update |d| (of the gradients at `at`), above 0; None means no bound. The authors' code has 1.
        update_every: steps between two solutions; in between, the last weights hold.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = NashMTL(normalize=False)
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 4.0]])
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [1.0, 0.5]

    Reference:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, https://arxiv.org/abs/2202.01017,
        claim 3.1 and algorithm 1.

    Where we differ: they approximate the equation by a sequence of convex programmes, 20 at most, we solve it by
    Newton's method (`fairgrad.py`; FairGrad with alpha 1 is the same). Their code divides M by its Frobenius norm; our
    divisor makes the weights those of the plain sum for orthogonal gradients of one length, and for one task. Tasks in
    exact opposition and zero gradients: as in FairGrad. A task that has not been seen at a solution has weight 1 until
    the next.

    Cost: one K x K eigendecomposition and 5 to 10 solutions of a K x K system every `update_every` steps. A task
    that has converged has a small, noisy gradient and still counts in full. No
    evidence in recommenders was found (vision, QM9 and reinforcement learning only).
    """

    def __init__(
        self,
        normalize: bool = True,
        max_norm: float | None = None,
        update_every: int = 1,
        at: At = "representation",
        **kwargs: Any,
    ) -> None:
        super().__init__(at, **kwargs)
        valid = max_norm is None or (isinstance(max_norm, int | float) and max_norm > 0)
        require(valid, "`max_norm` of NashMTL must be a number above 0, or None.", max_norm=max_norm)
        require_positive_int(update_every=update_every)
        self.normalize = normalize
        self.max_norm = max_norm
        self.update_every = update_every

    def build_state(self) -> None:
        """Create the weights that hold between solutions, and the counter of steps."""
        if self.update_every > 1:
            self._held = self.add_state("held", [len(self.task_names)], 1.0)
            self._steps = self.add_state("steps", [])

    @property
    def keeps_state(self) -> bool:
        """Whether weights hold for several steps."""
        return self.update_every > 1

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the bargaining weights."""
        if self.update_every == 1:
            weights = fair_weights(gramian, observed, 1.0, self.normalize)
        else:
            weights = self._hold(gramian, observed)
        return weights if self.max_norm is None else shorten(weights, gramian, observed, self.max_norm)

    def _hold(self, gramian: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        held = tf.convert_to_tensor(self._held)

        def solve() -> tf.Tensor:
            return tf.where(observed, fair_weights(gramian, observed, 1.0, self.normalize), held)

        weights = tf.cond(tf.equal(self._steps, 0.0), solve, lambda: held)
        self._held.assign(weights)
        self._steps.assign(tf.math.floormod(self._steps + 1.0, float(self.update_every)))
        return weights

    def get_config(self) -> dict[str, Any]:
        arguments = {"normalize": self.normalize, "max_norm": self.max_norm, "update_every": self.update_every}
        return {**super().get_config(), **arguments}


def shorten(weights: tf.Tensor, gramian: tf.Tensor, observed: tf.Tensor, max_norm: float) -> tf.Tensor:
    """Return the weights [K] times a factor of at most 1 that keeps |sum_i w_i g_i| within `max_norm`."""
    chosen = tf.where(observed, tf.cast(weights, tf.float64), 0.0)
    square = tf.reduce_sum(chosen * tf.linalg.matvec(tf.cast(gramian, tf.float64), chosen))
    length = tf.sqrt(tf.where(tf.math.is_finite(square), tf.maximum(square, 0.0), 0.0))
    return weights * tf.cast(max_norm / tf.maximum(length, max_norm), tf.float32)
