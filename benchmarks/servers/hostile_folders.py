"""Saved models with a configuration that an attacker has changed: it runs code, or reads or writes a file."""

from __future__ import annotations

import copy
import json
import marshal
import pathlib
import random
import shutil
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

MODULES = ("hostile_sentinel", "keras_hostile_sentinel", "tfmtl_hostile_sentinel", "antigravity")
"""Modules that a hostile configuration tries to import."""


def write_modules(folder: pathlib.Path, sentinel: pathlib.Path) -> None:
    """Write modules that write a file when they are imported, for a folder of `sys.path`."""
    folder.mkdir()
    for name in MODULES[:-1]:
        text = f"open({str(sentinel)!r}, 'w').close()\nclass X: from_config = dict\ndef f(x): return x\n"
        (folder / f"{name}.py").write_text(text)


def folders(saved: pathlib.Path, target: pathlib.Path, sentinel: pathlib.Path, seed: int = 0) -> Iterator[pathlib.Path]:
    """Yield copies of a saved model without end, each with a hostile object at a random position.

    Args:
        saved: folder that `save_model` wrote.
        target: folder for the copy; each is removed when the next one is taken.
        sentinel: a file that the hostile objects try to write.
        seed: seed of the objects and positions.
    """
    rng = random.Random(seed)
    config = json.loads((saved / "model.json").read_text())
    config.pop("crc32", None)
    slots, objects = list(positions(config)), list(hostile_objects(sentinel).values())
    while True:
        for hostile in rng.sample(objects, len(objects)):
            write(saved, target, replaced(config, rng.choice(slots), hostile))
            yield target
            shutil.rmtree(target)


def write(saved: pathlib.Path, target: pathlib.Path, config: Any) -> None:
    """Write a copy of a saved model with another configuration, without a checksum as in files of earlier versions."""
    shutil.copytree(saved, target)
    (target / "model.json").write_text(json.dumps(config))


