"""Slimming: removes from a saved graph the annotations that runtimes do not need."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils


def slim(folder: pathlib.Path) -> None:
    """Shorten `saved_model.pb` of a SavedModel, without a change of its results.

    Runtimes infer the shapes of intermediate tensors and list the operations themselves, a constant is needed once per
    function, and the nodes inside of a function are not found by name: `network/rating_head/MatMul/ReadVariableOp`
    becomes `ReadVariableOp_3`. Names of functions, signatures and nodes outside of functions stay. The fingerprint is
    computed again.

    Args:
        folder: folder of a SavedModel that no process has loaded yet.

    Cost: two passes over the graph; the file shrinks to a half, and as a compressed archive to two thirds.
    """
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        meta.meta_info_def.ClearField("stripped_op_list")
        _forget_shapes(meta.graph_def.node)
        for function in meta.graph_def.library.function:
            _forget_shapes(function.node_def)
            function.arg_attr.clear()  # shapes and names of arguments, which the object graph holds, too
            same = _drop_repeated_constants(function)
            _rename(function, same)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))


def _forget_shapes(nodes: Iterable[Any]) -> None:
    for node in nodes:
        node.attr.pop("_output_shapes", None)


def _drop_repeated_constants(function: Any) -> dict[str, str]:
    """Keep the first of equal constants, and return the name of the kept one by the name of each removed one."""
    first: dict[bytes, str] = {}
    same = {}
    kept = []
    for node in function.node_def:
        if node.op == "Const" and not node.input:
            value = node.attr["value"].SerializeToString(deterministic=True)
            if value in first:
                same[node.name] = first[value]
                continue
            first[value] = node.name
        kept.append(node)
    function.ClearField("node_def")
    function.node_def.extend(kept)
    return same


def _rename(function: Any, same: Mapping[str, str]) -> None:
    """Name the nodes of a function after their operations.

    Args:
        function: FunctionDef.
        same: name of the kept node by the name of each removed one.
    """
    kept = {node.name for node in function.node_def if _names_a_resource(node)}
    taken = kept | {argument.name for argument in function.signature.input_arg}
    count: Counter[str] = Counter()
    names = {}
    for node in function.node_def:
        if node.name in kept:
            continue
        name = node.op
        while name in taken:
            count[node.op] += 1
            name = f"{node.op}_{count[node.op]}"
        taken.add(name)
        names[node.name] = name
    names |= {gone: names[other] for gone, other in same.items()}
    for node in function.node_def:
        node.name = names.get(node.name, node.name)
        node.input[:] = [_renamed(reference, names) for reference in node.input]
        node.attr.pop("_class", None)  # names nodes that must share a device; a server has one device
    for results in (function.ret, function.control_ret):
        for key, reference in list(results.items()):
            results[key] = _renamed(reference, names)


def _names_a_resource(node: Any) -> bool:
    """Return whether the node's name also names a resource, which two functions must not share by accident."""
    return "shared_name" in node.attr and not node.attr["shared_name"].s


def _renamed(reference: str, names: dict[str, str]) -> str:
    """Return a reference such as `node`, `node:output:0` or `^node` with the new name of its node."""
    mark, plain = ("^", reference[1:]) if reference.startswith("^") else ("", reference)
    node, colon, output = plain.partition(":")
    return f"{mark}{names.get(node, node)}{colon}{output}"
