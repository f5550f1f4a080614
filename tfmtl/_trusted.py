"""Saved configurations of Keras objects, checked before Keras reads them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from tensorflow.python.util import tf_export

from tfmtl._keras import SafeModeScope, in_safe_mode, keras, tf
from tfmtl._operations import TENSOR_ATTRIBUTES, is_operation

_DEPTH: Final = 200  # nested layers of a network take about four levels each
_CURE: Final = "import the module that registers it, or pass `safe_mode=False` if you trust the origin of the file"
_TRUST: Final = "pass `safe_mode=False` if you trust the origin of the file"
_VALUES: Final = frozenset(("__tensor__", "__numpy__", "__bytes__"))
_PLAIN: Final = frozenset(("__tuple__", "__ellipsis__", "TensorShape", "CompositeTensor"))
_SPECS: Final = frozenset(("TypeSpec", "__typespec__"))
_OPERATIONS: Final = frozenset(("TFOpLambda", "SlicingOpLambda"))
_ATTRIBUTES: Final = frozenset(("ClassMethod", "InstanceMethod", "InstanceProperty"))
_CODE: Final = frozenset(("Lambda", "__lambda__", "TensorFlowOpLayer"))
_FILES: Final = frozenset(("StringLookup", "IntegerLookup", "TextVectorization"))
_FUNCTIONS: Final = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints")
_FUNCTION_MODULES: Final = frozenset(f"{root}.{name}" for root in ("keras", "tf_keras") for name in _FUNCTIONS)
_OWN: Final = re.compile(r"tfmtl(\.[a-z_]\w*)+")
_SOURCES: Final = (
    "layers", "engine.functional", "engine.sequential", "engine.training", "engine.input_layer", "engine.base_layer",
    "optimizers", "losses", "metrics", "initializers", "regularizers", "constraints", "mixed_precision",
)  # fmt: skip
_CHECKED_BY_NAME: Final = _OPERATIONS | _ATTRIBUTES | _CODE | _FILES
_UNUSUAL: Final = frozenset(("DynamicEmbedding", "DynamicLookup"))  # their look-ups may be files

_HOLDERS: Final = (dict, list, tuple, Mapping)

Registered = Callable[[str], Any]


def require_trusted(config: Any, source: str) -> None:
    """Raise unless every object that a saved configuration names can be made without running code of its author.

    Allowed are classes and functions that are registered with Keras, those of Keras itself except `Lambda` and layers
    that read files, and the operations in `tfmtl._operations`. In a `SafeModeScope(False)` everything is allowed.

    Args:
        config: plain values, as JSON gives them.
        source: name of the file or of the object for the message.

    Raises:
        ValueError: with the file, the position of the object in the configuration and the cure.

    Example:
        >>> require_trusted({"tasks": [{"module": "evil", "class_name": "X", "config": {}}]}, "model.json")
        Traceback (most recent call last):
        ...
        ValueError: model.json names the class 'X' of the module 'evil' at tasks[0], which is neither registered nor one
        of tfmtl or Keras; import the module that registers it, or pass `safe_mode=False` if you trust the origin of the
        file.
    """
    _check(config, source, keras.saving.get_registered_object)


def untrusted(config: Any) -> str:
    """Return the sentence of `require_trusted` without its first word, "" if the configuration is trusted."""
    try:
        with SafeModeScope(True):
            require_trusted(config, "it")
    except ValueError as error:
        return str(error).removeprefix("it ")
    return ""


def deserialize(
    read: Callable[..., Any], config: Any, what: str, custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """Return the Keras object of a configuration that is checked first; see `require_trusted`.

    Classes of modules that are imported already need not be registered here, because a copy in memory passes through a
    configuration too. A file is checked as a whole, without this exception, before its parts are made.

    Args:
        read: the function of Keras, such as `keras.optimizers.deserialize`.
        config: the configuration of the object.
        what: name of the object for the message.
        custom_objects: further classes and functions by name.
    """
    _check(config, what, lambda name: keras.saving.get_registered_object(name, custom_objects), loaded=True)
    return read(config, custom_objects=custom_objects)


def _check(config: Any, source: str, registered: Registered, loaded: bool = False) -> None:
    if in_safe_mode() is False:
        return
    for described, path in _mappings(config, source):
        fault = _fault(described, registered, loaded) if "class_name" in described else None
        if fault:
            raise ValueError(f"{source} {fault[0]} at {path or 'its top'}{fault[1]}.")


def _mappings(config: Any, source: str) -> Iterator[tuple[Mapping[Any, Any], str]]:
    """Yield every mapping in a configuration with its position; lists of numbers or strings cost one look per item."""
    stack: list[tuple[Any, str, int]] = [(config, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        if depth > _DEPTH:
            raise ValueError(f"{source} is nested more than {_DEPTH} levels deep; it is no saved model.")
        if isinstance(value, Mapping):
            yield value, path
            items = [(f".{key}", item) for key, item in value.items() if isinstance(item, _HOLDERS)]
        else:
            items = [(f"[{i}]", item) for i, item in enumerate(value) if isinstance(item, _HOLDERS)]
        stack += [(item, (path + step).removeprefix("."), depth + 1) for step, item in items]


def _fault(described: Mapping[str, Any], registered: Registered, loaded: bool) -> tuple[str, str] | None:
    """Return the reason why an object must not be made and the cure, or None."""
    name, config = described["class_name"], described.get("config")
    if not isinstance(name, str):
        if "config" not in described:
            return None  # a column may have the name `class_name`
        return f"names a class by {type(name).__name__}", ", where a string must be; it is no saved model"
    if name in _CODE:
        return f"holds a `{name}`, which can run any code,", f"; replace it by a registered layer, or {_TRUST}"
    if name in _FILES and isinstance(config, Mapping):
        files = [key for key in ("vocabulary", "idf_weights") if isinstance(config.get(key), str)]
        if files:
            return f"holds a `{name}` that reads a file", f"; save the values of `{files[0]}` themselves, or {_TRUST}"
    if name in _VALUES or (name in _PLAIN and described.get("module") is None):
        return None
    if name == "function":
        return _function_fault(described, registered)
    if name in _SPECS:
        return _spec_fault(described)
    fault = _operation_fault(name, config) if name in _OPERATIONS | _ATTRIBUTES else None
    return fault or _class_fault(described, registered, loaded)


def _operation_fault(kind: str, config: Any) -> tuple[str, str] | None:
    config = config if isinstance(config, Mapping) else {}
    named = config.get("function" if kind in _OPERATIONS else "method_name" if kind == "ClassMethod" else "attr_name")
    symbols = ("RaggedTensor", "SparseTensor")
    known = is_operation(named) if kind in _OPERATIONS else named in TENSOR_ATTRIBUTES if _is_text(named) else False
    if known and (kind != "ClassMethod" or config.get("cls_symbol") in symbols):
        return None
    rule = ", which is not in the list of operations without effect on files and processes"
    return f"names the operation {named!r}", f"{rule}; put it into a registered layer, or {_TRUST}"


def _function_fault(described: Mapping[str, Any], registered: Registered) -> tuple[str, str] | None:
    name, module, other = described.get("config"), described.get("module"), described.get("registered_name")
    own = module is None or (_is_text(module) and (module == "builtins" or module in _FUNCTION_MODULES))
    found = _found(name, registered) or (own and _is_text(name) and name in _functions())
    if found and (other in (None, "function", name) or _found(other, registered)):
        return None
    return f"names the function {name!r} of the module {module!r}", f", which is not registered; {_CURE}"


def _class_fault(described: Mapping[str, Any], registered: Registered, loaded: bool) -> tuple[str, str] | None:
    name, module = described["class_name"], described.get("module")
    other = described.get("registered_name", name)  # Keras looks for this name first, and then imports the module
    if isinstance(module, str) and _OWN.fullmatch(module) and not _found(other, registered):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)  # a module of this package registers its classes
    if _found(name if module is None else other, registered):
        return None
    if _is_keras(module, name) or (loaded and _is_loaded(module, name)):
        return None
    rule = ", which is neither registered nor one of tfmtl or Keras"
    return f"names the class {name!r} of the module {module!r}", f"{rule}; {_CURE}"


def _spec_fault(described: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the reason why the specification of a tensor is none of TensorFlow, or None."""
    name, module = described.get("spec_name", described.get("type_spec")), described.get("module")
    kinds = {kind.__name__: kind for kind in _tensor_specs()}
    if described["class_name"] == "TypeSpec":
        known = module is None and _is_text(name) and name.removeprefix("tf.") in kinds
    else:
        loaded = sys.modules.get(str(module))
        found = vars(loaded).get(name) if loaded is not None and _is_text(name) else None
        known = described.get("registered_name") is None and found is not None and found is kinds.get(str(name))
    return None if known else (f"names the tensor specification {name!r}", f", which is none of TensorFlow; {_TRUST}")


