"""Static shapes of the stored corpus, which some runtimes need before they load a variable."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from tfmtl._keras import tf


def unknown_shapes(variables: Iterable[tf.Variable]) -> dict[str, list[int]]:
    """Return the shapes of the values of variables of which a dimension may change, by name."""
    loose = (v for v in variables if not v.shape.is_fully_defined())
    return {v.name.split(":")[0]: v.read_value().shape.as_list() for v in loose}


def fix_shapes(folder: pathlib.Path, shapes: Mapping[str, Iterable[int]]) -> None:
    """Declare the shapes of variables in `saved_model.pb`, and compute its fingerprint again.

    `replace_candidates` changes the number of candidates, so that a model in memory has variables without one. Keras 3
    creates copies of the variables of a signature, and needs their shapes.

    Args:
        folder: folder of a SavedModel that no process has loaded yet.
        shapes: by name of the variable.
    """
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        for node in meta.object_graph_def.nodes:
            if node.WhichOneof("kind") == "variable" and node.variable.name in shapes:
                node.variable.shape.CopyFrom(tf.TensorShape(shapes[node.variable.name]).as_proto())
    path.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))
