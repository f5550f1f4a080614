"""One function of a SavedModel, and the same one asked by `tf.Example` protos."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.examples import to_examples
from tfmtl.serving.examples import from_examples
from tfmtl.types import Features

Answer = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Signature:
    """One function of a SavedModel.

    Attributes:
        function: takes the inputs by name and returns tensors by name, batch first.
        inputs: their specifications by name.
        examples: values of the inputs that are no feature, for the probe; dimension 0 is cycled through.
    """

    function: Callable[..., Answer]
    inputs: Mapping[str, tf.TensorSpec]
    examples: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def traced(self) -> Any:
        """The concrete function with exactly these inputs."""
        return tf.function(self.function, autograph=False).get_concrete_function(**self.inputs)

    def request(self, features: Features) -> dict[str, tf.Tensor]:
        """Return a request of the given features [B, ...], its examples repeated to B rows."""
        rows = int(next(iter(features.values())).shape[0])
        return {i: features[i] if i in features else _repeat(self.examples[i], rows) for i in self.inputs}


@dataclasses.dataclass(frozen=True)
class FromExamples(Signature):
    """A signature that reads another's inputs from `tf.Example` protos.

    Attributes:
        of: the other.
    """

    of: Signature = dataclasses.field(kw_only=True)

    @classmethod
    def reading(cls, of: Signature) -> FromExamples:
        """Return the signature that answers as another one."""

        def function(*, examples: tf.Tensor) -> Answer:
            answer: Answer = of.traced(**from_examples(examples, of.inputs))  # once in the saved graph
            return answer

        return cls(function, {"examples": tf.TensorSpec([None], tf.string, "examples")}, of=of)

    def request(self, features: Features) -> dict[str, tf.Tensor]:
        """Return the other signature's request as protos."""
        return {"examples": to_examples(self.of.request(features))}


def _repeat(examples: np.ndarray, rows: int) -> tf.Tensor:
    values = [examples[row % len(examples)].tolist() for row in range(rows)]
    return tf.constant(values, tf.string if examples.dtype.kind in "OUS" else examples.dtype)