def _is_text(name: Any) -> bool:
    return isinstance(name, str)


def _found(name: Any, registered: Registered) -> bool:
    return _is_text(name) and registered(name) is not None


@functools.cache
def _tensor_specs() -> tuple[type, ...]:
    return (tf.TensorSpec, tf.RaggedTensorSpec, tf.SparseTensorSpec, tf.IndexedSlicesSpec)


def _is_keras(module: Any, name: str) -> bool:
    """Return whether Keras would find one of its own classes, without an import."""
    if module is None:
        return name in _classes()
    if not _is_text(module) or "." in name or module.partition(".")[0] not in ("keras", "tf_keras"):
        return False
    found = tf_export.get_symbol_from_name(f"{module}.{name}")
    if found is None:
        loaded = sys.modules.get(re.sub(r"^keras\b", "tf_keras", module))
        found = vars(loaded).get(name) if loaded is not None else None
    return _allowed(found, name)


def _is_loaded(module: Any, name: str) -> bool:
    loaded = sys.modules.get(module) if _is_text(module) else None
    found = vars(loaded).get(name) if loaded is not None else None
    return isinstance(found, type) and issubclass(found, _bases()) and not found.__module__.startswith("tf_keras.")


def _allowed(found: Any, name: str) -> bool:
    """Return whether a class of Keras, found by a name, may be made."""
    if not isinstance(found, type) or not issubclass(found, _bases()) or found.__name__ in _CODE | _UNUSUAL:
        return False
    if found.__name__ != name and found.__name__ in _CHECKED_BY_NAME:
        return False  # an alias would avoid the check of the name
    inner = found.__module__.removeprefix("tf_keras.src.")
    return any(inner == source or inner.startswith(f"{source}.") for source in _SOURCES)


