"""Signature: one function of a SavedModel, and the same function on requests of `tf.Example` protos."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data.examples import to_examples
from tfmtl.serving.exact_numbers import write_exact
from tfmtl.serving.parsing import from_examples
from tfmtl.serving.request_shapes import checked
from tfmtl.types import Features

Answer = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Signature:
    """One function of a SavedModel, which clients call by its name.

    Attributes:
        function: takes the inputs by name and returns tensors [B, ...] by name.
        inputs: specifications of the inputs by name.
        examples: for each input that is no feature, values for the probe; they are repeated along dimension 0.
        names: the names by which clients send inputs that TensorFlow refuses by their own, such as `class`.
    """

    function: Callable[..., Answer]
    inputs: Mapping[str, tf.TensorSpec]
    examples: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def traced(self) -> Any:
        """The concrete function with exactly these inputs; several names of one signature share it.

        It refuses a request in which the number of rows or the shape of an input differs; see `checked`.
        """
        specs = self.named({n: tf.TensorSpec(spec.shape, spec.dtype) for n, spec in self.inputs.items()})

        def function(**sent: tf.Tensor) -> Answer:
            right = checked(sent, specs)
            return self.function(**{name: right[self.names.get(name, name)] for name in self.inputs})

        return tf.function(function, autograph=False).get_concrete_function(**specs)

    def named(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs by the names by which clients send them."""
        return {self.names.get(name, name): value for name, value in inputs.items()}

    def request(self, features: Features) -> dict[str, tf.Tensor]:
        """Return a request of the given features [B, ...], with the examples repeated to B rows.

        Raises:
            ValueError: if an input is neither a feature nor among the examples.
        """
        return self.named(self.values(features))

    def values(self, features: Features) -> dict[str, tf.Tensor]:
        """Return the values of a request by the names of features."""
        absent = sorted(set(self.inputs) - {*features, *self.examples})
        require(not absent, f"The inputs {absent} are no features; give values for the probe in `examples`.")
        rows = int(next(iter(features.values())).shape[0])
        own = self.examples
        return {i: _repeat(own[i], rows) if i in own else features[i] for i in self.inputs}


@dataclasses.dataclass(frozen=True)
class FromExamples(Signature):
    """A signature that reads the inputs of another signature from `tf.Example` protos, in which any name is possible.

    Attributes:
        of: the other signature.
    """

    of: Signature = dataclasses.field(kw_only=True)

    @classmethod
    def reading(cls, of: Signature) -> FromExamples:
        """Return the signature that parses `examples` [B] and calls the traced function of `of`."""

        def function(*, examples: tf.Tensor) -> Answer:
            answer: Answer = of.traced(**of.named(from_examples(examples, of.inputs)))  # once in the saved graph
            return answer

        return cls(function, {"examples": tf.TensorSpec([None], tf.string, "examples")}, of=of)

    def request(self, features: Features) -> dict[str, tf.Tensor]:
        """Return the request of the other signature as protos."""
        request = self.of.values(features)
        exact = {name: write_exact(value) for name, value in request.items() if value.dtype == tf.float64}
        return {"examples": to_examples({**request, **exact})}


def _repeat(examples: np.ndarray, rows: int) -> tf.Tensor:
    values = examples[np.arange(rows) % len(examples)]
    return tf.constant(values.tolist(), tf.string if examples.dtype.kind in "OUS" else examples.dtype)
