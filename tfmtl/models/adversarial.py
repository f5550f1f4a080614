"""The further passes of a training step, from moved encodings on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfmtl._keras import keras, tf
from tfmtl._replicas import own_seed
from tfmtl.data import Batch
from tfmtl.layers.marks import Marks, repeated
from tfmtl.layers.noise.adversarial import AdversarialLoss, AdversarialTraining, TaskLosses
from tfmtl.layers.noise.free_adversarial import FreeAdversarial
from tfmtl.layers.noise.perturbations import Tensors
from tfmtl.models.graph import unwrapped
from tfmtl.tasks.task import total_weight

if TYPE_CHECKING:
    from tfmtl.models.multi_task import MultiTaskModel


def adversary_of(network: keras.Model) -> AdversarialTraining | None:
    """Return the adversarial training of a network; None if it has none, or an idle one."""
    layers = map(unwrapped, network.layers)
    return next((layer for layer in layers if isinstance(layer, AdversarialTraining) and not layer.idle), None)


def moved(encodings: Tensors, shifts: Tensors) -> list[tf.Tensor]:
    """Return encodings [B, d] plus shifts, in the types of the encodings."""
    return [z + tf.cast(shift, z.dtype) for z, shift in zip(encodings, shifts, strict=True)]


def shift_gradients(first: Marks, shifts: Tensors, value: Callable[[], tf.Tensor]) -> list[tf.Tensor]:
    """Return the gradients of a value by the shifts of the encodings; 0 where the value does not depend on one.

    Args:
        first: the marks of the first pass, from the encodings of which the passes differ by the shifts.
        shifts: float32 [B, d] by encoding.
        value: makes a pass and returns a scalar.
    """
    constant = [tf.stop_gradient(z) for z in first.encodings]
    with tf.GradientTape() as tape:
        tape.watch(list(shifts))
        with repeated(first, moved(constant, shifts)):
            found = value()
    return list(tape.gradient(found, list(shifts), unconnected_gradients=tf.UnconnectedGradients.ZERO))


class StepPasses:
    """The `FurtherPasses` of a training step of a model.

    Args:
        model: the model.
        data: the rows of the step.
        tape: records the step; persistent.
        marks: the marks of the first pass, to which those of a pass that trains are added.
        losses: the losses of the first pass.
        scale: the loss scale of mixed precision, else 1.
    """

    def __init__(
        self, model: MultiTaskModel, data: Batch, tape: tf.GradientTape, marks: Marks, losses: TaskLosses, scale: Any
    ) -> None:
        self._model, self._data, self._tape, self._marks, self._scale = model, data, tape, marks, scale
        self._objective = scale * model.objective_of(losses)
        self._outputs = {task.name: self._first_output(task.name) for task in model.trained_tasks}

    def _first_output(self, task: str) -> Any:
        """Return the network's output of a task in the first pass, the first of the tensors that its loss reads."""
        form = self._model.network.output[task]
        tensors = self._marks.outputs[task][: len(tf.nest.flatten(form))]
        return tf.nest.pack_sequence_as(form, [tf.stop_gradient(tf.cast(tensor, tf.float32)) for tensor in tensors])

    @property
    def encodings(self) -> Sequence[tf.Tensor]:
        """The encodings of the first pass."""
        return self._marks.encodings

    @property
    def seed(self) -> tf.Tensor:
        """The model's seed and the number of the step, int32 [2], another one on each replica."""
        return own_seed(tf.stack([self._model.seed, tf.cast(self._model.optimizer.iterations, tf.int32)]))

    def loss_gradients(self, shifts: Tensors | None = None) -> Tensors:
        """Return the gradients of the objective by the encodings, at shifts or in the first pass."""
        with self._tape.stop_recording():
            if shifts is not None:
                return shift_gradients(self._marks, shifts, self._objective_now)
            zero = tf.UnconnectedGradients.ZERO
            return self._tape.gradient(self._objective, list(self.encodings), unconnected_gradients=zero)

    def divergence_gradients(self, shifts: Tensors) -> Tensors:
        """Return the gradients of the sum of the tasks' divergences by the shifts."""
        with self._tape.stop_recording():
            return shift_gradients(self._marks, shifts, self._divergence_now)

    def losses(self, shifts: Tensors) -> TaskLosses:
        """Return the tasks' losses at encodings moved by constant shifts."""
        return self._recorded(self._losses_now, shifts)

    def divergences(self, shifts: Tensors) -> TaskLosses:
        """Return the tasks' divergences from the outputs of the first pass at encodings moved by constant shifts."""
        return self._recorded(self._divergences_now, shifts)

    def _recorded(self, losses_now: Callable[[], TaskLosses], shifts: Tensors) -> TaskLosses:
        with repeated(self._marks, moved(self.encodings, [tf.stop_gradient(shift) for shift in shifts])) as second:
            losses = losses_now()
        self._marks.extend(second)
        return losses

    def _losses_now(self) -> TaskLosses:
        return self._model.losses_of_step(self._data)

    def _objective_now(self) -> tf.Tensor:
        return self._scale * self._model.objective_of(self._losses_now())

    def _divergence_now(self) -> tf.Tensor:
        return self._scale * tf.add_n([loss for loss, _ in self._divergences_now().values()])

    def _divergences_now(self) -> TaskLosses:
        model, data = self._model, self._data
        outputs = model(data.features, training=True)
        found = {}
        for task in model.trained_tasks:
            output = tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.float32), outputs[task.name])
            labels, weights, inputs = model.row_arguments(task, data, training=True)
            weight = task.distillation_weight(labels, weights)
            loss = task.distillation_loss(output, self._outputs[task.name], weight, inputs, 1.0)
            found[task.name] = loss, total_weight(weight)
        return found


def with_adversarial_losses(adversary: AdversarialLoss, losses: TaskLosses, passes: StepPasses) -> TaskLosses:
    """Return the losses plus the weighted adversarial ones; a task without a label has the weight of the latter."""
    further = adversary.adversarial_losses(passes)
    return {
        name: (loss + adversary.weight * further[name][0], tf.where(weight > 0, weight, further[name][1]))
        if name in further
        else (loss, weight)
        for name, (loss, weight) in losses.items()
    }


def replayed(adversary: FreeAdversarial, update: Callable[[Tensors], tuple[Any, Tensors, Tensors]]) -> Any:
    """Make the updates of free adversarial training for one batch, and return the losses of the last one.

    Args:
        adversary: the method.
        update: makes one update at encodings moved by shifts, and returns its losses, the encodings and the gradients
            of the objective by them.
    """
    shifts: list[tf.Tensor] = []
    for _ in range(adversary.replays):
        losses, encodings, gradients = update(shifts)
        shifts = adversary.next_shifts(encodings, gradients, shifts)
    return losses
