"""The base of every architecture: what tasks share and what they do not."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.layers.marks import GatedRepresentation, active_marks
from tfmtl.types import Column


class FeatureEncodings(Protocol):
    """What a network under construction offers to parts that read more than the encoded pair, as symbolic tensors."""

    def encode(self, names: Sequence[str] = (), tables: str = "") -> Any:
        """Return the encodings of features joined, [B, d].

        Args:
            names: features, or none for all features of the pair in the order of its encoding.
            tables: name of a set of embedding tables of its own, such as a task's; "" for those that all share.
        """

    def embed(self, name: str) -> tuple[Any, Any]:
        """Return a categorical feature's embeddings [B, length, width] or [B, width] and its indices."""

    def embed_target(self, history: str) -> Any:
        """Return the embedding [B, width] of the candidate's feature whose ids the list `history` holds."""


class MultiTaskLayer(keras.layers.Layer, abc.ABC):
    """A trunk: one shared input to one representation a task.

    Subclasses implement `call`, which marks what the tasks share with `mark_shared`, and `shared_variables`; the rest
    of the library (model, balancers, pruning, tuner, conformance tests) needs nothing else. Layers whose number or
    shape depends on the tasks or on the input are created in `build_layers`.

    Args:
        task_names: names of the tasks, in order; None for a trunk that `build_network` gives the names of its tasks.

    Call arguments:
        inputs: float tensor [B, d].

    Returns:
        {task name: float tensor [B, units]}.
    """

    task_names: tuple[str, ...]
    """Names of the tasks in order; empty for a trunk without names."""

    def __init__(self, task_names: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        names = () if task_names is None else tuple(task_names)
        distinct = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
        require(
            distinct and (bool(names) or task_names is None),
            "`task_names` must be one or more distinct, non-empty names.",
            task_names=task_names,
        )
        self.task_names = names

    def for_tasks(self, names: Sequence[str]) -> MultiTaskLayer:
        """Return this trunk if it names its tasks, otherwise a copy, not built, that serves the tasks `names`.

        Example:
            >>> from tfmtl.layers import MMoE
            >>> MMoE(num_experts=4).for_tasks(["click", "buy"]).task_names
            ('click', 'buy')

        Raises:
            ValueError: if the trunk's arguments contradict the names.
        """
        if self.task_names:
            return self
        try:
            return type(self).from_config({**self.get_config(), "task_names": list(names)})
        except TypeError as error:  # Keras hides the constructor's own sentence in a TypeError with the whole config
            cause = error.__context__
            raise (cause if isinstance(cause, ValueError) else error) from None

    def build(self, input_shape: Any) -> None:
        """Create the layers and weights.

        Raises:
            ValueError: if the trunk has no task names.
        """
        rule = 'Pass task_names, such as MMoE(["click", "buy"]), or give the trunk to build_network.'
        require(bool(self.task_names), f"Trunk {self.name!r}, a {type(self).__name__}, names no tasks. {rule}")
        self.build_layers(input_shape)
        super().build(input_shape)

    def build_layers(self, input_shape: Any) -> None:
        """Create what depends on the tasks or on the shape of the input; called once, by `build`."""

    @abc.abstractmethod
    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Return the representation of each task."""

    def connect(self, pair: Any, features: FeatureEncodings) -> dict[str, Any]:
        """Add this trunk to a network under construction; override it to read more than the encoded pair.

        Args:
            pair: symbolic encoding of query, candidate and context [B, d].
            features: the network's features.

        Returns:
            The layer's symbolic outputs by task.
        """
        outputs: dict[str, Any] = self(pair)
        return outputs

    def reached_inputs(self, task: str, inputs: Any) -> Any:
        """Return those of the inputs of `call` that a task's loss reaches: all, unless a trunk stops gradients.

        Override it if some inputs are trained by some tasks alone, such as embedding tables of a task's own.
        """
        return inputs

    def gate_weights(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Return what the gates say, for inspection: weights [B, readers, experts] by the name of the gates' level.

        Readers are the tasks in order, after which may come a reader of the level above that serves all tasks. Empty
        for trunks without gates.
        """
        return {}

    @property
    @abc.abstractmethod
    def shared_variables(self) -> list[tf.Variable]:
        """Trainable variables that more than one task's loss reaches: what a gradient balancer mixes."""

    def mark_shared(self, tensor: tf.Tensor) -> tf.Tensor:
        """Mark the representation that the tasks share, and return it.

        Call it in `call` on the last tensor that the loss of more than one task reaches, such as the experts' outputs;
        gradient balancers compare the tasks there.
        """
        marks = active_marks()
        if marks is not None:
            marks.trunk.append(tensor)
        return tensor

    def mark_gated(self, outputs: Mapping[str, tf.Tensor], gates: tf.Tensor | None = None) -> None:
        """Mark each task's output as its gated sum of the tensor given to `mark_shared`; see `GatedRepresentation`.

        Call it in `call` where it holds: gradient balancers then compare the tasks at much lower cost.

        Args:
            outputs: [B, units] by task name.
            gates: [B, tasks, experts] in the order of `outputs`, or None if the outputs are copies of the shared
                representation.
        """
        marks = active_marks()
        if marks is not None:
            marks.gated.append(GatedRepresentation(outputs, gates))

    def with_expert_dropout(self, rate: float) -> MultiTaskLayer:
        """Return a copy of this trunk, not built, that leaves experts out at a rate.

        Raises:
            ValueError: if the trunk has no argument `expert_dropout`.
        """
        config = self.get_config()
        kind = type(self).__name__
        require("expert_dropout" in config, f"A {kind} has no `expert_dropout`; take a trunk such as MMoE, or set 0.")
        return type(self).from_config({**config, "expert_dropout": rate})

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return columns of this trunk's own; see `tfmtl.types.HasColumnSources`."""
        return own

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels; the model-optimization toolkit asks by this name."""
        return [v for v in self.trainable_weights if "kernel" in v.name]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Return constructor arguments chosen by `hp`, a `keras_tuner.HyperParameters`."""
        return {}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "task_names": list(self.task_names) or None}
