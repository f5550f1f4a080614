"""A model with a head for each distribution of a number and with further losses, to compare distribution strategies."""

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
    TweedieRegression,
    ValueLoss,
    WatchTime,
    ZeroInflatedLognormal,
)
from tfmtl.training import LazyAdam

KINDS: dict[str, tuple[type[Any], list[Any]]] = {
    "plain": (Regression, [GroupLoss("list_mle", "user"), ValueLoss(keras.losses.MeanSquaredError(), 0.5)]),
    "huber": (HuberRegression, [GroupLoss("logistic", "user")]),
    "poisson": (PoissonRegression, [GroupLoss("softmax", "user"), ValueLoss(keras.losses.MeanAbsoluteError(), 0.3)]),
    "tweedie": (TweedieRegression, [GroupLoss("approx_ndcg", "user")]),
    "watched": (WatchTime, [GroupLoss("hinge", "item")]),
    "quantiles": (QuantileRegression, [ValueLoss(keras.losses.Huber(), 0.5)]),
    "lognormal": (ZeroInflatedLognormal, [ValueLoss(keras.losses.MeanAbsoluteError(), 0.5)]),
}
LEVELS = [1.0, 2.0, 3.0, 4.0, 5.0]


def table() -> Any:
    """Amounts, of which a third is 0, and levels; labels are missing in runs, so that half batches differ in number."""
    frame, row = small.table(), np.arange(small.ROWS)
    amount = np.where(row % 16 < 4, np.nan, np.maximum(frame["rating"] - 2.5, 0.0))
    level = np.where((row % 16 > 4) & (row % 16 < 14), np.nan, np.clip(np.round(frame["rating"]), 1, 5))
    return frame.assign(amount=amount, level=level, paid=np.where(np.isnan(amount), np.nan, amount > 0))


def heads(preprocessor: Preprocessor) -> list[Any]:
    made = [
        kind.from_statistics(name, preprocessor.statistics, extra_losses=losses)
        for name, (kind, losses) in KINDS.items()
    ]
    return [
        *made,
        OrdinalRegression("level", LEVELS, extra_losses=[ValueLoss(keras.losses.MeanSquaredError(), 0.5)]),
        DurationQuantiles.fit("timed", "price", table(), num_bins=3, num_knots=5, column="amount"),
        BinaryClassification("paid"),
        ChainedRegression("spend", after="paid"),
    ]


def model(balancer: Balancer | None = None) -> MultiTaskModel:
    labels = [*(Label(name, column="amount") for name in (*KINDS, "timed", "spend")), Label("level"), Label("paid")]
    schema = Schema(small.SCHEMA.query, small.SCHEMA.candidate, small.SCHEMA.context, labels=labels)
    preprocessor = Preprocessor.fit(schema, table())
    tasks = heads(preprocessor)
    network = build_network(
        preprocessor, tasks, trunk=SharedBottom(units=[4]), embedding_dim=3, tower_units=[3],
        regularization=small.NO_NOISE,
    )  # fmt: skip
    built = MultiTaskModel(network, tasks, preprocessor, balancer)
    built.compile(LazyAdam(0.02))
    return built
