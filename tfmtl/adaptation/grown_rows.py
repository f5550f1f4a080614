"""Where the rows of larger tables come from: networks and optimisers whose tables have more rows than before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.adaptation.graph import inputs_before
from tfmtl.data import Schema
from tfmtl.data.preprocessor import UNKNOWN
from tfmtl.layers import CompressedEmbedding
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.models.optimizer_parts import exceptions_of, parts_of, set_exceptions


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where each row of a larger table comes from.

    Attributes:
        sources: row of the smaller table [n]; that of the unknown value for a new row.
        new: whether the row is new [n].
    """

    sources: np.ndarray
    new: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]]) -> Rows:
        """Return the rows of vocabularies one below the other, each with its size before and after.

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
        """Return an optimiser's slot: old rows as they were, new rows as the optimiser starts."""
        return np.where(self.new.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, before[self.sources])


def grow_network(network: keras.Model, schema: Schema, sizes: Mapping[str, int]) -> tuple[keras.Model, dict[str, Rows]]:
    """Return a copy of a network with larger tables, and the rows of each table by the name of its layer.

    A new value's row begins as that of the unknown value, as which the model took it before: growth changes no
    prediction, not even of the new values.

    Args:
        network: functional network over the schema's encoded features, not changed.
        schema: tells the vocabulary of each feature.
        sizes: new number of indices by vocabulary.

    Raises:
        ValueError: if a compact table would have to grow, whose rows do not stand for one index each.
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
                f"The compact table {layer.name!r} cannot grow; leave room for new values before tables are shrunk.",
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
    """Return the vocabulary whose indices a table embeds."""
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
    """Return an optimiser with the same settings and state for variables of which some have more rows.

    Args:
        optimizer: built for `variables`, or not at all; not changed.
        variables, grown: the variables before and after, in one order.
        rows: of those that have grown, by place.

    Cost: passes over all slots.
    """
    copy = type(optimizer).from_config(optimizer.get_config())
    set_exceptions(copy, grown, exceptions_of(optimizer, variables))
    if not any(getattr(part, "_built", False) for part in parts_of(optimizer)):
        return copy
    copy.build(grown)
    counters: dict[int, tf.Variable] = {}
    for old, new in zip(parts_of(optimizer), parts_of(copy), strict=True):
        before, after = getattr(old, "row_steps", {}), getattr(new, "row_steps", {})
        counters |= {id(steps): steps for steps in (*before.values(), *after.values())}
        _keep_row_steps(int(old.iterations), before, after, [r for _, r in _own(new, grown, rows)])
    pairs = [[v for v in part.variables if id(v) not in counters] for part in (optimizer, copy)]
    for slot, fresh in zip(*pairs, strict=True):
        if slot.shape == fresh.shape:
            fresh.assign(slot)
        else:
            fresh.assign(_rows_of(slot, fresh, grown, rows).slot(slot.numpy(), fresh.numpy()))
    return copy


def _own(optimizer: Any, variables: Sequence[Any], rows: Mapping[int, Rows]) -> list[tuple[Any, Rows | None]]:
    """Return the variables an optimiser was built for, in its order, with their rows where they have grown."""
    places = getattr(optimizer, "_index_dict", {})
    known = {optimizer._var_key(v): (v, rows.get(i)) for i, v in enumerate(variables)} if places else {}
    return [known[key] for key in sorted(places, key=places.__getitem__)]


def _keep_row_steps(
    iterations: int, before: Mapping[int, Any], after: Mapping[int, Any], rows: Sequence[Rows | None]
) -> None:
    """Copy the counters of rows; of a table that was small until now every row was touched in every step."""
    for place, steps in after.items():
        grown = rows[place]
        if place in before:
            old = before[place].numpy()
        else:
            old = np.tile(np.asarray([[iterations, 0]]), [len(steps) if grown is None else grown.before, 1])
        steps.assign(old if grown is None else grown.slot(old, steps.numpy()))


def _rows_of(slot: Any, fresh: Any, variables: Sequence[Any], rows: Mapping[int, Rows]) -> Rows:
    """Return the rows of the variable that a slot belongs to: those of its sizes, and of several those of its name."""
    sizes = slot.shape[0], fresh.shape[0]
    fitting = {variables[i]._shared_name: r for i, r in rows.items() if (r.before, len(r.new)) == sizes}
    named = [r for name, r in fitting.items() if fresh.name.split(":")[0].endswith(f"/{name}")]
    require(bool(fitting), f"Slot {slot.name!r} of the optimiser belongs to no table that has grown.", shape=slot.shape)
    return (named or list(fitting.values()))[0]
