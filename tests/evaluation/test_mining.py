"""Hard negatives that a model finds in the corpus."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema
from tfmtl.evaluation import mined_negatives
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Retrieval
from tfmtl.training import LazyAdam

SCHEMA = Schema(
    [Categorical("user")], [Categorical("item"), Numeric("price")], [Numeric("hour")], [Label("seen"), Label("liked")]
)


@functools.cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    user, item = rng.integers(0, 6, 40), rng.integers(0, 12, 40)
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in user],
            "item": [f"i{k}" for k in item],
            "price": 1.0 + item,
            "hour": rng.normal(size=40),
            "seen": np.where(np.arange(40) % 8 == 0, np.where(np.arange(40) % 16 == 0, np.nan, 0.0), 1.0),
            "liked": 1.0 * (np.arange(40) % 2),
            "note": "text",
        }
    )


@functools.cache
def model() -> MultiTaskModel:
    heads = [Retrieval("seen", explicit_negatives=2.0), BinaryClassification("liked")]
    preprocessor = Preprocessor.fit(SCHEMA, table())
    network = build_network(preprocessor, heads, embedding_dim=4, tower_units=(3,), seed=1)
    built = MultiTaskModel(network, heads, preprocessor)
    built.compile(LazyAdam(0.05))
    built.fit(table(), epochs=3, batch_size=20, verbose=0)
    return built


def ranked(user: str, known: Any = None) -> list[str]:
    """Return the items that are no positives of a user by the model's scores, through `predict`."""
    frame = table()
    items = frame.drop_duplicates("item")
    rows = items.assign(user=user)
    scores = model().predict(rows, verbose=0)["seen"]
    tables = [frame] if known is None else [frame, known]
    own = {item for t in tables for item in t[(t["user"] == user) & (t["seen"] > 0)]["item"]}
    return [item for item in rows["item"].to_numpy()[np.argsort(-scores)] if item not in own]


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (2, 4), (3, 200)])
@pytest.mark.parametrize("with_known", [True, False])
def test_candidates_come_from_the_ranks(
    window: tuple[int, int], with_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfmtl.evaluation.reports.mining.BLOCK_BYTES", 8 * 12 * 2)  # blocks of two queries
    known = table().head(6).assign(item="i3", seen=1.0) if with_known else None
    made = mined_negatives(model(), table(), ranks=window, per_row=30, known=known)
    positives = table()[table()["seen"] > 0]
    for user, rows in made.groupby("user"):
        allowed = ranked(str(user), known)[window[0] - 1 : window[1]]
        assert set(rows["item"]) == set(allowed)  # 30 draws for each row reach all of them
        assert len(rows) == 30 * (positives["user"] == user).sum()
    assert set(made["user"]) == {u for u in positives["user"] if len(ranked(u, known)) >= window[0]}


def test_a_row_has_its_query_another_candidate_and_the_label_0() -> None:
    made = mined_negatives(model(), table(), ranks=(1, 3))
    positives = table()[table()["seen"] > 0].reset_index(drop=True)
    assert list(made.columns) == list(table().columns)
    pd.testing.assert_frame_equal(made[["user", "hour"]], positives[["user", "hour"]])
    assert (made["seen"] == 0).all()
    assert made[["liked", "note"]].isna().all(axis=None)
    np.testing.assert_array_equal(made["price"], [1.0 + int(item[1:]) for item in made["item"]])


def test_a_seed_is_reproducible() -> None:
    same = [mined_negatives(model(), table(), ranks=(1, 5), seed=seed) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(same[0], same[1])
    assert (same[0]["item"] != same[2]["item"]).any()


def test_no_candidates_no_rows() -> None:
    made = mined_negatives(model(), table(), ranks=(13, 20))
    assert len(made) == 0
    assert list(made.columns) == list(table().columns)


def test_rows_without_a_candidate_or_label_are_no_sources() -> None:
    frame = table().copy()
    frame.loc[frame.index[:10], "item"] = None
    made = mined_negatives(model(), frame, ranks=(1, 3))
    assert len(made) == ((frame["seen"] > 0) & frame["item"].notna()).sum()
    assert made["item"].notna().all()


def test_the_rows_train_the_model() -> None:
    joined = pd.concat([table(), mined_negatives(model(), table(), ranks=(1, 3))], ignore_index=True)
    assert np.isfinite(model().fit(joined, epochs=1, batch_size=20, verbose=0).history["seen_loss"]).all()
    model.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ranks": (0, 3)}, "`ranks` must be two numbers a <= b, from 1. Received: ranks=(0, 3)."),
        ({"ranks": (5, 3)}, "`ranks` must be two numbers a <= b, from 1. Received: ranks=(5, 3)."),
        ({"per_row": 0}, "`per_row` must be a positive integer. Received: per_row=0."),
        (
            {"task": "liked"},
            "`task` must name one of the model's retrieval tasks. Received: task='liked', tasks=['seen'].",
        ),
    ],
)
def test_bad_arguments_have_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        mined_negatives(model(), table(), **arguments)
