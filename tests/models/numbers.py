"""A small model with a head for each distribution of a number, and with further losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import small
from tfmtl._keras import keras
from tfmtl.balancing import Balancer
from tfmtl.data import Label, Preprocessor, Schema
from tfmtl.layers import SharedBottom
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import (
    BinaryClassification,
    ChainedRegression,
    DurationQuantiles,
    GroupLoss,
    HuberRegression,
    OrdinalRegression,
    PoissonRegression,
    QuantileRegression,
    Regression,
    Task,
    TweedieRegression,
    ValueLoss,
    WatchTime,
    ZeroInflatedLognormal,
)
from tfmtl.tasks.extra_losses import ExtraLoss
from tfmtl.training import LazyAdam

KINDS: dict[str, type[Any]] = {
    "plain": Regression,
    "huber": HuberRegression,
    "poisson": PoissonRegression,
    "tweedie": TweedieRegression,
    "watched": WatchTime,
    "quantiles": QuantileRegression,
    "lognormal": ZeroInflatedLognormal,
}
LEVELS = [1.0, 2.0, 3.0, 4.0, 5.0]
NAMES = [*KINDS, "level", "timed", "paid", "spend"]


def table(unit: float = 1.0) -> Any:
    """Amounts up to 3 units, of which a third is 0, and levels; labels are missing in runs."""
    frame, row = small.table(), np.arange(small.ROWS)
    amount = unit * np.where(row % 16 < 4, np.nan, np.maximum(frame["rating"] - 2.5, 0.0))
    level = unit * np.where((row % 16 > 4) & (row % 16 < 14), np.nan, np.clip(np.round(frame["rating"]), 1, 5))
    return frame.assign(amount=amount, level=level, paid=np.where(np.isnan(amount), np.nan, amount > 0))


def further_losses(unit: float) -> dict[str, list[ExtraLoss]]:
    """Return the `extra_losses` by task, with weights by which they are near 1 in any unit of the labels."""
    square, distance = keras.losses.MeanSquaredError(), keras.losses.MeanAbsoluteError()
    return {
        "plain": [GroupLoss("list_mle", "user"), ValueLoss(square, 0.5 / unit**2)],
        "huber": [GroupLoss("logistic", "user")],
        "poisson": [GroupLoss("softmax", "user"), ValueLoss(distance, 0.3 / unit)],
        "tweedie": [GroupLoss("logistic", "item")],
        "watched": [GroupLoss("hinge", "item")],
        "quantiles": [ValueLoss(keras.losses.Huber(), 0.5 / unit)],
        "lognormal": [ValueLoss(distance, 0.5 / unit)],
        "level": [ValueLoss(square, 0.5 / unit**2)],
        "paid": [GroupLoss("approx_ndcg", "user")],
    }


def heads(preprocessor: Preprocessor, unit: float = 1.0) -> list[Task]:
    losses = further_losses(unit)
    of_amounts = [
        kind.from_statistics(name, preprocessor.statistics, extra_losses=losses[name]) for name, kind in KINDS.items()
    ]
    return [
        *of_amounts,
        OrdinalRegression("level", [unit * level for level in LEVELS], extra_losses=losses["level"]),
        DurationQuantiles.fit("timed", "price", table(unit), num_bins=3, num_knots=5, column="amount"),
        BinaryClassification("paid", extra_losses=losses["paid"]),
        ChainedRegression("spend", after="paid", scale=unit),
    ]


def model(balancer: Balancer | None = None, unit: float = 1.0, seed: int = 0) -> MultiTaskModel:
    labels = [*(Label(name, column="amount") for name in (*KINDS, "timed", "spend")), Label("level"), Label("paid")]
    schema = Schema(small.SCHEMA.query, small.SCHEMA.candidate, small.SCHEMA.context, labels=labels)
    preprocessor = Preprocessor.fit(schema, table(unit))
    tasks = heads(preprocessor, unit)
    network = build_network(
        preprocessor, tasks, trunk=SharedBottom(units=[4], seed=seed), embedding_dim=3, tower_units=[3], seed=seed,
        regularization=small.NO_NOISE,
    )  # fmt: skip
    built = MultiTaskModel(network, tasks, preprocessor, balancer, seed=seed)
    built.compile(LazyAdam(0.02))
    return built
