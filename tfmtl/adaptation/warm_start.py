"""Warm start from a model with other vocabularies, features or tasks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from tfmtl._checks import require, require_type
from tfmtl._identity import FIRST, MISSING, UNKNOWN
from tfmtl._keras import keras, tf
from tfmtl.adaptation.columns import Columns, axes, task_axes, weights_of
from tfmtl.adaptation.graph import layer_of
from tfmtl.adaptation.tables import EmbeddingTable, tables_of
from tfmtl.layers import MultiTaskLayer
from tfmtl.models import MultiTaskModel, load_model
from tfmtl.models.graph import unwrapped
from tfmtl.types import Column

NewIds = Literal["mean", "unknown", "initial"]
NewHeads = Literal["zero", "initial"]


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The report of `warm_start`: the weights that were taken over from the other model.

    Attributes:
        copied: weights taken over as a whole, by `layer/weight`.
        aligned: weights and tables taken over in part: (rows or numbers taken over, all of them).
        fresh: weights left at their initial values, or at zero.
        unused: layers of the other model without a counterpart.
    """

    copied: tuple[str, ...]
    aligned: Mapping[str, tuple[int, int]]
    fresh: tuple[str, ...]
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one line per kind of weights."""
        parts = [f"{name} ({taken:,} of {total:,})" for name, (taken, total) in self.aligned.items()]
        lines = {"copied": self.copied, "aligned": parts, "fresh": self.fresh, "unused": self.unused}
        return "\n".join(f"{kind}: {', '.join(names) or 'nothing'}" for kind, names in lines.items())


def warm_start(
    model: MultiTaskModel, from_model: MultiTaskModel | str | os.PathLike[str], *,
    new_ids: NewIds = "mean", new_heads: NewHeads = "zero",
) -> WarmStart:  # fmt: skip
    """Warm start: copy the weights of a trained model with another schema, other vocabularies or other tasks.

    Use it for transfer to a new market or task, or after a change of the schema, instead of training from scratch.
    - Tables: rows by id through both vocabularies, also between separate, joined and compressed tables.
    - Kernels: by layer name. If the features of both models differ, the rows of a kernel follow the columns that they
      read. The trunk is found by its class, and its weights for a task follow the task.
    - Heads: by task name. `new_heads` sets the last layer of a new ranking task.

    Weights that do not fit keep their initial values and are listed in the report. The models may share only a part of
    their features. A layer of your own takes part if it implements `tfmtl.types.HasColumnSources`.

    Args:
        model: the model to train; changed in place.
        from_model: the trained model, not changed, or a folder of `tfmtl.models.save_model`.
        new_ids: rows of ids that are not in the other model: the mean of its known ids, its row of unknown ids, or
            their own initial values; docs/lifecycle.md compares them after training.
        new_heads: kernels of the last layers of tasks that are not in the other model. Random kernels contradict the
            trained layers below, and few labels do not correct that; with zeros the first predictions are neutral.

    Returns:
        The report. The state of optimizer, balancer and metrics is not taken over.

    Raises:
        TypeError: if either is no `MultiTaskModel`.
        ValueError: if the models are one, an argument is none of its values, or the models have nothing in common.

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data import Categorical, Label, Preprocessor, Schema
        >>> from tfmtl.models import build_network
        >>> from tfmtl.tasks import Regression
        >>> def model_of(users):
        ...     schema = Schema([Categorical("user")], labels=[Label("stars")])
        ...     preprocessor = Preprocessor.fit(schema, pd.DataFrame({"user": users, "stars": range(len(users))}))
        ...     network = build_network(preprocessor, [Regression("stars")], embedding_dim=2, tower_units=[2])
        ...     return MultiTaskModel(network, [Regression("stars")], preprocessor)
        >>> report = warm_start(model_of(["b", "c", "d"]), model_of(["a", "b"]))
        >>> dict(report.aligned), report.fresh
        ({'user': (1, 3)}, ())

    Reference: Kumar et al., ICLR 2022, https://arxiv.org/abs/2202.10054 (the effect of random heads on layers below).
    Numbers are standardized by the new model's statistics, and regressions are scaled by its labels.

    Cost: one pass over the weights; a second copy of each layer with different inputs.
    """
    require(new_ids in get_args(NewIds), f"`new_ids` must be one of {get_args(NewIds)}.", new_ids=new_ids)
    require(new_heads in get_args(NewHeads), f"`new_heads` must be one of {get_args(NewHeads)}.", new_heads=new_heads)
    transfer = _Transfer(model, _source(from_model, model))
    transfer.tables(new_ids)
    transfer.layers()
    if new_heads == "zero":
        transfer.empty_heads()
    report = transfer.report()
    found = bool(report.copied or report.aligned)
    require(found, "The models have no table and no layer in common.", layers=list(report.unused))
    return report


def _source(given: Any, model: MultiTaskModel) -> MultiTaskModel:
    require_type(model, MultiTaskModel, "model")
    found = load_model(given) if isinstance(given, str | os.PathLike) else given
    require_type(found, MultiTaskModel, "from_model")
    require(found is not model, "A model cannot be warm-started from itself; build another one.")
    return found


class _Transfer:
    """The steps of one warm start, and its report so far."""

    def __init__(self, target: MultiTaskModel, source: MultiTaskModel) -> None:
        self.target, self.source = target, source
        self.to, self.of = (Columns(m.network, list(m.schema.vocabularies)) for m in (target, source))
        self.copied: list[str] = []
        self.aligned: dict[str, tuple[int, int]] = {}
        self.fresh: list[str] = []
        self.done: set[int] = set()  # ids of layers with tables

    def report(self) -> WarmStart:
        kept = {identity for identity in self.to.layers if identity in self.of.layers}
        unused = [
            layer.name
            for identity, layer in self.of.layers.items()
            if identity not in kept
            and any(v.trainable for v in layer.weights)
            and id(unwrapped(layer)) not in self.done
        ]
        return WarmStart(tuple(self.copied), dict(self.aligned), tuple(self.fresh), tuple(unused))

    def tables(self, new_ids: NewIds) -> None:
        """Take over the rows of the vocabularies that both models have."""
        theirs = tables_of(self.source.network, self.source.schema.vocabularies)
        for key, table in tables_of(self.target.network, self.target.schema.vocabularies).items():
            self.done.add(id(table.layer))
            name = "/".join(part for part in key if part)
            # If the other model has no such table for one task alone, take the one that its tasks share.
            other = theirs.get(key) or theirs.get(("", table.vocabulary))
            rows = None if other is None else self._rows(table, other, new_ids)
            if rows is None:
                self.fresh.append(name)
                continue
            values, taken = rows
            table.write(values)
            self.aligned[name] = (taken, table.size - FIRST)
        self.done |= {id(table.layer) for table in theirs.values()}

    def _rows(self, table: EmbeddingTable, other: EmbeddingTable, new_ids: NewIds) -> tuple[np.ndarray, int] | None:
        """Return the rows of a table and the number of ids taken over from another one, or None if widths differ."""
        values, known = table.read(), other.read()
        if values.shape[1] != known.shape[1]:
            return None
        ours, theirs = (m.preprocessor.vocabulary(table.vocabulary).astype(str) for m in (self.target, self.source))
        _, here, there = np.intersect1d(ours, theirs, return_indices=True)
        if new_ids != "initial" and len(theirs):
            values[FIRST:] = known[UNKNOWN] if new_ids == "unknown" else known[FIRST:].mean(axis=0)
        values[[MISSING, UNKNOWN]] = known[[MISSING, UNKNOWN]]
        values[FIRST + here] = known[FIRST + there]
        return values, len(here)

    def layers(self) -> None:
        """Take over the other layers that both networks have."""
        for identity, layer in self.to.layers.items():
            if id(unwrapped(layer)) in self.done or not layer.weights:
                continue
            other = self.of.layers.get(identity)
            if other is None or type(unwrapped(other)) is not type(unwrapped(layer)):
                self.fresh += [f"{layer.name}/{n}" for n, v in weights_of(unwrapped(layer)).items() if v.trainable]
            else:
                self._layer(layer, other)

    def empty_heads(self) -> None:
        """Set the kernels of the last layers of new tasks to zero."""
        known = {task.name for task in self.source.tasks}
        outputs = self.target.network.output
        for name in [task.name for task in self.target.tasks if task.name not in known]:
            if isinstance(outputs[name], Mapping):
                continue  # the product of two towers of zeros has no gradient
            last = layer_of(outputs[name])
            layer = unwrapped(last)
            if isinstance(layer, keras.layers.Dense) and f"{last.name}/kernel" in self.fresh:
                layer.kernel.assign(tf.zeros_like(layer.kernel))

    def _layer(self, layer: keras.layers.Layer, other: keras.layers.Layer) -> None:
        ours, theirs = _axis_columns(self.to, layer, self.of, other), _axis_columns(self.of, other, self.to, layer)
        known = weights_of(unwrapped(other))
        for name, weight in weights_of(unwrapped(layer)).items():
            source = known.get(name)
            here, there = ours[name], theirs.get(name)
            known_axes = source is not None and here is not None and there is not None
            taken = _lay_over(weight, source, here or {}, there or {}) if known_axes else 0
            total = int(np.prod(weight.shape))
            if not weight.trainable:
                continue
            if taken == total:
                self.copied.append(f"{layer.name}/{name}")
            elif taken:
                self.aligned[f"{layer.name}/{name}"] = (taken, total)
            else:
                self.fresh.append(f"{layer.name}/{name}")


AxisColumns = dict[int, list[Column]]


def _axis_columns(
    columns: Columns, layer: keras.layers.Layer, others: Columns, other: keras.layers.Layer
) -> dict[str, AxisColumns | None]:
    """Return the columns along the axes of each weight of a layer, for axes that differ from those of another network.

    The result is None for a weight if its columns cannot be found.
    """
    own, node, inputs = unwrapped(layer), columns.nodes[layer.name], columns.inputs_of(layer)
    names = weights_of(own)
    found: dict[str, AxisColumns | None] = {name: {} for name in names}
    if inputs != others.inputs_of(other):
        found = dict(zip(names, axes(own, node, inputs), strict=True))
    tasks = getattr(unwrapped(other), "task_names", None)
    if isinstance(own, MultiTaskLayer) and own.task_names != tasks:
        of_tasks = task_axes(own, node)
        for name, columns_of in found.items():
            extra = None if of_tasks is None else of_tasks.get(name)
            found[name] = None if extra is None or columns_of is None else {**columns_of, **extra}
    return found


def _lay_over(weight: tf.Variable, source: tf.Variable, ours: AxisColumns, theirs: AxisColumns) -> int:
    """Copy the common part of two weights and return the number of copied values."""
    if weight.shape.rank != source.shape.rank:
        return 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for axis in range(weight.shape.rank):
        if axis in ours and axis in theirs:
            pairs.append(_common(ours[axis], theirs[axis]))
        elif weight.shape[axis] == source.shape[axis]:
            pairs.append((np.arange(weight.shape[axis]),) * 2)
        else:
            return 0
    values, known = np.array(weight.numpy()), np.array(source.numpy())  # scalars become arrays, too
    values[np.ix_(*(here for here, _ in pairs))] = known[np.ix_(*(there for _, there in pairs))]
    weight.assign(values)
    return int(np.prod([len(here) for here, _ in pairs]))


def _common(ours: Sequence[Column], theirs: Sequence[Column]) -> tuple[np.ndarray, np.ndarray]:
    index = {column: i for i, column in enumerate(theirs)}
    both = [(i, index[column]) for i, column in enumerate(ours) if column in index]
    return np.array([i for i, _ in both], int), np.array([j for _, j in both], int)
