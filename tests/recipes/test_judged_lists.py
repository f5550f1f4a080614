"""The lists that fusion weights are judged by: golden values, and equality with the lists that an export serves."""

from __future__ import annotations

import functools
import math
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import MAX_K, build, raw

from tests.serving.reference import FUSED, Reference
from tfmtl._keras import tf
from tfmtl.data import keys_of
from tfmtl.recipes.judged_lists import JudgedLists
from tfmtl.serving import export
from tfmtl.serving.recommender import Recommender

DEPTH, K = 12, 5
STANDARD = np.asarray(
    [
        [[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]],
        [[0.0, 1.0, 4.0], [0.0, 0.0, 9.0]],
    ],
    np.float32,
)
LISTS = JudgedLists(
    ("seen", "rating"), STANDARD, np.asarray([[True, True, True], [True, True, False]]),
    np.asarray([[0.0, 2.0, 1.0], [0.0, 1.0, 0.0]]), np.asarray([2 + 1 / math.log2(3), 1.0]), np.asarray([4, 9]),
    np.asarray([0, 1]), 2,
)  # fmt: skip
"""Two queries, two tasks, three candidates, of which the last one of the second query does not exist."""


@pytest.mark.parametrize(
    ("weights", "order", "gains"),
    [
        # Scores [3, 2, 1], [1, 1]: the grades 0, 2 and, tied in the order of retrieval, 0, 1.
        ((1.0, 0.0), [[0, 1], [0, 1]], (2 / math.log2(3), 1 / math.log2(3))),
        # Scores [0, 1, 4] and [0, 0]: the grades 1, 2 and 0, 1; the absent candidate with 9 is last.
        ((0.0, 1.0), [[2, 1], [0, 1]], (1 + 2 / math.log2(3), 1 / math.log2(3))),
        # Scores [-3, -1, 3], [-1, -1].
        ((-1.0, 1.0), [[2, 1], [0, 1]], (1 + 2 / math.log2(3), 1 / math.log2(3))),
    ],
)
def test_golden(weights: tuple[float, ...], order: list[list[int]], gains: tuple[float, float]) -> None:
    assert LISTS.order(weights).tolist() == order
    np.testing.assert_allclose(LISTS.ndcg(weights), [gains[0] / (2 + 1 / math.log2(3)), gains[1]])


def test_the_best_order_bounds_all_weights() -> None:
    """Query 0: the grades 2, 1 are the ideal ones; query 1: the grade 1 is first."""
    np.testing.assert_allclose(LISTS.best(), [1.0, 1.0])


def test_only_queries_with_a_grade_in_the_shortlist_are_reached() -> None:
    without = JudgedLists(*(getattr(LISTS, n) if n != "grades" else LISTS.grades * [[0], [1]] for n in vars(LISTS)))
    assert without.reached().users.tolist() == [9]


@functools.cache
def rows() -> pd.DataFrame:
    """Return rows with some clicks, of which some have a rating, too."""
    _, frame = build()
    rng = np.random.default_rng(2)
    clicked = (rng.random(len(frame)) < 0.2).astype(float)
    return frame.assign(clicked=clicked, rating=np.where(rng.random(len(frame)) < 0.5, np.nan, frame["rating"]))


@functools.cache
def lists(with_seen: bool = False) -> JudgedLists:
    model, frame = build()
    seen = frame.iloc[:150] if with_seen else None
    recommender = Recommender(model, K, DEPTH)
    return JudgedLists.of(recommender, rows(), {"clicked": 1.0, "rating": 0.5}, seen, None)


