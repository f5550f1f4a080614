from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema
from tfmtl.interpretation import Counterfactual, counterfactuals
from tfmtl.layers import AttentionPooling
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Retrieval

ITEMS, LENGTH = 40, 10


def _table(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    histories = [[f"i{k}" for k in rng.permutation(ITEMS)[: 10 if r else 3]] for r in range(rows)]
    cover = pd.DataFrame({"recent": [["i0"]] * ITEMS, "item": [f"i{k}" for k in range(ITEMS)], "user": "u"})
    frame = pd.DataFrame({"recent": histories, "item": "i1", "user": [f"u{r % 3}" for r in range(rows)]})
    return pd.concat([frame, cover], ignore_index=True).assign(seen=1.0, liked=np.arange(rows + ITEMS) % 2)


ROWS = 5
TABLE = _table(ROWS)
SCHEMA = Schema(
    [Categorical("user"), IdSequence("recent", of="item", max_length=LENGTH)],
    [Categorical("item")],
    labels=[Label("seen"), Label("liked")],
)


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    fitted = Preprocessor.fit(SCHEMA, TABLE)
    tasks = [Retrieval("seen"), BinaryClassification("liked")]
    network = build_network(fitted, tasks, embedding_dim=4, tower_units=[4], poolings={"recent": AttentionPooling(2)})
    rng = np.random.default_rng(8)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return MultiTaskModel(network, tasks, fitted)


def ranks(model: MultiTaskModel, task: str, requests: pd.DataFrame, candidate: str) -> np.ndarray:
    """Return the ranks of a candidate by `predict` of all pairs, a path of its own."""
    pairs = requests.loc[requests.index.repeat(ITEMS)].assign(item=[f"i{k}" for k in range(ITEMS)] * len(requests))
    scores = np.asarray(model.predict(pairs, verbose=0)[task]).reshape(len(requests), ITEMS)
    own = scores[:, int(candidate[1:])]
    return 1 + (scores > own[:, np.newaxis]).sum(axis=1)


def without(history: list[str], removed: Any) -> list[str]:
    return [item for i, item in enumerate(history) if i not in removed]


def requests_in_the_list(model: MultiTaskModel, task: str, k: int) -> list[pd.DataFrame]:
    """Return rows with the candidate that has rank k - 2 in the list of the row."""
    found = []
    for r in range(ROWS):
        row = TABLE.iloc[[r]]
        order = [ranks(model, task, row, f"i{c}")[0] for c in range(ITEMS)]
        found.append(row.assign(item=f"i{int(np.argsort(order)[k - 3])}"))
    return found


@pytest.mark.parametrize("task", ["seen", "liked"])
def test_sets_are_verified_and_as_small_as_the_optimum(model: MultiTaskModel, task: str) -> None:
    k = 5
    rows = requests_in_the_list(model, task, k)
    found = counterfactuals(model, pd.concat(rows), task, history="recent", k=k)
    greedy = counterfactuals(model, pd.concat(rows), task, history="recent", k=k, budget=1)
    assert sum(one.found for one in found) >= 2
    for row, one, quick in zip(rows, found, greedy, strict=True):
        history, item = row["recent"].iloc[0], row["item"].iloc[0]
        assert ranks(model, task, row, item)[0] == one.rank_before
        removed = [s for n in range(1, len(history) + 1) for s in itertools.combinations(range(len(history)), n)]
        changed = pd.concat([row.assign(recent=[without(history, s)]) for s in removed], ignore_index=True)
        out = ranks(model, task, changed, item) > k
        if not out.any():
            assert not one.found
            continue
        sizes = np.array([len(s) for s in removed])
        best = sizes[out].min()
        if one.found:
            assert out[removed.index(tuple(one.positions))]
            assert one.smallest
            assert len(one.positions) == best
            assert one.items == [history[p] for p in one.positions]
            assert len(quick.positions) <= best + 1


def test_features_can_be_removed(model: MultiTaskModel) -> None:
    rows = pd.concat(requests_in_the_list(model, "seen", 5))
    found = counterfactuals(model, rows, "seen", features=["user"], k=5)
    for i, one in enumerate(found):
        row = rows.iloc[[i]]
        after = ranks(model, "seen", row.assign(user=None), row["item"].iloc[0])[0]
        assert one.rank_after == after
        assert one.found == (after > 5)
        assert one.features == ["user"]
        assert one.positions == []


def test_removing_everything_may_be_in_vain(model: MultiTaskModel) -> None:
    row = requests_in_the_list(model, "seen", 38)[0]
    (one,) = counterfactuals(model, row.assign(recent=[[]]), "seen", history="recent", k=39)
    assert one == Counterfactual([], [], [], one.rank_before, one.rank_before, False, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"history": "recently"}, "Unknown list of ids ['recently'] in the query features; known: ['recent']"),
        ({"history": "item"}, "Unknown list of ids ['item']"),
        ({"features": ["item"]}, "Unknown query feature ['item']"),
        ({}, "Nothing may be removed; give a `history` or `features`."),
        ({"history": "recent", "features": ["recent"]}, "'recent' is a history, of which items are removed"),
        ({"history": "recent", "k": 40}, "`k` must be below the number of candidates, 40."),
        ({"history": "recent", "task": "like"}, "Unknown task ['like'] in the model"),
    ],
)
def test_wrong_arguments_are_named(model: MultiTaskModel, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        counterfactuals(model, TABLE.head(1), **{"task": "seen", **arguments})


def test_a_candidate_outside_the_list_is_refused(model: MultiTaskModel) -> None:
    row = requests_in_the_list(model, "seen", 20)[0]
    with pytest.raises(ValueError, match=re.escape("The candidate must be among the best 2 of its request")):
        counterfactuals(model, row, "seen", history="recent", k=2)
    with pytest.raises(ValueError, match="candidate outside the corpus"):
        counterfactuals(model, row.assign(item="never"), "seen", history="recent", k=2)


def test_a_model_without_histories_is_named() -> None:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("seen")])
    fitted = Preprocessor.fit(schema, TABLE)
    plain = MultiTaskModel(build_network(fitted, [Retrieval("seen")]), [Retrieval("seen")], fitted)
    with pytest.raises(ValueError, match="The model has no list of ids among its query features"):
        counterfactuals(plain, TABLE.head(1), "seen", history="recent")
