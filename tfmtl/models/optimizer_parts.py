"""Nested optimisers, and their variables without weight decay, which no optimiser's config holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import keras


def parts_of(optimizer: Any) -> list[Any]:
    """Return an optimiser and those inside it."""
    inside = [getattr(optimizer, name, None) for name in ("inner_optimizer", "embeddings", "dense")]
    found = [part for part in inside if isinstance(part, keras.optimizers.Optimizer)]
    return [optimizer, *(deeper for part in found for deeper in parts_of(part))]


def exceptions_of(optimizer: Any, variables: Sequence[Any]) -> list[dict[str, Any] | None]:
    """Return the variables without weight decay of nested optimisers, by position or part of the name.

    Save them beside the optimiser's config, which does not hold them.
    """
    found: list[dict[str, Any] | None] = []
    for part in parts_of(optimizer):
        keys = getattr(part, "_exclude_from_weight_decay", None)
        names = getattr(part, "_exclude_from_weight_decay_names", None)
        positions = [i for i, v in enumerate(variables) if part._var_key(v) in (keys or ())] if keys else []
        found.append(None if keys is None and names is None else {"places": positions, "names": list(names or [])})
    return found


def set_exceptions(optimizer: Any, variables: Sequence[Any], exceptions: Sequence[Mapping[str, Any] | None]) -> None:
    """Exclude variables from the weight decay of an optimiser that is not built yet."""
    for part, given in zip(parts_of(optimizer), exceptions, strict=True):
        if given is not None:
            part.exclude_from_weight_decay([variables[i] for i in given["places"]], given["names"])
