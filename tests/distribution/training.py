"""A small model of retrieval and ranking, and the results of its training, to compare distribution strategies."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import Balancer
from tfmtl.data.source import as_source
from tfmtl.layers import SharedBottom
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification, Retrieval
from tfmtl.training import LazyAdam

BATCH = 16
"""Of 50 rows, so that the last batch of an epoch has 2."""


def table() -> Any:
    """Labels are missing in runs, so that the parts of a batch hold very different numbers of them."""
    frame = small.table().copy()
    row = np.arange(len(frame))
    frame["seen"] = np.where(row % 16 < 5, np.nan, 1.0)
    frame["liked"] = frame["liked"].where(row % 16 != 3).where(row % 16 < 11)
    return frame


def model(
    balancer: Balancer | None = None, regularization: Regularization = small.NO_NOISE, **retrieval: Any
) -> MultiTaskModel:
    heads = [Retrieval("seen", **retrieval), BinaryClassification("liked")]
    network = build_network(
        small.preprocessor(), heads, trunk=SharedBottom(["liked"], units=[4]), embedding_dim=3,
        tower_units=[3], regularization=regularization,
    )  # fmt: skip
    built = MultiTaskModel(network, heads, small.preprocessor(), balancer, small.candidates())
    built.compile(LazyAdam(0.02))
    return built


def outcome(strategy: Any, data: Any, balancer: type[Balancer] | None = None, **arguments: Any) -> dict[str, Any]:
    """Train two epochs and evaluate; return logs, metrics and weights as lists of numbers."""
    retrieval = arguments.pop("retrieval", {}) | {"regularization": arguments.pop("regularization", small.NO_NOISE)}
    with strategy.scope() if strategy else contextlib.nullcontext():
        trained = model(None if balancer is None else balancer(), **retrieval)
    return outcome_of(trained, data, table(), **arguments)


def outcome_of(trained: MultiTaskModel, data: Any, rows: Any, **arguments: Any) -> dict[str, Any]:
    """Train a model two epochs, evaluate it on a table, and return the results as `outcome` does."""
    sized = {} if as_source(data).batched else {"batch_size": BATCH}
    logs = trained.fit(data, epochs=2, verbose=0, **sized, **arguments).history
    metrics = trained.evaluate(rows, batch_size=BATCH, verbose=0, return_dict=True)
    parts = [*trained.network.weights, *(part for part in trained.state if "rare_counts" not in part.name)]
    weights = np.concatenate([tf.convert_to_tensor(variable).numpy().ravel() for variable in parts])
    return {**logs, **{f"evaluated_{name}": value for name, value in metrics.items()}, "weights": weights.tolist()}


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference of any number of two outcomes."""
    assert set(one) == set(other), set(one) ^ set(other)
    return max(float(np.max(np.abs(np.subtract(one[name], other[name])))) for name in one)


__all__ = ["BATCH", "keras", "largest_difference", "model", "outcome", "outcome_of", "table"]