@functools.cache
def _bases() -> tuple[type, ...]:
    optimizers = keras.optimizers
    return (
        keras.layers.Layer, optimizers.Optimizer, optimizers.legacy.Optimizer,
        optimizers.schedules.LearningRateSchedule, keras.losses.Loss, keras.initializers.Initializer,
        keras.regularizers.Regularizer, keras.constraints.Constraint, keras.mixed_precision.Policy,
    )  # fmt: skip


def _members(modules: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for module in modules:
        yield from ((name, getattr(module, name)) for name in dir(module) if not name.startswith("_"))


@functools.cache
def _classes() -> frozenset[str]:
    """Return the names of the classes that Keras finds without a module, in the form of earlier releases."""
    optimizers = keras.optimizers
    modules = [getattr(keras, name) for name in _FUNCTIONS]
    modules += [keras.layers, optimizers, optimizers.legacy, optimizers.schedules, keras.mixed_precision]
    return frozenset(name for name, found in _members(modules) if _allowed(found, name)) | {"Functional", "Sequential"}


@functools.cache
def _functions() -> frozenset[str]:
    modules = [getattr(keras, name) for name in _FUNCTIONS]
    readers = {"get", "serialize", "deserialize"}
    return frozenset(n for n, f in _members(modules) if callable(f) and not isinstance(f, type) and n not in readers)
