"""Argument checks with one message form: the fault, its location, the received value, the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def require(condition: bool, rule: str, **received: Any) -> None:
    """Raise `ValueError` with `rule` and the received arguments unless `condition` holds.

    Example:
        >>> require(0 > 1, "`units` must be a positive integer.", units=0)
        Traceback (most recent call last):
        ...
        ValueError: `units` must be a positive integer. Received: units=0.
    """
    if not condition:
        raise ValueError(_with_received(rule, received))


def require_type(value: Any, types: type | tuple[type, ...], name: str, cure: str = "") -> None:
    """Raise `TypeError` unless `value` is an instance of `types`."""
    if not isinstance(value, types):
        allowed = " or ".join(t.__name__ for t in (types if isinstance(types, tuple) else (types,)))
        raise TypeError(_with_received(f"`{name}` must be {allowed}.", {name: value}) + (f" {cure}" if cure else ""))


def require_positive_int(**arguments: Any) -> None:
    """Raise `ValueError` unless every argument is an integer above zero."""
    for name, value in arguments.items():
        valid = isinstance(value, int) and not isinstance(value, bool) and value > 0
        require(valid, f"`{name}` must be a positive integer.", **{name: value})


def require_fraction(**arguments: Any) -> None:
    """Raise `ValueError` unless every argument lies in [0, 1)."""
    for name, value in arguments.items():
        valid = isinstance(value, int | float) and 0 <= value < 1
        require(valid, f"`{name}` must be a number in [0, 1).", **{name: value})


def require_several(**arguments: Any) -> None:
    """Raise `ValueError` if an argument that takes several names is one string, which would be read letter by letter.

    Example:
        >>> require_several(tasks="rating")
        Traceback (most recent call last):
        ...
        ValueError: `tasks` must be a list, not one string; write ['rating']. Received: tasks='rating'.
    """
    for name, value in arguments.items():
        alone = isinstance(value, str | bytes)
        require(not alone, f"`{name}` must be a list, not one string; write [{_short(value)}].", **{name: value})


def require_known(given: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    """Raise `ValueError` naming each of `given` that is not in `known`, with the closest known name."""
    alone = isinstance(given, str | bytes)
    require(not alone, f"The {what} names for {where} must be a list, not one string.", names=given)
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), [str(k) for k in known], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown {what} {unknown} in {where}; known: {known}.{hint}")


def _with_received(rule: str, received: Mapping[str, Any]) -> str:
    if not received:
        return rule
    values = ", ".join(f"{name}={_short(value)}" for name, value in received.items())
    return f"{rule} Received: {values}."


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
