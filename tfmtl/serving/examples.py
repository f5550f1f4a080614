"""Requests as `tf.Example` protos: one string a row, in which everything may be left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import Feature
from tfmtl.data.preprocessor import raw_spec

MISSING: dict[tf.DType, Any] = {tf.string: "", tf.int64: -1, tf.int32: -1, tf.float32: np.nan}
"""What stands for a missing value in a request, by its type."""


def from_examples(examples: tf.Tensor, specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Parse serialized protos [B] to the tensors of a request; what a proto lacks is missing, what is too much is cut.

    Args:
        examples: strings [B].
        specs: by input name; a width of None takes lists of any length and pads them.
    """
    types = {name: tf.int64 if spec.dtype.is_integer else spec.dtype for name, spec in specs.items()}
    lists = {
        name: tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True, default_value=MISSING[dtype])
        for name, dtype in types.items()
    }
    parsed = tf.io.parse_example(examples, lists)
    return {name: _fitted(tf.cast(parsed[name], spec.dtype), spec) for name, spec in specs.items()}


def _fitted(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Return lists [B, any] in the shape of an input."""
    if spec.shape.rank == 2 and spec.shape[1] is None:
        return values
    width = spec.shape[1] if spec.shape.rank == 2 else 1
    missing = tf.fill([tf.shape(values)[0], width], tf.constant(MISSING[spec.dtype], spec.dtype))
    fitted = tf.ensure_shape(tf.concat([values, missing], axis=1)[:, :width], [None, width])
    return fitted if spec.shape.rank == 2 else fitted[:, 0]


def missing_row(feature: Feature) -> tf.Tensor:
    """Return one raw row [1, ...] without a value."""
    spec = raw_spec(feature)
    return tf.fill([size or 1 for size in spec.shape], tf.constant(MISSING[spec.dtype], spec.dtype))
