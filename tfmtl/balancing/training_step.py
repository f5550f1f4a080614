"""The record of one training step that balancers and monitors read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tfmtl._keras import keras, tf


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """One training step after its forward pass, K tasks in the model's order.

    Attributes:
        tape: recorded the forward pass; persistent if the balancer has `persistent_tape`.
        losses: mean loss of each task, scalars, times `scale`, divided by the number of replicas.
        observed: bool [K], whether the task has a label in the batch (in any replica's).
        objective: scalar to minimise, the balancer's objective and the penalties, likewise scaled.
        penalty: scalar, the penalties alone, likewise scaled.
        outputs: by task, the tensors of the network that its loss reads.
        representation: the last tensors that all tasks share [B, ...].
        gated: the tasks' gated sums of the representation, (outputs by task, gates), if the trunk marks them and all
            tasks read the trunk, else None; comparing the tasks is then much cheaper.
        variables: the model's trainable variables.
        shared: those of them that more than one task's loss reaches.
        network: the network; gradients can be taken at its layers by name.
        scale: the loss scale of mixed precision, else 1.
        losses_now: returns the tasks' losses [K] of the batch under the weights of the moment, in inference mode, not
            scaled; the losses of the replica.
    """

    tape: tf.GradientTape
    losses: Sequence[tf.Tensor]
    observed: tf.Tensor
    objective: tf.Tensor
    penalty: tf.Tensor
    outputs: Sequence[Sequence[tf.Tensor]]
    representation: Sequence[tf.Tensor]
    gated: tuple[Sequence[tf.Tensor], tf.Tensor | None] | None
    variables: Sequence[tf.Variable]
    shared: Sequence[tf.Variable]
    network: keras.Model
    scale: tf.Tensor
    losses_now: Callable[[], tf.Tensor]

    @property
    def trains_shared(self) -> bool:
        """Whether there is anything to balance: tasks share no variables, or not all of these are frozen."""
        trained = {id(variable) for variable in self.variables}
        return not self.shared or any(id(variable) in trained for variable in self.shared)

    def output_gradients(self) -> list[list[tf.Tensor]]:
        """Return by task the gradient of its loss with respect to `outputs`, zero where it does not read one."""
        zero = tf.UnconnectedGradients.ZERO
        return [
            self.tape.gradient(loss, list(outputs), unconnected_gradients=zero)
            for loss, outputs in zip(self.losses, self.outputs, strict=True)
        ]
