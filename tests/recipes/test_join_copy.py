"""The copy part of a retrieval task, chosen by ranks on validation rows."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema, with_histories
from tfmtl.evaluation import RetrievalEvaluation, evaluate
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.recipes import join_copy, join_ease
from tfmtl.recipes.join_copy import with_copy
from tfmtl.tasks import HistoryCopy, Regression, Retrieval
from tfmtl.training import LazyAdam

USERS, ITEMS, DAYS = 30, 40, 12


@functools.cache
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each user has two favourites of a week, of which one is bought on most days."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        early, late = rng.choice(ITEMS, [2, 2], replace=False)
        for day in range(DAYS):
            own = early if day < DAYS // 2 else late
            bought = rng.choice(own) if rng.random() < 0.9 else rng.integers(0, ITEMS)
            rows.append((f"u{user}", f"i{bought}", day, 1.0, float(day % 3)))
    table = pd.DataFrame(rows, columns=["user", "item", "day", "bought", "stars"])
    table = with_histories(table, _schema(), "day")
    return table[table["day"] < DAYS - 2], table[table["day"] >= DAYS - 2]


def _schema(history: bool = True) -> Schema:
    query = [Categorical("user"), *([IdSequence("recent", of="item", max_length=DAYS)] if history else [])]
    return Schema(query, [Categorical("item")], labels=[Label("bought"), Label("stars")])


@functools.cache
def model(history: bool = True) -> MultiTaskModel:
    schema = _schema(history)
    table = tables()[0] if history else tables()[0].drop(columns="recent")
    preprocessor = Preprocessor.fit(schema, table)
    tasks = [Retrieval("bought"), Regression("stars")]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    found = MultiTaskModel(network, tasks, preprocessor)
    found.compile(LazyAdam(0.02))
    return found


def test_habits_are_copied() -> None:
    found = join_copy(model(), tables()[1])
    values = [evaluate(m, tables()[1], ks=10)["bought", "ndcg@10"] for m in (model(), found.model)]
    assert values == pytest.approx([found.values["model"], found.values["copy"]], abs=1e-6)
    assert values[1] > 0.5 > 0.2 > values[0]
    assert found.copy is not None
    assert found.copy.half_life == 10  # the favourites of the last days
    assert "copies of 'recent' (half-life 10 entries); bought ndcg@10 on validation" in str(found)
    assert model().tasks[0].copy is None


def test_the_callback_logs_the_same_ranks() -> None:
    found = join_copy(model(), tables()[1])
    callback = RetrievalEvaluation(tables()[1], ks=10)
    callback.set_model(found.model)
    callback.on_train_begin()
    logs: dict[str, float] = {}
    callback.on_epoch_end(0, logs)
    assert logs["val_bought_ndcg@10"] == pytest.approx(found.values["copy"], abs=1e-6)


def test_nothing_is_added_where_nothing_repeats() -> None:
    train, validation = tables()
    pairs = set(zip(train["user"], train["item"], strict=True))
    new = [(u, i) not in pairs for u, i in zip(validation["user"], validation["item"], strict=True)]
    found = join_copy(model(), validation[new])
    assert found.copy is None
    assert found.model is model()
    assert "no copies" in str(found)


def test_join_ease_adds_copies_where_candidates_repeat() -> None:
    train, validation = tables()
    found = join_ease(model(), train, validation, regularizations=(20.0,), refit=False)
    assert not found.excludes_seen
    assert found.copy is not None
    assert found.values["copy"] > found.values["mixture"] > found.values["network"]
    after = evaluate(found.model, validation, ks=10)["bought", "ndcg@10"]
    assert after == pytest.approx(found.values["copy"], abs=1e-6)
    assert "copies of 'recent'" in found.mixture
    excluded = join_ease(model(), train, validation, regularizations=(20.0,), refit=False, exclude_seen=True)
    assert excluded.copy is None
    assert "copy" not in excluded.values


def test_another_copy_replaces_the_first() -> None:
    first = with_copy(model(), "bought", HistoryCopy("recent", 2.0))
    assert first.tasks[0].copy == HistoryCopy("recent", 2.0)
    assert with_copy(first, "bought", None).tasks[0].copy is None


def test_wrong_arguments_are_named() -> None:
    validation = tables()[1]
    with pytest.raises(ValueError, match="no history to copy from"):
        join_copy(model(history=False), validation)
    with pytest.raises(ValueError, match=r"Unknown history \['user'\]"):
        join_copy(model(), validation, history="user")
    with pytest.raises(ValueError, match="`task`"):
        join_copy(model(), validation, task="stars")
    with pytest.raises(RuntimeError, match="`join_copy` needs a compiled model"):
        join_copy(model().with_network(model().network), validation)
