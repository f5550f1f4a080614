"""Names that saved files of earlier versions hold, translated when the files are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ARGUMENTS = {"normalise": "normalize"}
_VALUES = {"EpochTable": "PiecewiseConstantWeight", "tfmtl>EpochTable": "tfmtl>PiecewiseConstantWeight"}
_VALUES_OF = {"transform": {"standardise": "standardize"}}


def current(saved: Any) -> Any:
    """Return a copy of a saved configuration with today's names of classes, arguments and options.

    Args:
        saved: mappings, lists and plain values, as JSON gives them.

    Example:
        >>> current({"class_name": "MGDA", "config": {"normalise": "l2"}})
        {'class_name': 'MGDA', 'config': {'normalize': 'l2'}}
    """
    if isinstance(saved, Mapping):
        return {_ARGUMENTS.get(key, key): _value(key, current(value)) for key, value in saved.items()}
    if isinstance(saved, list):
        return [current(value) for value in saved]
    return saved


def _value(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    known = _VALUES if key in ("class_name", "registered_name") else _VALUES_OF.get(key, {})
    return known.get(value, value)
