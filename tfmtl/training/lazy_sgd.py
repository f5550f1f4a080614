"""Gradient descent with a step that costs as much as the rows of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.training.touched_rows import TouchedRows


@register
class LazySGD(TouchedRows, keras.optimizers.SGD):
    """Gradient descent, with or without momentum, that updates only the embedding rows that a batch looks up.

    For a touched row: u <- momentum u - rate g, x <- x + u, or with `nesterov` x <- x + momentum u - rate g. Other rows
    and their velocities u stay as they are, where Keras' SGD moves and reads all of them, with momentum or without.

    Args:
        learning_rate, momentum, nesterov: as in `tf_keras.optimizers.SGD`.
        name: of the optimiser.
        **kwargs: `weight_decay`, clipping and more, see `TouchedRows`.

    Example:
        >>> table = tf.Variable(tf.ones([3, 1]))
        >>> LazySGD(0.5).apply_gradients([(tf.IndexedSlices(tf.ones([1, 1]), tf.constant([1])), table)]) and None
        >>> table.numpy()[:, 0].tolist()
        [1.0, 0.5, 1.0]

    Reference:
        Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013,
        http://proceedings.mlr.press/v28/sutskever13.pdf, equations 1 to 4.

    Cost: rows of the batch; without momentum no state.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        name: str = "LazySGD",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, nesterov=nesterov, name=name, **kwargs)

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the velocities, if there is momentum."""
        if self.momentum:
            super().build(var_list)
        elif not getattr(self, "_built", False):
            keras.optimizers.Optimizer.build(self, var_list)
            self._built = True

    def update_rows(self, gradient: tf.IndexedSlices, variable: Any) -> None:
        """Update the touched rows."""
        step, rows = self._scaled(gradient.values), gradient.indices
        if self.momentum:
            velocities = self.momentums[self.slot_of(variable)]
            velocity = self.momentum * tf.gather(velocities, rows) - step
            velocities.scatter_update(tf.IndexedSlices(velocity, rows))
            step = self._with_momentum(step, velocity)
        self.subtract(variable, rows, step)

    def update_dense(self, gradient: tf.Tensor, variable: Any) -> None:
        """Update a whole variable."""
        step = self._scaled(gradient)
        if self.momentum:
            velocity = self.momentums[self.slot_of(variable)]
            velocity.assign(self.momentum * velocity - step)
            step = self._with_momentum(step, velocity)
        variable.assign_sub(step)

    def _scaled(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.learning_rate, gradient.dtype) * gradient

    def _with_momentum(self, step: tf.Tensor, velocity: tf.Tensor) -> tf.Tensor:
        return step - self.momentum * velocity if self.nesterov else -velocity
