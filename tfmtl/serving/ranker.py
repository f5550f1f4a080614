"""Ranker: the served computations of a model without retrieval, from raw features to values in label units."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfmtl._keras import tf
from tfmtl._names import serving_names
from tfmtl.models import MultiTaskModel
from tfmtl.serving.signature import Answer
from tfmtl.types import Features

if TYPE_CHECKING:
    from tfmtl.serving.explainer import Explainer

ROLES = ("query", "candidate", "context")


class Ranker:
    """The computations that are served for any model; `Recommender` adds those of a model with retrieval.

    Args:
        model: the trained model.
        explainer: explains the values of its ranking tasks; None if the version has no explanations.

    Attributes:
        model: the trained model.
        explainer: as given.
        schema: its features and labels.
        default: the name of the signature that also is `serving_default`.
    """

    default = "rank"

    def __init__(self, model: MultiTaskModel, explainer: Explainer | None = None) -> None:
        self.model, self.explainer = model, explainer
        self.schema = model.schema
        # Traced once and called by several signatures, which keeps the saved graph small.
        self._encoders = {role: self._encoder(role) for role in ROLES}
        encoded = {name: feature.encoded_spec for name, feature in self.schema.features.items()}
        self._values = traced_once(self._predict, unnamed(encoded))

    def specs(self, *roles: str) -> dict[str, tf.TensorSpec]:
        """Return the specifications of the raw features of some roles, by feature name.

        Args:
            *roles: of `"query"`, `"candidate"` and `"context"`.
        """
        return {feature.name: feature.raw_spec for role in roles for feature in getattr(self.schema, role)}

    def rank(self, /, **features: tf.Tensor) -> Answer:
        """Return the served value [B] or [B, classes] of each task for given pairs."""
        return self._values(self._pairs(features))

    def explain(self, /, **features: tf.Tensor) -> Answer:
        """Return the attributions of the ranking tasks for given pairs, with their bases and gaps."""
        if self.explainer is None:
            raise ValueError("The explanations were not exported; give `explain` to the export.")
        return self.explainer.explain(self._pairs(features))

    def encode(self, role: str, features: Features) -> Answer:
        """Return the encoded features of one role among raw features.

        Args:
            role: `"query"`, `"candidate"` or `"context"`.
            features: raw tensors [B, ...] by name; those of other roles are ignored.
        """
        return dict(self._encoders[role]({f.name: features[f.name] for f in getattr(self.schema, role)}))

    @property
    def input_names(self) -> dict[str, str]:
        """The serving inputs of the features with a name that TensorFlow refuses, by feature name."""
        names = serving_names(self.schema.features, self.taken)
        return {name: other for name, other in names.items() if name != other}

    @property
    def taken(self) -> Collection[str]:
        """The serving inputs that are no features."""
        return ()

    @property
    def resources(self) -> list[Any]:
        """The lookup tables and modules that the signatures use."""
        read = {id(t) for encode in self._encoders.values() for t in encode.captured_inputs}
        return [table for table in self.model.preprocessor.tables.values() if id(table.resource_handle) in read]

    @property
    def namespaces(self) -> Sequence[str]:
        """The namespaces of operations, such as `Scann`, that a server needs beyond TensorFlow's own."""
        return ()

    @property
    def functions(self) -> dict[str, Any]:
        """The traced functions that are saved beside the signatures, by attribute of the SavedModel."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return the facts that a client needs in addition to the signatures, as plain values."""
        names = {"input_names": self.input_names} if self.input_names else {}
        return names if self.explainer is None else {**names, "explain": self.explainer.describe()}

    def _pairs(self, features: Features) -> Answer:
        return {n: v for role in ROLES for n, v in self.encode(role, features).items()}

    def _predict(self, encoded: Features) -> Answer:
        outputs = self.model(encoded, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in self.model.served(outputs, encoded).items()}

    def _encoder(self, role: str) -> Any:
        return traced_once(lambda raw: self.model.preprocessor(raw), unnamed(self.specs(role)))


def unnamed(specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
    """Return specifications without names, since TensorFlow logs names that it refuses."""
    return {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in specs.items()}


def traced_once(function: Callable[..., Any], *signature: Any) -> Any:
    """Return the concrete function of a function for its only signature.

    A `tf.function` would be traced again while a SavedModel is written, and TensorFlow warns of five such calls in a
    process, as of an online learner that exports again and again.
    """
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
