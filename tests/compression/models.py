"""A small table with four kinds of task, and models for it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd

from tfmtl.balancing import Uncertainty
from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema, Statistics, fit_statistics
from tfmtl.layers import SharedBottom
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval, Task
from tfmtl.training import LazyAdam

ROWS, USERS, ITEMS = 240, 12, 16
SCHEMA = Schema(
    query=[Categorical("user_id"), IdSequence("recent", of="item_id", max_length=2)],
    candidate=[Categorical("item_id")],
    labels=[Label("seen"), Label("rating"), Label("liked"), Label("mood")],
)


@functools.cache
def table() -> pd.DataFrame:
    """Signals that two user and two item traits decide; a third of "liked" and most of "seen" are missing."""
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(USERS, 2)), rng.normal(size=(ITEMS, 2))
    u, i = rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
    score = np.sum(users[u] * items[i], axis=1)
    row = np.arange(ROWS)
    return pd.DataFrame(
        {
            "user_id": [f"u{k}" for k in u],
            "recent": [[f"i{(k + 1) % ITEMS}", f"i{(k + 5) % ITEMS}"][: k % 3] for k in u],
            "item_id": [f"i{k}" for k in i],
            "seen": np.where((score < 0) | (row % 5 == 0), np.nan, 1.0),
            "rating": 3 + score + 0.1 * rng.normal(size=ROWS),
            "liked": np.where(row % 3 == 0, np.nan, score > 0),
            "mood": (np.sign(score) + 1 + (u % 2)).astype(int).clip(0, 2),
        }
    )


@functools.cache
def statistics() -> Statistics:
    return fit_statistics(SCHEMA, table())


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor(SCHEMA, statistics())


def tasks(**retrieval: Any) -> list[Task]:
    return [
        Retrieval("seen", **retrieval),
        Regression.from_statistics("rating", statistics()),
        BinaryClassification("liked"),
        MultiClassClassification("mood", num_classes=3),
    ]


def model(
    width: int, seed: int = 0, *, negatives: int = 0, dropout: float = 0.0, unknown_rate: float = 0.0, **retrieval: Any
) -> MultiTaskModel:
    """An untrained model; `recent` and `item_id` share a table, and negatives call the candidate tower again."""
    heads = tasks(num_uniform_negatives=negatives, **retrieval)
    network = build_network(
        preprocessor(),
        heads,
        SharedBottom(["rating", "liked", "mood"], units=[width], dropout=dropout, seed=seed),
        embedding_dim=width,
        tower_units=[width],
        regularization=Regularization(embedding_l2=0.01, unknown_rate=unknown_rate),
        seed=seed,
    )
    candidates = Candidates.from_frame(table(), preprocessor())
    built = MultiTaskModel(network, heads, preprocessor(), Uncertainty(), candidates, seed=seed)
    built.compile(LazyAdam(0.02))
    return built


@functools.cache
def teacher() -> MultiTaskModel:
    """A trained model; tests must not change it."""
    trained = model(8, seed=7)
    trained.fit(table(), batch_size=120, epochs=40, verbose=0)
    return trained
