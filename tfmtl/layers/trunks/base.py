"""The base of every trunk: the contract between an architecture and the rest of the library."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tfmtl._checks import require, require_several
from tfmtl._keras import keras, tf
from tfmtl.layers.marks import GatedRepresentation, active_marks
from tfmtl.types import Column


class FeatureEncodings(Protocol):
    """The features of a network under construction, as symbolic tensors.

    A trunk or an interaction receives it in `connect`, to read more than the encoded pair.
    """

    def encode(self, names: Sequence[str] = (), tables: str = "") -> Any:
        """Return the concatenated encodings of some features, [B, d].

        Args:
            names: features, or none for all features of the pair in the order of its encoding.
            tables: name of a separate set of embedding tables, such as those of one task; "" for the shared tables.
        """

    def embed(self, name: str) -> tuple[Any, Any]:
        """Return a categorical feature's embeddings [B, length, width] or [B, width] and its indices."""

    def embed_target(self, history: str) -> Any:
        """Return the embedding [B, width] of the candidate feature that shares its ids with the list `history`."""

    def index_target(self, history: str) -> tuple[Any, Any]:
        """Return the indices [B] of the candidate feature that shares its ids with `history`, and those of the list.

        The list's indices are [B, length], 0 in padding. Noise that training adds to indices is not in either.
        """

    def indices(self, name: str) -> tuple[Any, Any]:
        """Return the indices of a categorical feature [B] as the network reads them, and those of the row.

        They differ in training, where the context of some rows is missing.
        """


class MultiTaskLayer(keras.layers.Layer, abc.ABC):
    """Base of trunks: maps one shared input to one representation per task.

    Derive from it to add an architecture. Implement `call`, which marks the shared tensor with `mark_shared`, and
    `shared_variables`; the model, the balancers, pruning, the tuner and the conformance tests need nothing else. Create
    layers that depend on the tasks or on the shape of the input in `build_layers`.

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
        require_several(task_names=task_names)
        names = () if task_names is None else tuple(task_names)
        distinct = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
        require(
            distinct and (bool(names) or task_names is None),
            "`task_names` must be one or more distinct, non-empty names.",
            task_names=task_names,
        )
        self.task_names = names

    def for_tasks(self, names: Sequence[str]) -> MultiTaskLayer:
        """Return this trunk if it names its tasks, otherwise an unbuilt copy for the tasks `names`.

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
        except TypeError as error:  # Keras hides the constructor's message in a TypeError with the config
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
        """Create the layers and weights that depend on the tasks or on the input's shape; called once, by `build`."""

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
        """Return those of the inputs of `call` that receive a gradient from a task's loss; by default all.

        Override it if some inputs are trained by some tasks only, such as the embedding tables of one task.
        """
        return inputs

    def gate_weights(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Return the weights of the gates for inspection, [B, readers, experts] by the name of the gates' level.

        Readers are the tasks in order; a reader that serves all tasks at the next level may follow. Empty for trunks
        without gates.
        """
        return {}

    @property
    @abc.abstractmethod
    def shared_variables(self) -> list[tf.Variable]:
        """Trainable variables with gradients from more than one task's loss; gradient balancers combine these."""

    def mark_shared(self, tensor: tf.Tensor) -> tf.Tensor:
        """Mark the representation that the tasks share, and return it.

        Call it in `call` on the last tensor with gradients from more than one task's loss, such as the experts'
        outputs; gradient balancers compare the tasks there.
        """
        marks = active_marks()
        if marks is not None:
            marks.trunk.append(tensor)
        return tensor

    def mark_gated(self, outputs: Mapping[str, tf.Tensor], gates: tf.Tensor | None = None) -> None:
        """Mark each task's output as a gated sum of the tensor given to `mark_shared`; see `GatedRepresentation`.

        Call it in `call` if that is true of the outputs: gradient balancers then compare the tasks at much lower cost.

        Args:
            outputs: [B, units] by task name.
            gates: [B, tasks, experts] in the order of `outputs`, or None if the outputs are copies of the shared
                representation.
        """
        marks = active_marks()
        if marks is not None:
            marks.gated.append(GatedRepresentation(outputs, gates))

    def by_task(self, representations: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the slices of a tensor [B, tasks, units] by task name."""
        parts = tf.unstack(representations, num=len(self.task_names), axis=1)
        return dict(zip(self.task_names, parts, strict=True))

    def with_expert_dropout(self, rate: float) -> MultiTaskLayer:
        """Return an unbuilt copy of this trunk that drops experts at a rate.

        Raises:
            ValueError: if the trunk has no argument `expert_dropout`.
        """
        config = self.get_config()
        kind = type(self).__name__
        require("expert_dropout" in config, f"A {kind} has no `expert_dropout`; take a trunk such as MMoE, or set 0.")
        return type(self).from_config({**config, "expert_dropout": rate})

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per output column; see `tfmtl.types.HasColumnSources`."""
        return own

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [v for v in self.trainable_weights if "kernel" in v.name]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Return constructor arguments chosen by `hp`, a `keras_tuner.HyperParameters`."""
        return {}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "task_names": list(self.task_names) or None}
