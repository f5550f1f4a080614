"""The outputs of ensemble members for labelled rows, and the loss of a combination of these outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data.source import as_source
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import LossInputs, Task


@dataclasses.dataclass(frozen=True)
class Block:
    """The arguments of one task's loss for a batch, with the outputs of all members.

    Attributes:
        task: the task of the first member, with its state.
        labels, weights, inputs: as in `Task.compute_loss`.
        outputs: the task's output of each member.
    """

    task: Task
    labels: tf.Tensor
    weights: tf.Tensor
    inputs: LossInputs
    outputs: Sequence[Any]


def blocks(models: Sequence[MultiTaskModel], table: Any, batch_size: int) -> dict[str, list[Block]]:
    """Run all members on a table and return the blocks by task.

    Args:
        models: members with equal tasks and encoding.
        table: table with features and labels.
        batch_size: rows per block; a retrieval loss compares the candidates of one block, as in training.

    Cost: one forward pass per member; the outputs stay in memory, 4 bytes per number.
    """
    first = models[0]
    found: dict[str, list[Block]] = {task.name: [] for task in first.tasks}
    for batch in as_source(table).batches(first.preprocessor, batch_size):
        members = [model.network(_inputs(model, batch.features), training=False) for model in models]
        for task in first.tasks:
            labels, weights, inputs = first.loss_arguments(task, batch, training=False)
            outputs = [tf.nest.map_structure(_float32, outputs[task.name]) for outputs in members]
            found[task.name].append(Block(task, labels, weights, inputs, outputs))
    return found


class Objective:
    """The mean loss of a task over blocks, as a function of the members' shares.

    Args:
        found: the blocks of one task, at least one.
    """

    def __init__(self, found: Iterable[Block]) -> None:
        self._blocks = list(found)
        task = self._blocks[0].task
        self._pool = task.pool
        self.members = len(self._blocks[0].outputs)
        self._measured = [self._one(block) for block in self._blocks]
        start = tf.fill([self.members], 1.0 / self.members)
        self._rows = [float(value_of_block(start)[1]) for value_of_block in self._measured]
        total = sum(self._rows)
        require(total > 0, f"No row has a label of task {task.name!r}, so its members cannot be weighted.")
        self._rows = [rows / total for rows in self._rows]

    def __call__(self, shares: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient [M] at shares [M] of at least 0."""
        point = tf.Variable(np.maximum(shares, 1e-7), dtype=tf.float32)  # the gradient of log 0 is infinite
        loss, gradient = 0.0, np.zeros(self.members)
        for share, measured in zip(self._rows, self._measured, strict=True):
            if share:
                with tf.GradientTape() as tape:
                    value = measured(point)[0]
                loss += share * float(value)
                gradient += share * tape.gradient(value, point).numpy()
        return loss, gradient

    def _one(self, block: Block) -> Any:
        def measure(shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            combined = self._pool.pool_structure(block.outputs, shares)
            return block.task.compute_loss(block.labels, combined, block.weights, block.inputs)

        return measure


def _inputs(model: MultiTaskModel, features: Any) -> dict[str, tf.Tensor]:
    return {name: features[name] for name in model.network.input}


def _float32(output: tf.Tensor) -> tf.Tensor:
    return tf.cast(output, tf.float32)