def grades_of(table: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return 1 for a click and a half of the rating, each the largest one of the pair in this situation."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in table.itertuples():
        own = found.setdefault((_situation(row), row.item_id), {"clicked": 0.0, "rating": 0.0})
        for name in own:
            value = getattr(row, name)
            own[name] = max(own[name], 0.0 if math.isnan(value) else value)
    return {pair: own["clicked"] + 0.5 * own["rating"] for pair, own in found.items() if any(own.values())}


def _situation(row: Any) -> str:
    return f"{row.user_id} {row.age} {list(row.interests)} {list(row.recent)}"


@pytest.mark.parametrize("with_seen", [False, True])
def test_lists_and_grades_are_those_of_plain_numpy(with_seen: bool) -> None:
    model, frame = build()
    table, seen = rows(), frame.iloc[:150] if with_seen else frame.iloc[:0]
    known = set(zip(seen["user_id"], seen["item_id"], strict=True))
    kept = table[[pair not in known for pair in zip(table["user_id"], table["item_id"], strict=True)]]
    grades, found = grades_of(kept), lists(with_seen)
    assert len(found.rows) == len({situation for situation, _ in grades})
    chosen = table.iloc[found.rows]
    reference = Reference(model, frame, raw(model, chosen, query=True))
    longest = max(len([1 for user, _ in known if user == own]) for own in chosen["user_id"])
    exclude = [[item for user, item in sorted(known) if user == own] for own in chosen["user_id"]]
    padded = np.asarray([[*own, *[""] * (longest - len(own))] for own in exclude], object)
    for weights in ((1.0, 1.0, 1.0), (0.2, -0.5, 0.3)):
        by_task = {name: np.full(len(chosen), weight) for name, weight in zip(FUSED, weights, strict=True)}
        ids = reference.recommend(K, padded, weights=by_task, depth=DEPTH)["ids"]
        expected = []
        for row, own in zip(chosen.itertuples(), ids, strict=True):
            every = [grade for (situation, _), grade in grades.items() if situation == _situation(row)]
            best = sum(g / math.log2(j + 2) for j, g in enumerate(sorted(every, reverse=True)[:K]))
            gain = sum(grades.get((_situation(row), item), 0.0) / math.log2(j + 2) for j, item in enumerate(own))
            expected.append(gain / best)
        np.testing.assert_allclose(found.ndcg(weights), expected, rtol=1e-6)
    assert found.users.tolist() == keys_of(tf.constant(chosen["user_id"].tolist())).numpy().tolist()


def test_judged_lists_are_served_ones(tmp_path: pathlib.Path) -> None:
    """Of a loaded export with these weights, by `recommend`."""
    model, _ = build()
    weights, judged = (0.3127, 0.1001, 0.5872), lists()
    given = dict(zip(judged.tasks, weights, strict=True))
    path = export(model, tmp_path, max_k=MAX_K, rerank_depth=DEPTH, fusion_weights=given)
    query = raw(model, rows().iloc[judged.rows], query=True)
    served = tf.saved_model.load(str(path)).signatures["recommend"](**query)["ids"].numpy().astype(str)
    recommender = Recommender(model, K, DEPTH)
    hits = recommender.shortlist(recommender.without_context(query)).hits.rows.numpy()
    ids = model.candidates.ids[np.take_along_axis(hits, judged.order(weights), axis=1)]
    np.testing.assert_array_equal(ids.astype(str), served[:, :K])


def test_negative_utilities_lower_the_value() -> None:
    model, _ = build()
    table = rows().assign(rating=(np.arange(300) % 3 == 0).astype(float))
    both = JudgedLists.of(Recommender(model, K, DEPTH), table, {"clicked": 1.0, "rating": -0.25}, None, None)
    alone = JudgedLists.of(Recommender(model, K, DEPTH), table, {"clicked": 1.0}, None, None)
    assert set(both.grades.ravel().tolist()) == {0.0, 1.0, -0.25, 0.75}
    assert (both.best() <= 1 + 1e-9).all()
    assert both.ndcg((1.0, 0.0, 0.0)).mean() < alone.ndcg((1.0, 0.0, 0.0)).mean()


def test_a_positive_outside_of_the_corpus_is_a_miss() -> None:
    model, frame = build()
    row = frame.iloc[[0, 0]].assign(item_id=["elsewhere", frame["item_id"].iloc[0]], clicked=1.0)
    found = JudgedLists.of(Recommender(model, K, 30), row, {"clicked": 1.0}, None, None)
    np.testing.assert_allclose(found.ideal, [1 + 1 / math.log2(3)])
    np.testing.assert_allclose(found.best(), [1 / (1 + 1 / math.log2(3))])


def test_progress_counts_queries() -> None:
    model, _ = build()
    calls: list[tuple[int, int]] = []
    judged = JudgedLists.of(Recommender(model, K), rows(), {"clicked": 1.0}, None, lambda *counts: calls.append(counts))
    assert calls[-1] == (len(judged.ideal), len(judged.ideal))
