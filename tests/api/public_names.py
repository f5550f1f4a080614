"""The public names, defaults and search spaces; `python tests/api/public_names.py` rewrites the golden files.

A name is public when the `__init__` of its package imports it as itself:
`from tfmtl.data.schema import Schema as Schema`. A default is a promise, too: a user who omits the argument would get
another model after its change.
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
import pkgutil
import types
from collections.abc import Iterator
from typing import Any

import tfmtl
from tfmtl.tuning import sample_regularization
from tfmtl.tuning._keras_tuner import keras_tuner
from tfmtl.tuning.search import _FURTHER

FOLDER = pathlib.Path(__file__).parent


def golden() -> dict[str, list[str]]:
    """Return the lines of each golden file."""
    return {
        "public_names.txt": public_names(),
        "defaults.txt": list(defaults()),
        "search_spaces.txt": sorted(set(search_spaces())),
    }


def public_names() -> list[str]:
    """Return `tfmtl.Name` and `tfmtl.package.Name` of every public name, sorted."""
    flagships = [f"tfmtl.{name}" for name in tfmtl.__all__]
    return sorted(
        [*flagships, *(f"tfmtl.{package}.{name}" for package in tfmtl._PACKAGES for name in offered(package))]
    )


def offered(package: str) -> list[str]:
    """Return the public names of one package."""
    members = vars(importlib.import_module(f"tfmtl.{package}")).items()
    hidden = (types.ModuleType, type(annotations))
    return [name for name, value in members if not name.startswith("_") and not isinstance(value, hidden)]


def defaults() -> Iterator[str]:
    """Yield `tfmtl.package.Name argument=default ...` of public callables and their methods; None is left out."""
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if module == "tfmtl" or not getattr(value, "__module__", "").startswith("tfmtl"):  # a flagship has a package
            continue
        verbs = vars(value).items() if inspect.isclass(value) else ()
        for full, part in [(name, value), *((f"{name}.{verb}", m) for verb, m in verbs if not verb.startswith("_"))]:
            given = [f"{key}={_shown(default)}" for key, default in _defaults_of(getattr(part, "__func__", part))]
            if given:
                yield " ".join([full, *given])


def _defaults_of(value: Any) -> list[tuple[str, Any]]:
    exception = inspect.isclass(value) and issubclass(value, BaseException)
    if exception or not (inspect.isclass(value) or inspect.isfunction(value)):
        return []
    found: dict[str, Any] = {}
    for parameter in _parameters(value):
        found.setdefault(parameter.name, parameter.default)
    return [(name, each) for name, each in found.items() if each is not inspect.Parameter.empty and each is not None]


def _parameters(value: Any) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a callable, and those of base classes that `**kwargs` of a constructor passes on to."""
    parameters = inspect.signature(value).parameters.values()
    yield from parameters
    for base in value.__mro__[1:] if inspect.isclass(value) else ():
        if not any(p.kind is p.VAR_KEYWORD for p in parameters) or not base.__module__.startswith("tfmtl"):
            return
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())
            yield from parameters


def _shown(default: Any) -> str:
    """Return a literal as Python writes it, and the name of a function or of the class of any other object."""
    if isinstance(default, bool | int | float | str | tuple):
        return repr(default).replace(" ", "")
    return f"<{getattr(default, '__name__', type(default).__name__)}>"


def search_spaces() -> Iterator[str]:
    """Yield `Class: hyperparameter, values, default` of every class that a tuner searches, and of a regularisation."""
    for module in pkgutil.walk_packages(tfmtl.__path__, "tfmtl."):
        members = {} if module.name.endswith("__main__") else vars(importlib.import_module(module.name))
        for name, kind in members.items():
            if inspect.isclass(kind) and kind.__module__ == module.name and hasattr(kind, "search_space"):
                hp = keras_tuner.HyperParameters()
                kind.search_space(hp)
                yield from (f"{name}: {each!r}" for each in hp.space)
    hp = keras_tuner.HyperParameters()
    sample_regularization(hp, further=_FURTHER)
    yield from (f"sample_regularization: {each!r}" for each in hp.space)


if __name__ == "__main__":
    for file, lines in golden().items():
        (FOLDER / file).write_text("\n".join(lines) + "\n")
