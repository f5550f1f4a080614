"""Copies of a network and its optimizer with more rows in the embedding tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._identity import UNKNOWN
from tfmtl._keras import keras, tf
from tfmtl.adaptation.graph import inputs_before
from tfmtl.data import Schema
from tfmtl.layers import CompressedEmbedding
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.models.optimizer_parts import (
    built_for,
    exceptions_of,
    is_built,
    is_legacy,
    name_in_slots,
    parts_of,
    set_exceptions,
    variables_of,
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The source of each row of a larger table.

    Attributes:
        sources: row of the smaller table [n]; for a new row the one of the unknown value.
        new: whether the row is new [n].
    """

    sources: np.ndarray
    new: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]]) -> Rows:
        """Return the rows of a table of concatenated vocabularies, given the size of each before and after.

        Example:
            >>> Rows.of([(2, 3), (2, 2)]).sources.tolist()
            [0, 1, 1, 2, 3]
        """
        firsts = np.cumsum([0, *(before for before, _ in sizes)])
        new = np.concatenate([np.arange(after) >= before for before, after in sizes])
        rows = [np.where(np.arange(n) < m, np.arange(n), UNKNOWN) + f for (m, n), f in zip(sizes, firsts, strict=False)]
        return cls(np.concatenate(rows), new)

    @property
    def before(self) -> int:
        """The number of rows of the smaller table."""
        return int((~self.new).sum())

    def slot(self, before: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Return an optimizer's slot with the values of `before` in old rows and of `fresh` in new rows."""
        return np.where(self.new.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, before[self.sources])


def grow_network(network: keras.Model, schema: Schema, sizes: Mapping[str, int]) -> tuple[keras.Model, dict[str, Rows]]:
    """Return a copy of a network with larger tables, and the rows of each table by the name of its layer.

    The row of a new value is a copy of the row of the unknown value, which the model used for it before: growth changes
    no prediction, not even those of new values.

    Args:
        network: functional network over the schema's encoded features, not changed.
        schema: contains the vocabulary of each feature.
        sizes: new number of indices by vocabulary.

    Raises:
        ValueError: if a compact table would have to grow, since its rows are shared by several indices.
    """
    configs: dict[str, dict[str, Any]] = {}
    rows: dict[str, Rows] = {}
    for layer in network.layers:
        if isinstance(layer, JoinedEmbedding):
            new = {name: sizes[name] for name in layer.sizes}
            pairs = [(layer.sizes[name], size) for name, size in new.items()]
            change: dict[str, Any] = {"sizes": new}
        elif isinstance(layer, keras.layers.Embedding | CompressedEmbedding):
            new_size = sizes[_vocabulary_of(layer, schema)]
            pairs, change = [(layer.input_dim, new_size)], {"input_dim": new_size}
        else:
            continue
        if any(before != after for before, after in pairs):
            require(
                not isinstance(layer, CompressedEmbedding),
                f"The compact table {layer.name!r} cannot grow; reserve rows for new values before tables are shrunk.",
            )
            configs[layer.name], rows[layer.name] = {**layer.get_config(), **change}, Rows.of(pairs)

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(configs.get(layer.name, layer.get_config()))

    grown = keras.models.clone_model(network, clone_function=copied)
    for layer in network.layers:
        values = layer.get_weights()
        if layer.name in rows:
            values = [value[rows[layer.name].sources] for value in values]
        grown.get_layer(layer.name).set_weights(values)
    return grown, rows


def _vocabulary_of(layer: keras.layers.Layer, schema: Schema) -> str:
    """Return the vocabulary of the indices that a table embeds."""
    names = {name for name in inputs_before(layer.get_input_at(0)) if name in schema.features}
    vocabularies = {schema.features[name].vocabulary for name in names}
    require(
        len(vocabularies) == 1,
        f"Table {layer.name!r} embeds features of the vocabularies {sorted(map(str, vocabularies))}; only a table of a "
        "single vocabulary can grow.",
    )
    return str(vocabularies.pop())


def grow_optimizer(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[tf.Variable],
    grown: Sequence[tf.Variable],
    rows: Mapping[int, Rows],
) -> keras.optimizers.Optimizer:
    """Return an optimizer with the same settings and state for variables of which some have more rows.

    Args:
        optimizer: built for `variables`, or not built; not changed.
        variables, grown: the variables before and after, in the same order.
        rows: the rows of the variables that have grown, by their index in `variables`.

    Cost: one pass over all slots.
    """
    copy = fresh_copy(optimizer)
    set_exceptions(copy, grown, exceptions_of(optimizer, variables))
    if not is_built(optimizer):
        return copy
    if is_legacy(optimizer):
        _keep_legacy_slots((optimizer, copy), variables, grown, rows)
        return copy
    copy.build(grown)
    counters: dict[int, tf.Variable] = {}
    for old, new in zip(parts_of(optimizer), parts_of(copy), strict=True):
        before, after = getattr(old, "row_steps", {}), getattr(new, "row_steps", {})
        counters |= {id(steps): steps for steps in (*before.values(), *after.values())}
        _keep_row_steps(int(old.iterations), before, after, [rows.get(i) for i in built_for(new, grown)])
    pairs = [[v for v in part.variables if id(v) not in counters] for part in (optimizer, copy)]
    for slot, fresh in zip(*pairs, strict=True):
        if slot.shape == fresh.shape:
            fresh.assign(slot)
        else:
            fresh.assign(_rows_of(slot, fresh, grown, rows).slot(slot.numpy(), fresh.numpy()))
    return copy


def _keep_legacy_slots(
    optimizers: tuple[Any, Any],
    variables: Sequence[tf.Variable],
    grown: Sequence[tf.Variable],
    rows: Mapping[int, Rows],
) -> None:
    """Copy the state of the first of two legacy optimizers, which is built for `variables`, to the second."""
    old, new = optimizers
    pairs = [*zip(variables_of(old, variables), variables_of(new, grown), strict=True)]
    slots = len(old.get_slot_names())
    first = len(pairs) - slots * len(variables)
    for position, (slot, fresh) in enumerate(pairs):
        index = (position - first) // slots if position >= first else -1
        fresh.assign(rows[index].slot(slot.numpy(), fresh.numpy()) if index in rows else slot)


def _keep_row_steps(
    iterations: int, before: Mapping[int, Any], after: Mapping[int, Any], rows: Sequence[Rows | None]
) -> None:
    """Copy the counters of rows; a table without counters, small until now, was updated as a whole in every step."""
    for index, steps in after.items():
        grown = rows[index]
        if index in before:
            old = before[index].numpy()
        else:
            old = np.tile(np.asarray([[iterations, 0]]), [len(steps) if grown is None else grown.before, 1])
        steps.assign(old if grown is None else grown.slot(old, steps.numpy()))


def _rows_of(slot: Any, fresh: Any, variables: Sequence[Any], rows: Mapping[int, Rows]) -> Rows:
    """Return the rows of the variable that a slot belongs to, found by the slot's sizes and then by its name."""
    sizes = slot.shape[0], fresh.shape[0]
    fitting = {name_in_slots(variables[i]): r for i, r in rows.items() if (r.before, len(r.new)) == sizes}
    named = [r for name, r in fitting.items() if fresh.name.split(":")[0].endswith(f"/{name}")]
    require(bool(fitting), f"Slot {slot.name!r} of the optimizer belongs to no table that has grown.", shape=slot.shape)
    return (named or list(fitting.values()))[0]
