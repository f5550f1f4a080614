"""Verification: the reloaded model answers as the one in memory, with operations that every server has."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import Schema, Statistics

Tensors = Mapping[str, tf.Tensor]
Signatures = Mapping[str, Callable[..., Tensors]]


def probe_features(schema: Schema, statistics: Statistics, rows: int = 8) -> dict[str, tf.Tensor]:
    """Make raw features for a probe: the most frequent values, then one unknown and one missing row.

    Args:
        schema: roles and kinds of the columns.
        statistics: vocabularies and moments from which the values are made.
        rows: number of rows, at least 3; all values of the last two rows are unknown and missing, respectively.

    Returns:
        Raw tensors [rows, ...] by feature name, as a client would send them.
    """
    require(rows >= 3, "A probe needs at least 3 `rows`.", rows=rows)
    return {
        feature.name: tf.constant(feature.probe(statistics, rows), feature.raw_spec.dtype)
        for feature in schema.features.values()
    }


def verify(
    path: pathlib.Path,
    expected: Mapping[str, Tensors],
    requests: Mapping[str, Tensors],
    tolerance: float = 1e-5,
    namespaces: Collection[str] = (),
) -> dict[str, float]:
    """Load a SavedModel and compare its answers with those of the model in memory.

    Args:
        path: folder of the SavedModel.
        expected: answers of the model in memory by signature.
        requests: requests of these answers by signature.
        tolerance: largest allowed difference, relative above 1.
        namespaces: namespaces of operations that are allowed beyond TensorFlow's own, such as `Scann` for
            `Scann>ScannSearch`.

    Returns:
        The largest difference by signature.

    Raises:
        RuntimeError: if an answer differs or is not finite, or an operation belongs neither to TensorFlow nor to the
            namespaces.
    """
    foreign = [op for op in foreign_operations(path) if op.rpartition(">")[0] not in namespaces]
    if foreign:
        raise RuntimeError(f"The model uses the operations {foreign}, which a stock TensorFlow server lacks.")
    loaded = tf.saved_model.load(str(path)).signatures
    differences = {}
    for name, request in requests.items():
        answer = loaded[name](**request)
        if set(answer) != set(expected[name]):
            raise RuntimeError(
                f"Signature {name!r} answers {sorted(answer)} after reloading, not {sorted(expected[name])}."
            )
        found = {output: difference(expected[name][output], answer[output]) for output in answer}
        worst = max(found, key=lambda output: found[output])
        if not found[worst] <= tolerance:
            raise RuntimeError(
                f"Output {worst!r} of signature {name!r} differs by {found[worst]:.3g} after reloading, "
                f"more than {tolerance:g}; nothing was published."
            )
        differences[name] = found[worst]
    return differences


def difference(expected: Any, answer: Any) -> float:
    """Return max |a - b| / max(1, |a|); infinite if shapes or ids differ or a number is not finite.

    Example:
        >>> difference(tf.constant([1.0, 200.0]), tf.constant([1.0, 225.0]))
        0.125
        >>> difference(tf.constant(["a"]), tf.constant(["b"]))
        inf
    """
    one, other = np.asarray(expected), np.asarray(answer)
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.dtype.kind != "f":
        return 0.0 if (one == other).all() else float("inf")
    if not np.isfinite(one).all():
        return float("inf")
    return float(np.max(np.abs(one - other) / np.maximum(1.0, np.abs(one)), initial=0.0))


def foreign_operations(path: str | pathlib.Path) -> list[str]:
    """Return the operations of a SavedModel that are not part of TensorFlow itself, sorted."""
    raw = (pathlib.Path(path) / "saved_model.pb").read_bytes()
    found: set[str] = set()
    for meta in saved_model_pb2.SavedModel.FromString(raw).meta_graphs:
        found.update(node.op for node in meta.graph_def.node)
        found.update(node.op for function in meta.graph_def.library.function for node in function.node_def)
        found -= {function.signature.name for function in meta.graph_def.library.function}
    return sorted(op for op in found if not hasattr(tf.raw_ops, op))
