"""Small models with every kind of feature and seeded weights instead of training, and their tables."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
import pandas as pd
import tensorflow as tf

from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    MultiValued,
    Numeric,
    Preprocessor,
    Schema,
    Text,
    Vector,
    to_columns,
)
from tfmtl.layers import MMoE
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Ranking, Regression, Retrieval, Task

USERS, ITEMS, ROWS, MAX_K = 20, 30, 300, 10
IdType = Literal["string", "int64"]


def identifier(ids: IdType, prefix: str, number: int) -> Any:
    """Return the id of a user or item: "i3" or 3."""
    return f"{prefix}{number}" if ids == "string" else int(number)


def table(ids: IdType) -> pd.DataFrame:
    """Return interactions of 20 users with 30 items."""
    rng = np.random.default_rng(5)
    user, item = rng.integers(0, USERS, ROWS), np.resize(np.arange(ITEMS), ROWS)
    rating = 1 + (user + item) % 5 + rng.normal(0, 0.2, ROWS)
    return pd.DataFrame(
        {
            "user_id": [identifier(ids, "u", u) for u in user],
            "age": np.where(user % 4 == 0, np.nan, 20.0 + user),
            "interests": [[f"t{u % 3}", f"t{u % 5}"] for u in user],
            "recent": [[identifier(ids, "i", (u + j) % ITEMS) for j in range(u % 4)] for u in user],
            "item_id": [identifier(ids, "i", i) for i in item],
            "price": 5.0 + item % 7,
            "genres": ["|".join(f"g{g}" for g in range(i % 4)) for i in item],
            "title": [f"the item number {i % 6}" for i in item],
            "picture": [list(np.sin(i + np.arange(3.0))) for i in item],
            "position": rng.integers(1, 4, ROWS),
            "seen": 1.0,
            "rating": rating,
            "clicked": np.where(item % 5 == 0, np.nan, rating > 3),
            "mood": (user + item) % 3,
            "region": user % 3,
        }
    )


def schema(ids: IdType) -> Schema:
    """Return a schema with every kind of feature, and a label for every kind of task."""
    return Schema(
        query=(
            Categorical("user_id", dtype=ids),
            Numeric("age"),
            MultiValued("interests", max_length=2),
            IdSequence("recent", of="item_id", max_length=3, dtype=ids),
        ),
        candidate=(
            Categorical("item_id", dtype=ids),
            Numeric("price", transform="log1p", missing="mean"),
            MultiValued("genres", max_length=3, separator="|"),
            Text("title", max_length=4, min_count=1),
            Vector("picture", size=3),
        ),
        context=(Categorical("position", dtype="int64"),),
        labels=(Label("seen"), Label("rating"), Label("clicked"), Label("mood"), Label("region")),
    )


@functools.cache
def build(ids: IdType = "string", *, retrieval: bool = True) -> tuple[MultiTaskModel, pd.DataFrame]:
    """Return a model and its table; without `retrieval` the model has only ranking tasks and no corpus."""
    frame, description = table(ids), schema(ids)
    preprocessor = Preprocessor.fit(description, frame)
    ranking: list[Ranking] = [
        Regression.from_statistics("rating", preprocessor.statistics),
        BinaryClassification("clicked"),
        MultiClassClassification("mood", num_classes=3),
        MultiClassClassification("region", num_classes=3, scope="query"),
    ]
    tasks: list[Task] = [Retrieval("seen", temperature=0.5), *ranking] if retrieval else [*ranking]
    trunk = MMoE(num_experts=2, units=[8])
    network = build_network(preprocessor, tasks, trunk, embedding_dim=4, tower_units=[8])
    rng = np.random.default_rng(11)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    candidates = Candidates.from_frame(frame, preprocessor) if retrieval else None
    return MultiTaskModel(network, tasks, preprocessor, candidates=candidates), frame


def raw(model: MultiTaskModel, frame: pd.DataFrame, *, query: bool = False) -> dict[str, tf.Tensor]:
    """Return rows of a table as a client sends them; with `query` only the features of the query."""
    features = model.schema.query if query else model.schema.features.values()
    return {name: tf.constant(values) for name, values in to_columns(frame, features).items()}


def queries(model: MultiTaskModel, frame: pd.DataFrame, rows: int = 7) -> dict[str, tf.Tensor]:
    """Return query features of known users; the last two rows hold an unknown user and no values."""
    features = raw(model, frame[:rows], query=True)
    ids = features["user_id"]
    unknown, missing = ("unknown", "") if ids.dtype == tf.string else (10**12, -1)
    changed = {
        "user_id": tf.concat([ids[:-2], tf.constant([unknown, missing], ids.dtype)], 0),
        "age": tf.concat([features["age"][:-2], [float("inf"), float("nan")]], 0),
    }
    lists = {
        n: tf.concat([v[:-1], tf.fill([1, v.shape[1]], _nothing(v))], 0)
        for n, v in features.items()
        if len(v.shape) == 2
    }
    return {**features, **changed, **lists}


def _nothing(values: tf.Tensor) -> tf.Tensor:
    return tf.constant("" if values.dtype == tf.string else -1, values.dtype)
