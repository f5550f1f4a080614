"""Signature: one function of a SavedModel, and the same function on requests of `tf.Example` protos."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import Feature
from tfmtl.data.examples import to_examples
from tfmtl.serving.exact_numbers import read_exact, write_exact
from tfmtl.types import Features

Answer = dict[str, tf.Tensor]

MISSING: dict[tf.DType, Any] = {tf.string: "", tf.int64: -1, tf.int32: -1, tf.float32: np.nan, tf.float64: np.nan}
"""The missing value of each type in a request."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """One function of a SavedModel, which clients call by its name.

    Attributes:
        function: takes the inputs by name and returns tensors [B, ...] by name.
        inputs: specifications of the inputs by name.
        examples: for each input that is no feature, values for the probe; they are repeated along dimension 0.
    """

    function: Callable[..., Answer]
    inputs: Mapping[str, tf.TensorSpec]
    examples: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def traced(self) -> Any:
        """The concrete function with exactly these inputs; several names of one signature share it."""
        return tf.function(self.function, autograph=False).get_concrete_function(**self.inputs)

    def request(self, features: Features) -> dict[str, tf.Tensor]:
        """Return a request of the given features [B, ...], with the examples repeated to B rows.

        Raises:
            ValueError: if an input is neither a feature nor among the examples.
        """
        absent = sorted(set(self.inputs) - {*features, *self.examples})
        require(not absent, f"The inputs {absent} are no features; give values for the probe in `examples`.")
        rows = int(next(iter(features.values())).shape[0])
        return {i: features[i] if i in features else _repeat(self.examples[i], rows) for i in self.inputs}


@dataclasses.dataclass(frozen=True)
class FromExamples(Signature):
    """A signature that reads the inputs of another signature from `tf.Example` protos.

    Attributes:
        of: the other signature.
    """

    of: Signature = dataclasses.field(kw_only=True)

    @classmethod
    def reading(cls, of: Signature) -> FromExamples:
        """Return the signature that parses `examples` [B] and calls the traced function of `of`."""

        def function(*, examples: tf.Tensor) -> Answer:
            answer: Answer = of.traced(**from_examples(examples, of.inputs))  # once in the saved graph
            return answer

        return cls(function, {"examples": tf.TensorSpec([None], tf.string, "examples")}, of=of)

    def request(self, features: Features) -> dict[str, tf.Tensor]:
        """Return the request of the other signature as protos."""
        request = self.of.request(features)
        exact = {name: write_exact(value) for name, value in request.items() if value.dtype == tf.float64}
        return {"examples": to_examples({**request, **exact})}


def from_examples(examples: tf.Tensor, specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Parse serialized protos [B] to the tensors of a request; absent inputs are missing, longer lists are cut.

    Args:
        examples: strings [B].
        specs: by input name; a width of None takes lists of any length and pads them. See `read_exact` for float64.
    """
    exact = {name: _fitted(read_exact(examples, name), s) for name, s in specs.items() if s.dtype == tf.float64}
    specs = {name: spec for name, spec in specs.items() if name not in exact}
    types = {name: tf.int64 if spec.dtype.is_integer else spec.dtype for name, spec in specs.items()}
    lists = {
        name: tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True, default_value=MISSING[dtype])
        for name, dtype in types.items()
    }
    parsed = tf.io.parse_example(examples, lists) if lists else {}
    return {**exact, **{name: _fitted(tf.cast(parsed[name], spec.dtype), spec) for name, spec in specs.items()}}


def missing_row(feature: Feature) -> tf.Tensor:
    """Return one raw row [1, ...] without a value."""
    spec = feature.raw_spec
    return tf.fill([size or 1 for size in spec.shape], tf.constant(MISSING[spec.dtype], spec.dtype))


def _repeat(examples: np.ndarray, rows: int) -> tf.Tensor:
    values = examples[np.arange(rows) % len(examples)]
    return tf.constant(values.tolist(), tf.string if examples.dtype.kind in "OUS" else examples.dtype)


def _fitted(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Return lists [B, any] in the shape of an input."""
    if spec.shape.rank == 2 and spec.shape[1] is None:
        return values
    width = spec.shape[1] if spec.shape.rank == 2 else 1
    missing = tf.fill([tf.shape(values)[0], width], tf.constant(MISSING[spec.dtype], spec.dtype))
    fitted = tf.ensure_shape(tf.concat([values, missing], axis=1)[:, :width], [None, width])
    return fitted if spec.shape.rank == 2 else fitted[:, 0]
