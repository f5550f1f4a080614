"""Item-to-item retrieval against a plain loop over the embeddings, for known and new items, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema
from tfmtl.evaluation import similar_items
from tfmtl.evaluation.corpus import embed
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Retrieval

ITEMS = pd.DataFrame({"item": [f"i{n}" for n in range(7)], "genre": list("aabbccc"), "price": np.arange(7.0)})
SCHEMA = Schema(
    [Categorical("user")],
    [Categorical("item"), Categorical("genre"), Numeric("price")],
    labels=[Label("bought"), Label("liked")],
)


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    table = ITEMS.assign(user=["ann", "bob"] * 3 + ["cem"], bought=1.0, liked=1.0)
    preprocessor = Preprocessor.fit(SCHEMA, table)
    tasks = [Retrieval("bought"), Retrieval("liked")]
    return MultiTaskModel(build_network(preprocessor, tasks, seed=1), tasks, preprocessor)


def vectors(model: MultiTaskModel, table: pd.DataFrame, task: str) -> np.ndarray:
    return embed(model.tower("candidate"), Candidates.from_frame(table, model.preprocessor).features)[task]


def plain(own: np.ndarray, corpus: np.ndarray, me: str, similarity: str) -> list[tuple[str, float]]:
    """Return all neighbors by sorting Python numbers."""
    scores = []
    for name, vector in zip(ITEMS["item"], corpus, strict=True):
        norm = np.linalg.norm(own) * np.linalg.norm(vector) if similarity == "cosine" else 1.0
        scores.append((name, float(own @ vector / norm)))
    return sorted([pair for pair in scores if pair[0] != me], key=lambda pair: -pair[1])


@pytest.mark.parametrize("block_bytes", [1, 2**20])
@pytest.mark.parametrize("task", ["bought", "liked"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_neighbors_are_those_of_a_plain_loop(
    model: MultiTaskModel, similarity: Any, task: str, block_bytes: int
) -> None:
    corpus = vectors(model, ITEMS, task)
    found = similar_items(model, ["i3", "i0"], 4, task=task, similarity=similarity, block_bytes=block_bytes)
    assert list(found.columns) == ["item", "rank", "neighbor", "score"]
    assert found["item"].tolist() == ["i3"] * 4 + ["i0"] * 4
    assert found["rank"].tolist() == [1, 2, 3, 4] * 2
    for item, row in (("i3", 3), ("i0", 0)):
        expected = plain(corpus[row], corpus, item, similarity)[:4]
        lines = found[found["item"] == item]
        assert lines["neighbor"].tolist() == [name for name, _ in expected]
        assert lines["score"].tolist() == pytest.approx([score for _, score in expected], abs=1e-6)


def test_short_corpora_give_all_others(model: MultiTaskModel) -> None:
    found = similar_items(model, ["i3"], 50, task="bought")
    assert sorted(found["neighbor"]) == ["i0", "i1", "i2", "i4", "i5", "i6"]
    assert np.isfinite(found["score"]).all()


def test_new_items_have_neighbors_by_their_features(model: MultiTaskModel) -> None:
    new = pd.DataFrame({"item": ["new", "i1"], "genre": ["b", "a"], "price": [2.0, 1.0]})
    found = similar_items(model, new, 50, task="bought")
    own, corpus = vectors(model, new, "bought"), vectors(model, ITEMS, "bought")
    for row, item, others in ((0, "new", 7), (1, "i1", 6)):
        lines = found[found["item"] == item]
        expected = plain(own[row], corpus, item, "cosine")
        assert len(lines) == others
        assert lines["neighbor"].tolist() == [name for name, _ in expected]
    known = similar_items(model, ["i1"], 50, task="bought")
    pd.testing.assert_frame_equal(found[found["item"] == "i1"].reset_index(drop=True), known, atol=1e-6)


def test_ids_of_any_type_and_repeated_ones(model: MultiTaskModel) -> None:
    expected = similar_items(model, ["i1", "i2"], 2, task="bought")
    for items in (pd.Series(["i1", "i2"]), np.array(["i1", "i2"]), ("i1", "i2", "i1")):
        pd.testing.assert_frame_equal(similar_items(model, items, 2, task="bought"), expected)


def test_integer_ids() -> None:
    table = pd.DataFrame({"user": [1, 2, 3], "item": [7, 8, 9]})
    schema = Schema([Categorical("user", dtype="int64")], [Categorical("item", dtype="int64")])
    preprocessor, tasks = Preprocessor.fit(schema, table), [Retrieval("click")]
    model = MultiTaskModel(build_network(preprocessor, tasks), tasks, preprocessor)
    found = similar_items(model, [8])
    assert sorted(found["neighbor"]) == [7, 9]
    new = similar_items(model, pd.DataFrame({"item": [100]}))
    assert (sorted(new["neighbor"]), new["item"].tolist()) == ([7, 8, 9], [100] * 3)


@pytest.mark.parametrize(
    ("items", "options", "sentence"),
    [
        (["i1", "new"], {"task": "bought"}, r"`items` must hold ids of candidates.*unknown=\['new'\]"),
        ([None], {"task": "bought"}, "`items` must hold ids of candidates"),
        ([], {"task": "bought"}, "`items` must hold at least one id"),
        ("i1", {"task": "bought"}, "`items` must be a list of ids"),
        (["i1"], {}, r"Name one of the retrieval tasks \['bought', 'liked'\]"),
        (["i1"], {"task": "rating"}, "rating"),
        (["i1"], {"task": "bought", "k": 0}, "`k`"),
        (["i1"], {"task": "bought", "similarity": "l2"}, "similarity"),
        (pd.DataFrame({"item": ["new"], "genre": ["a"]}), {"task": "bought"}, "lacks the columns.*price"),
    ],
)  # fmt: skip
def test_bad_items_are_named(model: MultiTaskModel, items: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        similar_items(model, items, **options)


def test_a_model_without_retrieval_is_refused() -> None:
    table = ITEMS.assign(user="ann", bought=[1.0, 0.0] * 3 + [1.0], liked=1.0)
    preprocessor, tasks = Preprocessor.fit(SCHEMA, table), [BinaryClassification("bought")]
    model = MultiTaskModel(build_network(preprocessor, tasks), tasks, preprocessor)
    with pytest.raises(ValueError, match="needs a model with a retrieval task"):
        similar_items(model, ["i1"])
