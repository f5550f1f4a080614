"""The teacher of a distillation: a trained model that only predicts and is never trained, tracked or saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfmtl._checks import require, require_known
from tfmtl._keras import keras, tf, traced
from tfmtl.data.frames import rows_of_pass
from tfmtl.layers import MultiTaskLayer
from tfmtl.layers.marks import marking
from tfmtl.models import MultiTaskModel
from tfmtl.models.graph import unwrapped
from tfmtl.types import Features

_SCALE = ("duration", "edges", "knots", "levels", "offset", "quantiles", "scale", "transform")
"""The arguments of tasks that decide the scale of an output."""


class TaughtBatch(NamedTuple):
    """A `Batch` with the teacher's outputs for its rows.

    Attributes:
        features, labels, weights, ids: as in `Batch`.
        taught: the teacher's network outputs by task.
    """

    features: dict[str, tf.Tensor]
    labels: dict[str, tf.Tensor]
    weights: dict[str, tf.Tensor]
    ids: dict[str, tf.Tensor]
    taught: dict[str, Any]


class Teacher:
    """The outputs of a trained model's network, in inference mode and without gradients.

    It is no Keras object, so that the teacher's variables are neither in the student's checkpoints nor among the
    variables that the optimiser updates.

    Args:
        model: the trained model.
        representations: whether to return the trunk's output for each task, too.
    """

    def __init__(self, model: MultiTaskModel, representations: bool = False) -> None:
        self.model = model
        self.network = with_representations(model.network) if representations else model.network

    def check(self, student: MultiTaskModel) -> None:
        """Raise `ValueError` unless the teacher has the student's tasks and encodes features as the student does."""
        names = [task.name for task in student.tasks]
        own_tasks = {task.name: task for task in self.model.tasks}
        require_known(names, own_tasks, "task", "the student; the teacher must have all of its tasks")
        for name in names:
            taught, own = self.model.network.output[name], student.network.output[name]
            same = isinstance(taught, Mapping) == isinstance(own, Mapping)
            require(
                same and (isinstance(own, Mapping) or taught.shape == own.shape),
                f"The outputs of task {name!r} differ between teacher and student.",
                teacher=taught,
                student=own,
            )
        for task in student.tasks:
            left, right = own_tasks[task.name].get_config(), task.get_config()
            differ = [name for name in _SCALE if left.get(name) != right.get(name)]
            rule = f"Teacher and student measure task {task.name!r} on different scales; give both the same arguments."
            require(not differ, rule, arguments=differ)
        require(
            self.model.preprocessor.encodes_like(student.preprocessor),
            "Teacher and student must encode features alike; build both models with one preprocessor.",
        )

    def outputs(self, features: Features, tasks: list[str]) -> dict[str, Any]:
        """Return the outputs of `tasks`, and their representations if requested, as float32 constants.

        Args:
            features: encoded [B, ...].
            tasks: names.
        """
        with marking():  # keeps the teacher's marks apart from those of the student
            outputs = self.network({name: features[name] for name in self.network.input}, training=False)
        wanted = [key for name in tasks for key in (name, representation(name)) if key in outputs]
        return {key: as_float32(outputs[key], tf.stop_gradient) for key in wanted}

    def outputs_of_table(self, features: Features, tasks: list[str]) -> dict[str, Any]:
        """Return the outputs of `tasks` for whole encoded columns [N, ...].

        Cost: one forward pass over the table; the outputs stay in memory, 4 bytes per number.
        """
        ask = traced(lambda part: self.outputs(part, tasks), reduce_retracing=True)
        rows, step = int(next(iter(features.values())).shape[0]), rows_of_pass(features)
        parts = [
            ask({name: column[start : start + step] for name, column in features.items()})
            for start in range(0, rows, step)
        ]
        return tf.nest.map_structure(lambda *pieces: tf.concat(pieces, axis=0), *parts)


def representation(task: str) -> str:
    """Return the key of the trunk's output for a task among the outputs of `with_representations`."""
    return f"{task}/representation"


def with_representations(network: keras.Model) -> keras.Model:
    """Return the same network with the trunk's outputs [B, units] of each task among its own.

    Raises:
        ValueError: if the network has no trunk.
    """
    layers = [layer for layer in network.layers if isinstance(unwrapped(layer), MultiTaskLayer)]
    require(bool(layers), "`representation_weight` needs a trunk in both networks, with tasks in common.")
    found = {representation(task): tensor for layer in layers for task, tensor in layer.output.items()}
    return keras.Model(network.input, {**network.output, **found}, name=network.name)


def as_float32(outputs: Any, then: Any = tf.identity) -> Any:
    """Cast a task's output, a tensor or a mapping of them, to float32 and apply `then`."""
    return tf.nest.map_structure(lambda output: then(tf.cast(output, tf.float32)), outputs)
