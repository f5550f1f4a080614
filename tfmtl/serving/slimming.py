"""A smaller graph on disk: what readers of graphs like and runtimes infer again is left out."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils


def slim(folder: pathlib.Path) -> None:
    """Shorten `saved_model.pb` of a SavedModel, without changing what it computes.

    Runtimes infer the shapes of intermediate tensors and count operations themselves, a constant is needed once a
    function, and nobody looks up a node inside of a function by name: `network/rating_head/MatMul/ReadVariableOp`
    becomes `ReadVariableOp_3`. Names of functions, signatures and nodes outside of functions stay. The fingerprint is
    made anew.

    Args:
        folder: of a SavedModel that nothing has loaded yet.

    Cost: two passes over the graph; it shrinks to half, to two thirds of what it takes compressed.
    """
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        meta.meta_info_def.ClearField("stripped_op_list")
        _forget_shapes(meta.graph_def.node)
        for function in meta.graph_def.library.function:
            _forget_shapes(function.node_def)
            function.arg_attr.clear()  # shapes and names of arguments, which the object graph has, too
            same = _drop_repeated_constants(function)
            _rename(function, same)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))


def _forget_shapes(nodes: Iterable[Any]) -> None:
    for node in nodes:
        node.attr.pop("_output_shapes", None)


def _drop_repeated_constants(function: Any) -> dict[str, str]:
    """Keep one of the constants that are equal, and return what stands for the others, by name."""
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
        same: nodes that are gone, and those that stand for them.
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
        node.attr.pop("_class", None)  # nodes that should share a device, by name; on servers everything does
    for results in (function.ret, function.control_ret):
        for key, reference in list(results.items()):
            results[key] = _renamed(reference, names)


def _names_a_resource(node: Any) -> bool:
    """Whether the node's name may be that of a resource, which two functions must not share by accident."""
    return "shared_name" in node.attr and not node.attr["shared_name"].s


def _renamed(reference: str, names: dict[str, str]) -> str:
    """Return a reference such as `node`, `node:output:0` or `^node` with the node's new name."""
    mark, plain = ("^", reference[1:]) if reference.startswith("^") else ("", reference)
    node, colon, output = plain.partition(":")
    return f"{mark}{names.get(node, node)}{colon}{output}"
