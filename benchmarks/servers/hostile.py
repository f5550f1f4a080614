"""Random requests of known, unknown and missing values and of the extremes of every type."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.models import MultiTaskModel
from tfmtl.serving import Signature

STRINGS = [
    "",
    "no such value",
    "u1",
    "i3",
    "g1|g2",
    "|",
    "the item number 3",
    " \t\n",
    "x" * 10_000,
    "é☃𝄞",
    "\0",
    "NaN",
    "-1",
]
INTEGERS = [-1, 0, 1, 2, 7, -2, np.iinfo(np.int32).max, np.iinfo(np.int64).max, np.iinfo(np.int64).min]
FLOATS = [0.0, -0.0, 1.0, 23.5, -7.0, 1e-45, 3.4e38, -3.4e38, 1e20, np.inf, -np.inf, np.nan]
VALUES: dict[tf.DType, list[Any]] = {
    tf.string: STRINGS, tf.int64: INTEGERS, tf.int32: [-1, 0, 1, 3, 10, 2**31 - 1, -(2**31)], tf.float32: FLOATS,
}  # fmt: skip


def request(model: MultiTaskModel, signature: Signature, rows: int, rng: np.random.Generator) -> dict[str, tf.Tensor]:
    """Return random values of every input of a signature, half of the categories from their vocabularies."""
    return {
        name: tf.constant(_values(model, name, spec, rows, rng), spec.dtype) for name, spec in signature.inputs.items()
    }


def _values(model: MultiTaskModel, name: str, spec: tf.TensorSpec, rows: int, rng: np.random.Generator) -> Any:
    shape = [rows, *(int(rng.integers(0, 6)) if size is None else size for size in spec.shape[1:])]
    odd = np.asarray(VALUES[spec.dtype], object)
    values = odd[rng.integers(0, len(odd), shape)]
    feature = model.schema.features.get(name)
    owner = feature.vocabulary if feature is not None else None
    if owner is not None:
        known = np.asarray(model.preprocessor.vocabulary(owner).tolist(), object)
    elif name.endswith("_ids"):
        known = np.asarray(model.candidates.ids.tolist(), object)
    else:
        return values.tolist()
    return np.where(rng.random(shape) < 0.5, known[rng.integers(0, len(known), shape)], values).tolist()
