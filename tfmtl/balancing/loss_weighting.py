"""Balancers that read the tasks' losses alone."""

from __future__ import annotations

import abc
from typing import Any

from tfmtl._keras import tf
from tfmtl._replicas import mean_over_replicas
from tfmtl.balancing.balancer import Balancer


class LossWeighting(Balancer):
    """Weights each task's loss by a number that depends on the losses of the batch and on state.

    The objective has the value F and the gradient sum_i w_i grad L_i, with (F, w) from `weigh`; the weights themselves
    are not differentiated, and the log shows them. A task without a label in the batch has weight 0. Under a
    distribution strategy F and w are those of the mean losses over the replicas.

    Subclasses implement `weigh`; those with state create it by `add_state` in `build_state`.
    """

    def _build_log(self) -> None:
        self.last_weights = self.add_state("last_weights", [len(self.task_names)], self._first_weight())

    def _first_weight(self) -> float:
        return 1.0 / len(self.task_names)

    @abc.abstractmethod
    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the value of the objective and the weights [K] of the losses' gradients.

        Args:
            losses: mean loss of each task [K], 0 for unobserved ones; not differentiated.
            observed: bool [K]; unobserved tasks must not matter, the weights returned for them are ignored.
            training: whether state may change.
        """

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the objective; its gradient with respect to the losses is the vector of weights."""
        observed = tf.ones_like(losses, tf.bool) if observed is None else observed
        losses = tf.where(observed, losses, 0.0)
        constant = tf.stop_gradient(losses)
        value, weights = self.weigh(mean_over_replicas(constant), observed, training)
        weights = tf.where(observed, weights, 0.0)
        if training:
            self.last_weights.assign(weights)
        change = tf.tensordot(tf.stop_gradient(weights), losses - constant, axes=1)  # 0, with a gradient
        return tf.stop_gradient(value) + change

    def current_weights(self) -> tf.Tensor:
        """Return the weights of the last training step."""
        return tf.convert_to_tensor(self.last_weights)
