"""The only module that chooses the Keras of this process: Keras 2, as `tf_keras`.

TFRS and the model-optimization toolkit need Keras 2; TensorFlow resolves `tf.keras` once, on first use, from the
environment variable `TF_USE_LEGACY_KERAS`. This module sets the variable while that still helps and refuses, in one
sentence with the cure, when it is too late.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

_VARIABLE = "TF_USE_LEGACY_KERAS"
_TRUE = ("1", "true", "True")  # the only spellings TensorFlow counts
_CURE = (
    f"Set {_VARIABLE}=1 in the environment, or import tfmtl before anything that uses `tf.keras` "
    "(and before `from tensorflow.keras import ...`)."
)


def _too_late() -> str | None:
    """Return the action before this import that fixed Keras 3 for the process, or None."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return None
    loader = vars(tensorflow).get("keras")
    if getattr(loader, "_tfll_initialized", True) and not _is_keras_2(loader):
        return "`tf.keras` was used before `import tfmtl`"
    module = sys.modules.get("tensorflow.keras")
    if module is not None and not _is_keras_2(module):
        return "`tensorflow.keras` was imported before `import tfmtl`"
    return None


def _is_keras_2(module: Any) -> bool:
    return str(getattr(module, "__version__", "2.")).startswith("2.")  # TensorFlow's view of Keras 2 has no version


def _point_package_at_keras_2() -> None:
    """Let `from tensorflow.keras import ...` find Keras 2 although TensorFlow was imported without the variable."""
    tensorflow = sys.modules.get("tensorflow")
    spec = importlib.util.find_spec("tf_keras.api._v2")
    if tensorflow is None or spec is None or not spec.submodule_search_locations:
        return
    (location,) = spec.submodule_search_locations
    if location not in tensorflow.__path__:
        tensorflow.__path__.insert(0, location)


def _choose_keras_2() -> None:
    refused = os.environ.get(_VARIABLE)
    if refused and refused not in _TRUE:
        raise ImportError(f"tfmtl needs Keras 2, but {_VARIABLE} is {refused!r}, which selects Keras 3. {_CURE}")
    done = _too_late()
    if done:
        raise ImportError(f"tfmtl needs Keras 2, but {done} and fixed Keras 3 for this process. {_CURE}")
    os.environ[_VARIABLE] = "1"
    _point_package_at_keras_2()


def _hide_broken_scann() -> None:
    """Keep an incompatible ScaNN from breaking the import of TFRS, which only catches `ImportError` from it."""
    if "tensorflow_recommenders" in sys.modules or importlib.util.find_spec("scann") is None:
        return
    try:
        importlib.import_module("scann")
    except Exception:  # noqa: BLE001 - a foreign extension fails with TensorFlow's own error classes
        sys.modules["scann"] = None  # type: ignore[assignment]  # the import system's way to say "absent"


_choose_keras_2()

import tensorflow as tf  # noqa: E402 - only now is the choice made
import tf_keras as keras  # noqa: E402
from tf_keras.src.saving.legacy.saved_model import utils as _saved_model  # noqa: E402
from tf_keras.src.saving.serialization_lib import SafeModeScope, in_safe_mode  # noqa: E402

_point_package_at_keras_2()
_hide_broken_scann()

_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Register a class with Keras as `tfmtl>ClassName`, so that saved configurations find it again.

    Raises:
        ValueError: if another module has registered a class of the name, which Keras would silently replace.
    """
    known = keras.saving.get_registered_object(f"tfmtl>{cls.__name__}")
    if known is not None and known.__module__ != cls.__module__:
        raise ValueError(f"{known.__module__} has a {cls.__name__} already; name that of {cls.__module__} otherwise.")
    decorate: Callable[[_Class], _Class] = keras.saving.register_keras_serializable(package="tfmtl")
    return decorate(cls)


def writes_keras_folder() -> bool:
    """Return whether Keras writes a model in its SavedModel format at the moment."""
    return bool(_saved_model.in_tf_saved_model_scope())


def spawn(initializer: Any, index: int, seed: int = 0) -> Any:
    """Return a seeded initializer of the same kind for sibling `index`, never the same object twice.

    One initializer object given to N experts makes N identical experts, and a clone keeps the seed; here every index
    gets a seed of its own, derived from the initializer's seed or, if it has none, from `seed`.

    Args:
        initializer: anything `keras.initializers.get` accepts.
        index: position of the sibling, from 0.
        seed: base seed of an initializer without one; nothing is read from the global random state.

    Example:
        >>> first, second = (spawn(keras.initializers.GlorotUniform(seed=1), i) for i in range(2))
        >>> bool(tf.reduce_all(first([2, 2]) == second([2, 2])))
        False
    """
    original = keras.initializers.get(initializer)
    config = original.get_config()
    if "seed" in config:
        base = seed if config["seed"] is None else int(config["seed"])
        config["seed"] = (base + 7919 * index) % 2**31
    return type(original).from_config(config)


def seed_of(name: str, seed: int) -> int:
    """Return a seed for the part called `name` of something seeded with `seed`, the same in every process."""
    return (zlib.crc32(name.encode()) + 1_000_003 * seed) % 2**31


def traced(function: Callable[..., Any], **options: Any) -> Any:
    """Return `tf.function(function, **options)` without a warning of many traces.

    TensorFlow counts the traces of a line of code, so that five models in one process, each traced once, look like one
    function that is traced for every call.
    """
    return without_trace_warning(tf.function(function, **options))


def without_trace_warning(function: Any) -> Any:
    """Switch off the warning of many traces of a traced function, and return the function; see `traced`."""
    if isinstance(function, tf.types.experimental.PolymorphicFunction):
        function._omit_frequent_tracing_warning = True  # TensorFlow has no public name for it
    return function


__all__ = [
    "SafeModeScope",
    "in_safe_mode",
    "keras",
    "register",
    "seed_of",
    "spawn",
    "tf",
    "traced",
    "without_trace_warning",
]
