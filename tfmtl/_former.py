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


def whole_schema(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the schema in a model card; cards of earlier versions hold only the features.

    Args:
        described: the configuration, or the role, kind and arguments of each feature by its name.

    Returns:
        A copy of the configuration. If only the features were given, it has no labels, and `candidate_id` is "" unless
        one candidate feature alone can be the id.
    """
    if not all(isinstance(value, Mapping) and "role" in value for value in described.values()):
        return dict(described)
    roles: dict[str, list[dict[str, Any]]] = {"query": [], "candidate": [], "context": []}
    for name, value in described.items():
        roles[value["role"]].append({"name": name, **{k: v for k, v in value.items() if k != "role"}})
    users, items = ([f["name"] for f in roles[r] if f["kind"] == "Categorical"] for r in ("query", "candidate"))
    return {**roles, "query_id": (users or [""])[0], "candidate_id": items[0] if len(items) == 1 else ""}
