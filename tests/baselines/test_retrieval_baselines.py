"""Baselines of retrieval: orders by hand, similarities against dense NumPy, hostile interactions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from tfmtl.baselines import ALS, EASE, Interactions, ItemKNN, PersonalFrequency, Popularity, RecentPopularity
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.evaluation.ranks import rank_by_scores

# Users 30, 10 and 20 and five candidates; candidate 4 has no interaction.
USERS = [30, 30, 30, 30, 10, 10, 20, 20, 20]
ITEMS = [2, 2, 0, 1, 1, 3, 1, 2, 3]
TIMES = [1.0, 2.0, 8.0, 5.0, 6.0, 6.0, 9.0, 3.0, 4.0]
SMALL = Interactions(USERS, ITEMS, 5, TIMES)
BASELINES: list[RetrievalBaseline] = [
    Popularity(),
    RecentPopularity(),
    RecentPopularity(half_life=1.0),
    PersonalFrequency(),
    ItemKNN(),
    EASE(),
]
names = [type(baseline).__name__ for baseline in BASELINES]


def order(baseline: RetrievalBaseline, user: int, interactions: Interactions = SMALL) -> list[list[int]]:
    """Return the candidates from best to worst, those with one score together."""
    scores = baseline.fit(interactions).scorer([user])(np.array([0]))[0]
    return [np.flatnonzero(scores == value).tolist() for value in np.unique(scores)[::-1]]


def test_matrix_counts_pairs_by_ascending_user() -> None:
    assert SMALL.known_users.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(SMALL.matrix().toarray(), [[0, 1, 0, 1, 0], [0, 1, 1, 1, 0], [1, 1, 2, 0, 0]])
    np.testing.assert_array_equal(SMALL.matrix("binary").toarray()[2], [1, 1, 1, 0, 0])
    np.testing.assert_allclose(SMALL.matrix("log").toarray()[2], [1, 1, 1 + np.log(2), 0, 0])
    np.testing.assert_array_equal(SMALL.newest, [6, 6, 9, 3, 4, 8, 5, 2])  # candidate 2 of user 30: 2, not 1
    np.testing.assert_array_equal(SMALL.rows_of([20, 99, 30, -1]), [1, -1, 2, -1])


def test_popularity_orders_by_count() -> None:
    assert order(Popularity(), 30) == order(Popularity(), 99) == [[1, 2], [3], [0], [4]]


def test_recent_popularity_orders_the_newest_rows_then_by_popularity() -> None:
    # A third of nine rows: the times 9, 8 and 6, where both rows at 6 count: candidates 1, 0, 1, 3.
    assert order(RecentPopularity(share=1 / 3), 99) == [[1], [3], [0], [2], [4]]
    # Of the newest row alone: candidate 1, then by popularity.
    assert order(RecentPopularity(share=0.1), 10) == [[1], [2], [3], [0], [4]]
    # Half-life 1: candidate 0 has 2^-1, candidate 1 has 1 + 2^-3 + 2^-4, 3 has 2^-3 + 2^-5, 2 has 2^-8 + 2^-7 + 2^-6.
    assert order(RecentPopularity(half_life=1.0), 10) == [[1], [0], [3], [2], [4]]


def test_personal_frequency_orders_by_count_then_time_then_popularity() -> None:
    assert order(PersonalFrequency(), 30) == [[2], [0], [1], [3], [4]]  # 2 twice; 0 at time 8, 1 at 5; 3 by popularity
    assert order(PersonalFrequency(), 10) == [[1], [3], [2], [0], [4]]  # one moment: 1 is more popular than 3
    assert order(PersonalFrequency(), 99) == [[1, 2], [3], [0], [4]]
    untimed = Interactions(USERS, ITEMS, 5)
    assert order(PersonalFrequency(), 30, untimed) == [[2], [1], [0], [3], [4]]  # without times 1 is more popular


@pytest.mark.parametrize("weighting", ["count", "log", "binary"])
@pytest.mark.parametrize("neighbors", [1, 2, 4])
def test_item_knn_is_the_shrunk_cosine_of_dense_columns(weighting: Any, neighbors: int) -> None:
    generator = np.random.default_rng(3)
    users, items = generator.integers(0, 12, 60), generator.integers(0, 7, 60)
    interactions = Interactions(users, items, 8)
    x = interactions.matrix(weighting).toarray()
    norms = np.linalg.norm(x, axis=0)
    similarity = x.T @ x / (np.outer(norms, norms) + 2.0)
    for i, row in enumerate(similarity):
        others = [j for j in np.argsort(-row, kind="stable") if j != i]
        row[others[neighbors:]] = 0
    scores = x @ similarity
    scores = np.where(scores > 0, scores, -1)  # the rest is ordered by popularity, below all others
    found = ItemKNN(neighbors, 2.0, weighting).fit(interactions).scorer(interactions.known_users)(np.arange(12))
    np.testing.assert_allclose(np.maximum(found, -1), np.where(scores > 0, scores, found), rtol=1e-12)
    assert (found[scores < 0] < 0).all()
    assert (found[scores > 0] > 0).all()


def test_item_knn_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ItemKNN(2).fit(SMALL).scorer([30, 10])(np.arange(2))
    monkeypatch.setattr("tfmtl.baselines.item_knn._BLOCK_BYTES", 1)
    np.testing.assert_array_equal(ItemKNN(2).fit(SMALL).scorer([30, 10])(np.arange(2)), whole)


def test_item_knn_orders_items_without_a_neighbour_by_popularity() -> None:
    apart = Interactions([1, 1, 2, 3, 3, 4], [0, 1, 2, 3, 2, 3], 5)
    found = ItemKNN().fit(apart).scorer([1])(np.array([0]))[0]
    assert (found[:2] > 0).all()
    assert found[2] == found[3] < 0
    assert found[4] < found[3]


@pytest.mark.parametrize("exact", [True, False])
def test_ease_multiplies_the_history_with_its_closed_form(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfmtl.baselines.ease._MOST_EXACT", 3000 if exact else 0)
    generator = np.random.default_rng(3)
    interactions = Interactions(generator.integers(0, 30, 150), generator.integers(0, 9, 150), 10)
    x = interactions.matrix("log").toarray()
    inverse = np.linalg.inv(x.T @ x + 7 * np.eye(10))
    weights = np.eye(10) - inverse / np.diag(inverse)
    np.testing.assert_allclose(np.diag(weights), 0, atol=1e-12)
    scorer = EASE(7.0, weighting="log").fit(interactions).scorer(interactions.known_users)
    np.testing.assert_allclose(scorer(np.arange(len(x))), x @ weights, atol=1e-9)


@pytest.mark.parametrize("baseline", BASELINES, ids=names)
def test_renaming_users_and_moving_candidates_changes_no_rank(baseline: RetrievalBaseline) -> None:
    users, items = np.array(USERS), np.array(ITEMS)
    move = np.array([3, 0, 4, 2, 1])
    queries, positives = [0, 0, 1, 2, 3], np.array([0, 4, 2, 1, 3])
    plain = rank_by_scores(baseline.fit(SMALL).scorer([10, 20, 30, 99]), 5, queries, positives)
    renamed = Interactions(1000 - users, move[items], 5, TIMES)
    scorer = baseline.fit(renamed).scorer([990, 980, 970, 99])
    np.testing.assert_array_equal(rank_by_scores(scorer, 5, queries, move[positives]), plain)


@pytest.mark.parametrize("baseline", BASELINES, ids=names)
def test_one_user_new_users_and_anonymous_rows(baseline: RetrievalBaseline) -> None:
    one = baseline.fit(Interactions([5], [2], 3, [0.0])).scorer([5, 6, -1])(np.arange(3))
    assert one.shape == (3, 3)
    assert np.isfinite(one).all()
    assert (one.argmax(axis=1) == 2)[isinstance(baseline, EASE) :].all()  # an only item has no other one to score it
    # Rows without a user count for popularity alone, and candidates outside the corpus count nowhere.
    rows = Interactions([-1, -1, 5, 5], [1, 1, 2, -1], 3, [0.0, 0.0, 0.0, 0.0])
    new = baseline.fit(rows).scorer([-1, 7])(np.arange(2))
    np.testing.assert_array_equal(new[0], new[1])
    assert np.argsort(-new[0]).tolist() == [1, 2, 0]
    everyone = baseline.fit(Interactions([-1], [1], 3, [0.0])).scorer([5])(np.array([0]))
    assert everyone.argmax() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Interactions([1], [-1], 3), "No positive interaction is inside the corpus"),
        (lambda: Interactions([], [], 3), "No positive interaction is inside the corpus"),
        (lambda: Interactions([1, 2], [1], 3), "arrays of one length"),
        (lambda: Interactions([1], [3], 3), "between -1 .none. and 2"),
        (lambda: Interactions([1], [1], 3, [np.nan]), "`times` must be finite"),
        (lambda: RecentPopularity().fit(Interactions([1], [1], 3)), "needs the times"),
        (lambda: RecentPopularity(share=0), "`share` must be"),
        (lambda: RecentPopularity(half_life=0), "`half_life` must be"),
        (lambda: ItemKNN(0), "`neighbors` must be a positive integer"),
        (lambda: ItemKNN(shrinkage=-1), "`shrinkage` must be 0 or more"),
        (lambda: SMALL.matrix("logs"), "Unknown value .'logs'. in `weighting`"),
        (lambda: EASE(0.0), "`regularization` must be above 0"),
        (lambda: ALS(alpha=0), "`alpha` must be above 0"),
        (lambda: Popularity().scorer([1]), "Call `fit` of Popularity"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_als_names_the_cure_where_implicit_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit", None)
    assert not ALS.installed()
    with pytest.raises(ImportError, match=r"pip install 'tfmtl\[baselines\]'"):
        ALS().fit(SMALL)


def test_als_finds_two_groups_of_users() -> None:
    pytest.importorskip("implicit")
    generator = np.random.default_rng(1)
    users = np.repeat(np.arange(40), 4)
    items = 5 * (users % 2) + generator.integers(0, 5, len(users))
    scorer = ALS(factors=2).fit(Interactions(users, items, 10)).scorer([0, 1])
    scores = scorer(np.arange(2))
    assert scores[0, :5].min() > scores[0, 5:].max()
    assert scores[1, 5:].min() > scores[1, :5].max()
