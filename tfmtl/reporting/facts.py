"""Sections of facts: the model, the data, its size and speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._keras import tf, traced
from tfmtl.data import to_columns
from tfmtl.models import MultiTaskModel
from tfmtl.reporting.inputs import Inputs, plain
from tfmtl.reporting.page import Section, paragraph, table
from tfmtl.serving import ModelCard

_ROLES = ("query", "candidate", "context")
_SIZES = (1, 128, 1024)
_REPEATS = 15


def card(inputs: Inputs, description: str) -> Section:
    """Return tasks, features, versions and the purpose of the model."""
    model = inputs.model
    facts = ModelCard(description).describe(model)
    tasks = [[name, kind, _label(model, name)] for name, kind in facts["tasks"].items()]
    features = [
        [feature.name, role, type(feature).__name__] for role in _ROLES for feature in getattr(model.schema, role)
    ]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    body = paragraph(description) if description else ""
    body += table(["task", "kind", "label"], tasks) + table(["feature", "role", "kind"], features)
    body += paragraph(f"Weights of the tasks: {type(model.balancer).__name__}. Versions: {versions}.", note=True)
    return Section("The model", body)


def _label(model: MultiTaskModel, task: str) -> str:
    if task not in model.schema.tasks:
        return "every row"
    label = model.schema.label(task)
    return label.column if label.desired else f"{label.column}, undesired"


def data(inputs: Inputs) -> Section:
    """Return counts of rows, users, candidates and labels, and the shares of ids that the model does not know."""
    schema, batch = inputs.model.schema, inputs.batch
    rows = [["rows", len(inputs.test)], *([["training rows", len(inputs.train)]] if inputs.train is not None else [])]
    for role, column in schema.ids.items():
        values = to_columns(inputs.test, [schema.features[column]])[column]
        known = set(map(plain, inputs.model.preprocessor.vocabulary(column)))
        unknown = np.mean([plain(value) not in known for value in values])
        name = "users" if role == "query" else "candidates"
        rows += [
            [f"{name} ({column})", len(np.unique(values))],
            [f"share of rows with {name} unknown to the model", float(unknown)],
        ]
    labels = []
    for task in batch.labels:
        values = batch.labels[task].numpy()
        found = values[~np.isnan(values)]
        labels.append([task, len(found) / len(values), *(float(f(found)) if len(found) else None for f in _OF_LABELS)])
    body = table(["test rows", "value"], rows)
    if labels:
        body += table(["task", "share of rows with a label", "mean", "least", "greatest"], labels)
    return Section("The data", body)


_OF_LABELS: tuple[Callable[[Any], Any], ...] = (np.mean, np.min, np.max)


def speed(inputs: Inputs) -> Section:
    """Return the size of the network, and the time of its answer for some numbers of rows."""
    network = inputs.model.network
    features = {name: inputs.batch.features[name] for name in network.input}
    answer = traced(lambda columns: network(columns, training=False))
    rows = []
    for size in _SIZES:
        some = {name: tf.gather(column, np.arange(size) % len(inputs.test)) for name, column in features.items()}
        rows.append([size, 1e3 * float(np.median([_seconds(answer, some) for _ in range(_REPEATS)][1:]))])
    size = network.count_params()
    body = table(["rows", "milliseconds"], rows)
    body += paragraph(f"The network has {size:,} weights, {4 * size / 2**20:,.1f} MB in float32.")
    body += paragraph(
        "Medians in the process that wrote this report, from encoded rows; a server adds its own time.", note=True
    )
    return Section("Size and speed", body)


def _seconds(answer: Callable[[Any], Any], columns: Any) -> float:
    start = time.perf_counter()
    answer(columns)
    return time.perf_counter() - start
