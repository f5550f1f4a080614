"""A small table with every role and task, and models for it that trace in a second or two."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._keras import keras
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Preprocessor, Schema, Statistics, fit_statistics
from tfmtl.layers import MMoE, MultiTaskLayer
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval, Task
from tfmtl.training import LazyAdam

ROWS, USERS, ITEMS = 50, 6, 9
SCHEMA = Schema(
    query=[Categorical("user"), Numeric("age"), IdSequence("recent", of="item", max_length=2)],
    candidate=[Categorical("item"), Numeric("price")],
    context=[Numeric("position")],
    labels=[
        Label("seen"),
        Label("rating", sample_weight="trust"),
        Label("liked"),
        Label("mood", classes=("sad", "glad")),
    ],
)
ON_PAIRS = ["rating", "liked"]
NO_NOISE = Regularization(unknown_rate=0.0, context_dropout=0.0)


@functools.cache
def table() -> pd.DataFrame:
    """Labels that depend on user and item; a fifth of "seen" and a third of "liked" and "mood" are missing."""
    rng = np.random.default_rng(0)
    row, user, item = np.arange(ROWS), rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
    score = rng.normal(size=USERS)[user] + rng.normal(size=ITEMS)[item]
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in user],
            "age": 20.0 + user,
            "recent": [[f"i{(k + 1) % ITEMS}", f"i{(k + 4) % ITEMS}"][: k % 3] for k in user],
            "item": [f"i{k}" for k in item],
            "price": 1.0 + item,
            "position": rng.normal(size=ROWS),
            "seen": np.where(row % 5 == 0, np.nan, 1.0),
            "rating": 3 + score,
            "trust": 0.5 + row % 2,
            "liked": np.where(row % 3 == 0, np.nan, score > 0),
            "mood": pd.Series(np.where(user % 2 == 0, "sad", "glad")).where(user != 3, None),
        }
    )


@functools.cache
def statistics() -> Statistics:
    return fit_statistics(SCHEMA, table())


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor(SCHEMA, statistics())


@functools.cache
def candidates() -> Candidates:
    return Candidates.from_frame(table(), preprocessor())


def tasks(**retrieval: Any) -> list[Task]:
    return [
        Retrieval("seen", **retrieval),
        Regression.from_statistics("rating", statistics()),
        BinaryClassification("liked"),
        MultiClassClassification("mood", num_classes=2, scope="query"),
    ]


def trunk(seed: int = 0, **arguments: Any) -> MultiTaskLayer:
    return MMoE(ON_PAIRS, **{"num_experts": 2, "units": [4], "seed": seed, **arguments})


def network(heads: list[Task] | None = None, seed: int = 0, **arguments: Any) -> keras.Model:
    given = {"trunk": trunk(seed), "embedding_dim": 3, "tower_units": [4, 3], "regularization": NO_NOISE, **arguments}
    return build_network(preprocessor(), tasks() if heads is None else heads, seed=seed, **given)


def model(
    optimizer: Any = None, *, kind: type[MultiTaskModel] = MultiTaskModel, eager: bool = False, **arguments: Any
) -> MultiTaskModel:
    """Return a compiled model; `arguments` are those of the network, except `balancer`, `negatives` and `heads`."""
    balancer, negatives = arguments.pop("balancer", None), arguments.pop("negatives", 0)
    heads = arguments.pop("heads", None) or tasks(num_uniform_negatives=negatives)
    built = kind(
        network(heads, **arguments), heads, preprocessor(), balancer, candidates(), seed=arguments.get("seed", 0)
    )
    built.compile(optimizer or LazyAdam(0.02), run_eagerly=eager)
    return built
