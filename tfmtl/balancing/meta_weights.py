"""The base of balancers that learn the tasks' weights from gradients on a meta split."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require, require_fraction
from tfmtl._keras import tf
from tfmtl.balancing.by_task import observed_softmax, shares
from tfmtl.balancing.excess_mtl import raised_weights
from tfmtl.balancing.loss_weighting import LossWeighting


class MetaGramian(NamedTuple):
    """Inner products of the tasks' gradients g on a training batch and v on a batch of the meta split.

    Attributes:
        training: g_i . g_j [K, K].
        cross: g_i . v_j [K, K].
        meta: v_i . v_j [K, K].
    """

    training: tf.Tensor
    cross: tf.Tensor
    meta: tf.Tensor


class MetaWeights(LossWeighting):
    """Weights that follow the inner products of training gradients with gradients on rows of a meta split.

    objective = sum_i w_i L_i, w_i = n ((1 - m) p_i + m / n) with p = softmax(x) over the n observed tasks, so that
    equal weights are those of the plain sum. Every n-th step x_i = x_i + h a_i with a from `advantages`. The meta split
    is a third one, neither that of training nor that which selects models; `fit` gets it by `training.MetaGradients`.

    Args:
        learning_rate: h, above 0.
        minimum: m in [0, 1); no observed task has a weight below m, so that its own layers learn.

    Subclasses implement `advantages`.
    """

    def __init__(self, learning_rate: float = 0.1, minimum: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        valid = isinstance(learning_rate, int | float) and np.isfinite(learning_rate) and learning_rate > 0
        require(valid, "`learning_rate` must be a number above 0.", learning_rate=learning_rate)
        require_fraction(minimum=minimum)
        self.learning_rate, self.minimum = float(learning_rate), float(minimum)

    def build_state(self) -> None:
        """Create x."""
        self.logits = self.add_state("logits", [len(self.task_names)])

    def _first_weight(self) -> float:
        return 1.0

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the weighted sum and the weights."""
        count = tf.reduce_sum(tf.cast(observed, tf.float32))
        learned = observed_softmax(tf.convert_to_tensor(self.logits), observed)
        equal = shares(tf.ones_like(losses), observed)
        weights = count * ((1 - self.minimum) * learned + self.minimum * equal)
        return tf.reduce_sum(weights * losses), weights

    @abc.abstractmethod
    def advantages(self, gramian: MetaGramian, shares: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return a [K], by which the logarithms of the weights rise.

        Args:
            gramian: the inner products, 0 for unobserved tasks.
            shares: p [K], 0 for unobserved tasks.
            observed: bool [K], whether the task has a label in both batches; the others are ignored.
        """

    def learn(self, gramian: tf.Tensor, observed: tf.Tensor) -> None:
        """Update the weights, unless an inner product of observed tasks is not finite.

        Args:
            gramian: inner products of the gradients on the training batch, then of those on the meta batch [2K, 2K].
            observed: bool [K], whether the task has a label in both batches.
        """
        twice = tf.tile(observed, [2])
        gramian = tf.where(twice[:, tf.newaxis] & twice[tf.newaxis, :], gramian, 0.0)
        finite = tf.reduce_all(tf.math.is_finite(gramian))
        (training, cross), (_, meta) = (tf.split(rows, 2, axis=1) for rows in tf.split(gramian, 2))
        logits = tf.convert_to_tensor(self.logits)
        parts = MetaGramian(training, cross, meta)
        risen = self.learning_rate * self.advantages(parts, observed_softmax(logits, observed), observed)
        _, raised = raised_weights(logits, tf.where(observed, risen, 0.0), observed)
        self.logits.assign(tf.where(finite, raised, logits))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "learning_rate": self.learning_rate, "minimum": self.minimum}
