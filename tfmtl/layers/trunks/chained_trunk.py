"""The base of trunks in which a task reads the representations of its parent tasks."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_known, require_type
from tfmtl._keras import keras, tf
from tfmtl._label_graph import LabelGraph
from tfmtl._trusted import deserialize
from tfmtl.layers.marks import marking, without_gated
from tfmtl.layers.reach import readers_of
from tfmtl.layers.trunks.base import FeatureEncodings, MultiTaskLayer


class ChainedTrunk(MultiTaskLayer, abc.ABC):
    """Base of trunks around an inner trunk, in which a task reads the representations of its parent tasks.

    z_k = relate(q_k, z_p for the parents p of k) with q_k of the inner trunk; z_k = q_k for a task without parents.
    Subclasses create the layers of a task in `build_relation` and use them in `relate`.

    Args:
        trunk: the inner trunk, with the same tasks.
        after: parent or parents by task, as in `tfmtl.data.LabelGraph`.

    Raises:
        ValueError: if `after` is empty, holds a task that the inner trunk lacks, or makes a task its own ancestor.
    """

    def __init__(self, trunk: MultiTaskLayer, after: Mapping[str, str | Sequence[str]], **kwargs: Any) -> None:
        require_type(trunk, MultiTaskLayer, "trunk", "Pass an instance such as MMoE().")
        super().__init__(trunk.task_names or None, **kwargs)
        require(bool(after), "`after` must map at least one task to its parents.", after=after)
        self._graph = LabelGraph({**dict.fromkeys(trunk.task_names, ()), **after})
        if trunk.task_names:
            require_known(self._graph.order, trunk.task_names, "task", "`after` (the tasks of the inner trunk)")
        self.trunk = trunk
        self.after = dict(after)

    @abc.abstractmethod
    def build_relation(self, task: str, parents: Sequence[str], position: int, width: int) -> None:
        """Create the layers of a task with parents.

        Args:
            task: the task.
            parents: its parents.
            position: position of the task, from 0; each task needs its own initial values.
            width: width of q_k.
        """

    @abc.abstractmethod
    def relate(self, task: str, own: tf.Tensor, parents: Mapping[str, tf.Tensor], training: bool | None) -> tf.Tensor:
        """Return z_k [B, ...] of a task from its own q_k and the z_p of its parents."""

    def build_layers(self, input_shape: Any) -> None:
        """Create the relations."""
        with marking():  # discards the marks of this pass, which only computes shapes
            shapes = self.trunk.compute_output_shape(input_shape)
        for position, name in enumerate(self.task_names):
            if self._graph.parents_of(name):
                self.build_relation(name, self._graph.parents_of(name), position, int(shapes[name][-1]))

    def connect(self, pair: Any, features: FeatureEncodings) -> dict[str, Any]:
        """Add this trunk to a network, on the inputs of the inner trunk."""
        self.trunk.connect(pair, features)
        outputs: dict[str, Any] = self(self.trunk.get_input_at(-1))
        return outputs

    def reached_inputs(self, task: str, inputs: Any) -> Any:
        """Return the inputs that a task's loss reaches in the inner trunk, through the task and its ancestors."""
        lineage = [*self._graph.ancestors_of(task), task]
        found = [self.trunk.reached_inputs(name, inputs) for name in lineage]
        return inputs if any(each is inputs for each in found) else found

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        self._specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), inputs)
        with without_gated():
            own = self.trunk(inputs, training=training)
        outputs: dict[str, tf.Tensor] = {}
        for name in self._graph.order:
            parents = {parent: outputs[parent] for parent in self._graph.parents_of(name)}
            outputs[name] = self.relate(name, own[name], parents, training) if parents else own[name]
        return {name: outputs[name] for name in self.task_names}

    def gate_weights(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Return the weights of the inner trunk's gates."""
        return self.trunk.gate_weights(inputs)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """Variables with gradients from more than one task's loss, also from a child task; call the trunk first.

        A variable that holds parts of several tasks, such as the kernel of all gates, counts as shared.
        """
        readers = readers_of(self, self._specs, self.trainable_weights)
        return [v for v, names in zip(self.trainable_weights, readers, strict=True) if len(names) > 1]

    def with_expert_dropout(self, rate: float) -> ChainedTrunk:
        """Return an unbuilt copy with an inner trunk that drops experts at a rate."""
        return self._around(self.trunk.with_expert_dropout(rate))

    def for_tasks(self, names: Sequence[str]) -> ChainedTrunk:
        """Return this trunk if it names its tasks, otherwise an unbuilt copy with an inner trunk for `names`."""
        return self if self.task_names else self._around(self.trunk.for_tasks(names))

    def _around(self, trunk: MultiTaskLayer) -> ChainedTrunk:
        """Return an unbuilt copy with another inner trunk."""
        return type(self).from_config({**self.get_config(), "trunk": keras.saving.serialize_keras_object(trunk)})

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["task_names"]  # the inner trunk holds them
        after = {name: given if isinstance(given, str) else list(given) for name, given in self.after.items()}
        return {**config, "trunk": keras.saving.serialize_keras_object(self.trunk), "after": after}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ChainedTrunk:
        """Rebuild the trunk and its inner trunk from `get_config`."""
        trunk = deserialize(keras.saving.deserialize_keras_object, config["trunk"], "ChainedTrunk")
        return cls(**{**config, "trunk": trunk})
