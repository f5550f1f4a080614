"""Gradients of equal length, corrected for how fast each task learns."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.step_gradients import At

_SMALLEST = 1e-6


@register
class GradNorm(GramianBalancer):
    """GradNorm, gradient normalization: learns weights that make gradients equally long, or longer for slow tasks.

    Use it for losses of very different scale, where it may save a search of fixed weights.

    G_i = w_i |g_i|; r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)); the weights descend sum_i |G_i - mean(G) r_i^alpha|
    with constant second terms, and are normalised to sum to the number of tasks.

    Args:
        alpha: at least 0; how much more weight a slow task gets, 0 for gradients of equal length.
        learning_rate: above 0; the step of the logarithm of the weights.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = GradNorm(alpha=0.0, learning_rate=0.1)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gramian = tf.constant([[9.0, 0.0], [0.0, 1.0]])
        >>> steps = [balancer.task_weights(gramian, losses=[1.0, 1.0]).numpy() for _ in range(40)]
        >>> [step.astype(float).round(2).tolist() for step in (steps[0], steps[1], steps[-1] * [3, 1])]
        [[1.0, 1.0], [0.9, 1.1], [1.61, 1.46]]

    Reference:
        Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks", ICML
        2018, https://arxiv.org/abs/1711.02257, algorithm 1. The optimiser of the weights is left open there. A step of
        fixed size on w_i overshoots where gradients differ much in length and w_i must become small, and its size
        depends on the losses' units; here the step is on log w_i, with lengths measured by their mean:
        log w_i <- log w_i - learning_rate G_i / mean(G) sign(G_i - mean(G) r_i^alpha). As in the algorithm the step of
        the network takes the weights from before. L_i(0) is the loss of the first batch in which the task is observed.
        Tasks without a label keep their weights; the weights of the others keep their sum, and the weights returned for
        them sums to their number.

    Cost: a few operations on K numbers per step. In recommenders we know it only as a baseline of other methods'
    papers.
    """

    reads_losses = True

    def __init__(
        self, alpha: float = 1.5, learning_rate: float = 0.025, at: At = "representation", **kwargs: Any
    ) -> None:
        super().__init__(at, **kwargs)
        require(alpha >= 0, "`alpha` must be a number of at least 0.", alpha=alpha)
        require(learning_rate > 0, "`learning_rate` must be a number above 0.", learning_rate=learning_rate)
        self.alpha = float(alpha)
        self.learning_rate = float(learning_rate)

    def build_state(self) -> None:
        """Create the weights and the first losses."""
        tasks = len(self.task_names)
        self._learned = self.add_state("learned_weights", [tasks], 1.0)
        self._first_losses = self.add_state("first_losses", [tasks])
        self._started = self.add_state("started", [tasks])

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weights, and learn those of the next step."""
        before = tf.convert_to_tensor(self._learned)
        lengths = tf.sqrt(tf.maximum(tf.linalg.diag_part(gramian), 0.0))
        # Mixed precision skips a step with gradients that are not finite; such a step must not change the state either.
        finite = tf.reduce_all(tf.math.is_finite(lengths)) & tf.reduce_all(tf.math.is_finite(losses))
        learns = observed & finite
        first = tf.where(learns & (self._started == 0), losses, self._first_losses)
        small = keras.backend.epsilon()  # for a loss of zero
        progress = (losses + small) / (first + small)
        after = next_weights(before, lengths, progress, learns, self.alpha, self.learning_rate)
        self._first_losses.assign(first)
        self._started.assign(tf.where(learns, 1.0, self._started))
        self._learned.assign(after)
        mask = tf.cast(observed, tf.float32)
        return before * mask * tf.math.divide_no_nan(tf.reduce_sum(mask), tf.reduce_sum(before * mask))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "learning_rate": self.learning_rate}


def next_weights(
    weights: tf.Tensor, lengths: tf.Tensor, progress: tf.Tensor, observed: tf.Tensor, alpha: float, learning_rate: float
) -> tf.Tensor:
    """Return the weights after one step [K]; those of unobserved tasks, and the sum of the others, stay.

    Args:
        weights: w [K].
        lengths: |g| [K].
        progress: L / L(0) [K].
        observed: bool [K].
        alpha, learning_rate: as in `GradNorm`.

    Example:
        >>> two, seen = tf.constant([1.0, 1.0]), tf.constant([True, True])
        >>> next_weights(two, tf.constant([3.0, 1.0]), two, seen, 0.0, 0.1).numpy().astype(float).round(4).tolist()
        [0.9003, 1.0997]
    """
    tasks = tf.reduce_sum(tf.cast(observed, tf.float32))

    def by_mean(values: tf.Tensor) -> tf.Tensor:
        kept = tf.where(observed, values, 0.0)
        return tf.math.divide_no_nan(kept * tasks, tf.reduce_sum(kept))

    sizes = by_mean(weights * lengths)
    step = learning_rate * sizes * tf.sign(sizes - by_mean(progress) ** alpha)
    least = tf.reduce_min(tf.where(observed, step, step.dtype.max))  # so that no weight grows before the division
    moved = tf.where(observed, tf.maximum(weights * tf.exp(least - step), _SMALLEST), 0.0)
    moved *= tf.math.divide_no_nan(tf.reduce_sum(tf.where(observed, weights, 0.0)), tf.reduce_sum(moved))
    return tf.where(observed, moved, weights)
