"""Ranker: the served computations of a model without retrieval, from raw features to values in label units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.models import MultiTaskModel
from tfmtl.serving.signature import Answer
from tfmtl.types import Features

ROLES = ("query", "candidate", "context")


class Ranker:
    """The computations that are served for any model; `Recommender` adds those of a model with retrieval.

    Args:
        model: the trained model.

    Attributes:
        model: the trained model.
        schema: its features and labels.
        default: the name of the signature that also is `serving_default`.
    """

    default = "rank"

    def __init__(self, model: MultiTaskModel) -> None:
        self.model = model
        self.schema = model.schema
        # Traced once and called by several signatures, which keeps the saved graph small.
        self._encoders = {role: self._encoder(role) for role in ROLES}
        encoded = {name: feature.encoded_spec for name, feature in self.schema.features.items()}
        self._values = traced_once(self._predict, encoded)

    def specs(self, *roles: str) -> dict[str, tf.TensorSpec]:
        """Return the specifications of the raw features of some roles, by feature name.

        Args:
            *roles: of `"query"`, `"candidate"` and `"context"`.
        """
        return {feature.name: feature.raw_spec for role in roles for feature in getattr(self.schema, role)}

    def rank(self, /, **features: tf.Tensor) -> Answer:
        """Return the served value [B] or [B, classes] of each task for given pairs."""
        return self._values({n: v for role in ROLES for n, v in self.encode(role, features).items()})

    def encode(self, role: str, features: Features) -> Answer:
        """Return the encoded features of one role among raw features.

        Args:
            role: `"query"`, `"candidate"` or `"context"`.
            features: raw tensors [B, ...] by name; those of other roles are ignored.
        """
        return dict(self._encoders[role]({f.name: features[f.name] for f in getattr(self.schema, role)}))

    @property
    def resources(self) -> list[Any]:
        """The lookup tables and modules that the signatures use."""
        read = {id(t) for encode in self._encoders.values() for t in encode.get_concrete_function().captured_inputs}
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
        return {}

    def _predict(self, encoded: Features) -> Answer:
        outputs = self.model(encoded, training=False)
        return {task.name: tf.cast(task.predict(outputs[task.name]), tf.float32) for task in self.model.tasks}

    def _encoder(self, role: str) -> Any:
        return traced_once(lambda raw: self.model.preprocessor(raw), self.specs(role))


def traced_once(function: Callable[..., Any], *signature: Any) -> Any:
    """Return the TensorFlow function of a function, traced for its only signature.

    Traced by its first call, TensorFlow would warn of retracing when several models are served.
    """
    traced = tf.function(function, input_signature=signature, autograph=False)
    traced.get_concrete_function()
    return traced
