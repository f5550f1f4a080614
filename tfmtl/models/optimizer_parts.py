"""Optimizers inside optimizers, and Keras' private state of them: slots, and variables without weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfmtl._keras import keras


class _Undecayed(NamedTuple):
    """Variables of one optimizer without weight decay, with the keys of a saved model."""

    places: list[int]
    names: list[str]


def parts_of(optimizer: Any) -> list[Any]:
    """Return an optimizer and those inside it."""
    inside = [getattr(optimizer, name, None) for name in ("inner_optimizer", "embeddings", "dense")]
    found = [part for part in inside if isinstance(part, keras.optimizers.Optimizer)]
    return [optimizer, *(deeper for part in found for deeper in parts_of(part))]


def is_built(optimizer: Any) -> bool:
    """Return whether an optimizer, or one inside it, has created its slots."""
    if is_legacy(optimizer):
        return bool(optimizer.variables())
    return any(getattr(part, "_built", False) for part in parts_of(optimizer))


def is_legacy(optimizer: Any) -> bool:
    """Return whether an optimizer is one of `keras.optimizers.legacy`."""
    return isinstance(optimizer, keras.optimizers.legacy.Optimizer)


def variables_of(optimizer: Any, variables: Sequence[Any]) -> list[Any]:
    """Return the variables of an optimizer, after creating its slots for all of `variables`.

    Legacy optimizers create a slot at the first gradient of its variable. Their slots are last here, those of each
    variable together, so that the order does not depend on the training.
    """
    if not is_legacy(optimizer):
        optimizer.build(variables)
        return list(optimizer.variables)
    optimizer._create_all_weights(variables)
    slots = [optimizer.get_slot(variable, name) for variable in variables for name in optimizer.get_slot_names()]
    known = {id(slot) for slot in slots}
    return [*(variable for variable in optimizer.variables() if id(variable) not in known), *slots]


def built_for(optimizer: Any, variables: Sequence[Any]) -> list[int]:
    """Return the indices among `variables` of those that an optimizer was built for, in the optimizer's own order."""
    order = getattr(optimizer, "_index_dict", {})
    keys = {optimizer._var_key(v): i for i, v in enumerate(variables)} if order else {}
    return [keys[key] for key in sorted(order, key=order.__getitem__)]


def covers(optimizer: Any, variables: Sequence[Any]) -> bool:
    """Return whether an optimizer is not built yet or was built for all of `variables`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    order = getattr(inner, "_index_dict", None)
    return not order or all(inner._var_key(v) in order for v in variables)


def name_in_slots(variable: Any) -> str:
    """Return the name of a variable inside the names of its slots."""
    return str(variable._shared_name)


def exceptions_of(optimizer: Any, variables: Sequence[Any]) -> list[dict[str, Any] | None]:
    """Return the variables without weight decay, for each optimizer that `parts_of` returns.

    Save them beside the optimizer's config, which does not hold them.

    Returns:
        For each optimizer, the positions of its variables as `places` and parts of names as `names`, or None.
    """
    found: list[dict[str, Any] | None] = []
    for part in parts_of(optimizer):
        keys = getattr(part, "_exclude_from_weight_decay", None)
        names = getattr(part, "_exclude_from_weight_decay_names", None)
        positions = [i for i, v in enumerate(variables) if part._var_key(v) in (keys or ())] if keys else []
        found.append(None if keys is None and names is None else _Undecayed(positions, list(names or []))._asdict())
    return found


def set_exceptions(optimizer: Any, variables: Sequence[Any], exceptions: Sequence[Mapping[str, Any] | None]) -> None:
    """Exclude variables from the weight decay of an optimizer that is not built yet; see `exceptions_of`."""
    for part, given in zip(parts_of(optimizer), exceptions, strict=True):
        if given is not None:
            undecayed = _Undecayed(**given)
            part.exclude_from_weight_decay([variables[i] for i in undecayed.places], undecayed.names)