def positions(config: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the position of every value in a configuration except names, so that an object there reaches Keras."""
    items: Any = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in items:
        if key not in ("class_name", "module", "registered_name", "function"):
            yield (*path, key)
        if isinstance(value, dict | list) and value:
            yield from positions(value, (*path, key))


def replaced(config: Any, path: Path, hostile: Any) -> Any:
    """Return a copy of a configuration with an object at a position."""
    changed = copy.deepcopy(config)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = hostile
    return changed


def hostile_objects(sentinel: pathlib.Path) -> dict[str, Any]:
    """Return objects that run code or touch files when Keras makes or calls them, by a name of their kind."""
    return {**_modules(), **_functions(), **_operations(sentinel), **_layers(sentinel), **_specifications()}


def _modules() -> dict[str, Any]:
    """Return classes of modules that Keras would import."""

    def named(**changes: Any) -> dict[str, Any]:
        return {"module": "hostile_sentinel", "class_name": "X", "config": {}, "registered_name": "X", **changes}

    return {
        "module": named(),
        "module without a registered name": named(registered_name=None),
        "module beside the name of a known class": named(class_name="tfmtl>MMoE", registered_name=None),
        "module beside the name of a Keras class": named(class_name="Dense", registered_name=None),
        "module that begins like Keras": named(module="keras_hostile_sentinel"),
        "module in Keras": named(module="keras.hostile_sentinel"),
        "module that begins like tfmtl": named(module="tfmtl_hostile_sentinel", registered_name="tfmtl>X"),
        "module of the standard library": named(module="antigravity", class_name="X"),
        "class that is no part of a model": named(module="subprocess", class_name="Popen", config={"args": "true"}),
        "class of Keras that is no part of a model": named(
            module="keras.utils", class_name="SidecarEvaluator", registered_name=None
        ),
        "private class of Keras": named(module="tf_keras.src.utils.data_utils", class_name="OrderedEnqueuer"),
        "operation with another module": named(class_name="TFOpLambda", config={"function": "math.add"}),
        "tuple with a module": named(class_name="__tuple__", items=[]),
        "shape with a module": named(class_name="TensorShape", items=[]),
        "class that is no string": named(class_name=["X"]),
        "function of earlier files": {
            "class_name": "deserialize_keras_object", "registered_name": "tfmtl>MMoE", "config": {"config": {}}
        },
        "nested name": named(module="keras", class_name="utils.get_file", registered_name=None),
        "compile configuration": {
            "module": "keras.layers", "class_name": "Dense", "registered_name": None, "config": {"units": 1},
            "compile_config": {"optimizer": named()},
        },
    }  # fmt: skip


def _functions() -> dict[str, Any]:
    def function(name: str, module: str | None, other: str | None = "function") -> dict[str, Any]:
        return {"class_name": "function", "module": module, "config": name, "registered_name": other}

    return {
        "function of a module": function("f", "hostile_sentinel"),
        "system": function("system", "os"),
        "exec": function("exec", "builtins"),
        "get_file": function("get_file", "keras.utils"),
        "load_model": function("load_model", "keras.models"),
        "enable_unsafe_deserialization": function("enable_unsafe_deserialization", "keras.__internal__"),
        "function by its registered name": function("relu", "keras.activations", "get_file"),
        "known function of another module": function("relu", "hostile_sentinel"),
        "function by a list": {**function("f", None), "config": ["f"], "module": ["os"]},
    }


def _operations(sentinel: pathlib.Path) -> dict[str, Any]:
    def operation(name: Any, kind: str = "TFOpLambda", **config: Any) -> dict[str, Any]:
        arguments = {"args": [str(sentinel), "x"]} if name == "io.write_file" else {}
        return {
            "module": "tf_keras.src.layers.core.tf_op_layer", "class_name": kind, "registered_name": kind,
            "config": {"name": "op", "trainable": True, "dtype": "float32", "function": name, **config},
            "inbound_nodes": [[str(sentinel), -1, -1, arguments]],
        }  # fmt: skip

    names = [
        "io.write_file", "io.read_file", "io.matching_files", "io.gfile.remove", "raw_ops.WriteFile", "py_function",
        "numpy_function", "compat.v1.py_func", "print", "summary.write", "load_op_library", "load_library", "function",
        "map_fn", "while_loop", "custom_gradient",
        "saved_model.load", "data.experimental.save", "tpu.initialize_tpu_system",
        "debugging.experimental.enable_dump_debug_info", "keras.utils.get_file", "keras.models.load_model",
        "nn.fixed_unigram_candidate_sampler", "lookup.TextFileInitializer", "math.add.x", "compat.v1.io.write_file",
        None, 3,
    ]  # fmt: skip
    found = {f"operation {name}": operation(name) for name in names}
    kinds = {
        "slice": operation("io.write_file", "SlicingOpLambda"),
        "method": operation(None, "InstanceMethod", attr_name="__reduce_ex__"),
        "property": operation(None, "InstanceProperty", attr_name="__class__"),
        "method of a class": operation(None, "ClassMethod", cls_symbol="keras.Model", method_name="from_config"),
        "method of a writer": operation(None, "ClassMethod", cls_symbol="io.TFRecordWriter", method_name="from_tensor"),
    }  # fmt: skip
    return found | kinds


def _layers(sentinel: pathlib.Path) -> dict[str, Any]:
    code = compile(f"open({str(sentinel)!r}, 'w').write('x')", "hostile", "eval")
    text = [b64encode(marshal.dumps(code)).decode(), None, None]

    def layer(kind: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
        named = {} if module is None else {"module": module, "registered_name": None}
        return {**named, "class_name": kind, "config": config}

    node = 'name: "w" op: "WriteFile" input: "a" input: "b"'
    return {
        "Lambda": layer("Lambda", function=text, function_type="lambda", module="os"),
        "Lambda of earlier files": layer("Lambda", None, function=text, function_type="lambda"),
        "Lambda of a function": layer("Lambda", function="system", function_type="function", module="os"),
        "Lambda of the internal module": layer("Lambda", "tf_keras.src.layers.core.lambda_layer", function=text),
        "lambda": {"class_name": "__lambda__", "config": {"value": text}},
        "TFSMLayer": layer("TFSMLayer", filepath=str(sentinel.parent)),
        "TFSMLayer of the internal module": layer("TFSMLayer", "tf_keras.src.export.export_lib", filepath="x"),
        "TensorFlowOpLayer": layer("TensorFlowOpLayer", None, node_def=node, name="w"),
        "StringLookup": layer("StringLookup", vocabulary="/etc/passwd"),
        "IntegerLookup": layer("IntegerLookup", None, vocabulary="/etc/passwd"),
        "TextVectorization": layer("TextVectorization", vocabulary="/etc/passwd"),
        "DenseFeatures": layer("DenseFeatures", feature_columns=[]),
        "wrapped": layer("TimeDistributed", layer=layer("Lambda", function=text, function_type="lambda")),
    }


def _specifications() -> dict[str, Any]:
    def described(name: str, module: str, other: str | None = None) -> dict[str, Any]:
        return {
            "class_name": "__typespec__", "spec_name": name, "module": module, "registered_name": other, "config": [],
        }  # fmt: skip

    return {
        "specification of a module": described("X", "hostile_sentinel"),
        "layer as a specification": described("Lambda", "tensorflow.python.keras.layers.core"),
        "layer behind a specification": described("TensorSpec", "tensorflow.python.keras.layers.core", "Lambda"),
        "unknown specification": {"class_name": "TypeSpec", "type_spec": "evil.Spec", "serialized": []},
    }
