"""Metrics of lists and of the catalogue: scikit-learn, plain loops, ties, and lists without relevant rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfmtl.evaluation import catalog_metrics, list_metrics, retrieval_metrics
from tfmtl.evaluation.retrieval_metrics import retrieval_values


def random_lists(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    grades, groups = rng.integers(0, 4, 60).astype(float), rng.integers(0, 6, 60)
    scores = rng.integers(0, 5, 60).astype(float) if ties else rng.normal(size=60)
    return grades, scores, groups


@pytest.mark.parametrize("ties", [False, True])
def test_ndcg_equals_scikit_learn(ties: bool) -> None:
    for seed in range(100):
        grades, scores, groups = random_lists(seed, ties)
        for k in (1, 3, 50):
            own = [(grades[groups == g], scores[groups == g]) for g in np.unique(groups)]
            expected = [sklearn_metrics.ndcg_score([y], [s], k=k) for y, s in own if len(y) > 1 and y.any()]
            if all(len(y) > 1 for y, _ in own):
                assert list_metrics(grades, scores, groups, [k])[f"ndcg@{k}"] == pytest.approx(np.mean(expected))


def test_map_equals_scikit_learn_and_the_rest_plain_loops() -> None:
    for seed in range(100):
        grades, scores, groups = random_lists(seed, ties=False)
        wanted: dict[str, list[float]] = {name: [] for name in ("map", "mrr", "precision@3", "recall@3", "hit_rate@3")}
        for group in np.unique(groups):
            own = groups == group
            relevant = (grades[own] > 0)[np.argsort(-scores[own])]
            if not relevant.any():
                continue
            wanted["map"].append(sklearn_metrics.average_precision_score(grades[own] > 0, scores[own]))
            wanted["mrr"].append(1 / (1 + relevant.argmax()))
            wanted["precision@3"].append(relevant[:3].sum() / 3)
            wanted["recall@3"].append(relevant[:3].sum() / relevant.sum())
            wanted["hit_rate@3"].append(relevant[:3].any())
        found = list_metrics(grades, scores, groups, [3])
        assert {name: found[name] for name in wanted} == pytest.approx({n: np.mean(v) for n, v in wanted.items()})


def test_missing_grades_and_lists_without_a_relevant_row_count_nowhere() -> None:
    grades, scores, groups = [1.0, 0.0, np.nan, 0.0, 0.0], [0.1, 0.2, 0.9, 0.5, 0.4], [0, 0, 0, 1, 1]
    found = list_metrics(grades, scores, groups, [1])
    assert found == list_metrics(grades[:2], scores[:2], groups[:2], [1])
    assert (found["mrr"], found["precision@1"]) == (0.5, 0)
    assert all(np.isnan(value) for value in list_metrics([0.0], [1.0], [0]).values())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([-1.0], [0.0], [0]), "Grades must be 0 or more"),
        (([1.0], [np.nan], [0]), "predictions of rows that count must be finite"),
        (([1.0], [0.0], [0, 1]), "`groups` must name one list"),
        (([1.0], [0.0], [0], [0]), "k"),
        (([1.0], [0.0], [0], []), "at least one cut-off"),
    ],
)
def test_bad_lists_are_named(arguments: tuple, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        list_metrics(*arguments)


def test_values_of_each_query_are_what_the_metrics_average() -> None:
    rng = np.random.default_rng(1)
    pairs = np.unique(np.stack([rng.integers(0, 9, 60), rng.permutation(60)]), axis=1)
    groups, ranks = pairs
    users, values = retrieval_values(ranks, groups, (5, 20))
    found = retrieval_metrics(ranks, groups, (5, 20))
    assert users.tolist() == sorted(set(groups.tolist()))
    assert {name: float(v.mean()) for name, v in values.items()} == pytest.approx({n: found[n] for n in values})
    # Precision by its definition: ranks below 5 of each user, over 5.
    expected = [np.sum(ranks[groups == user] < 5) / 5 for user in users]
    assert values["precision@5"].tolist() == pytest.approx(expected)


def test_catalog_by_its_definitions() -> None:
    rng = np.random.default_rng(2)
    lists, popularity = rng.integers(0, 30, (40, 5)), rng.integers(0, 9, 30)
    found = catalog_metrics(lists, 30, popularity)
    exposure = np.bincount(lists.ravel(), minlength=30)
    # The Gini coefficient is the mean absolute difference over twice the mean.
    assert found["gini"] == pytest.approx(np.abs(exposure[:, None] - exposure).mean() / (2 * exposure.mean()))
    assert found["coverage"] == pytest.approx(len(np.unique(lists)) / 30)
    share = popularity / popularity.sum()
    bits = [-np.log2(max(share[i], 1 / popularity.sum())) for i in lists.ravel()]
    assert found["novelty"] == pytest.approx(np.mean(bits))
    assert found["popularity_bias"] == pytest.approx(share[lists].mean() / np.sum(share**2))


def test_lists_that_are_all_alike_and_all_the_same() -> None:
    assert catalog_metrics(np.arange(12).reshape(3, 4), 12)["gini"] == pytest.approx(0)
    assert catalog_metrics(np.zeros((3, 1), int), 12)["gini"] == pytest.approx(11 / 12)
    assert catalog_metrics([[0, -1]], 2)["coverage"] == 0.5


@pytest.mark.parametrize(
    ("lists", "popularity", "sentence"),
    [
        ([0, 1], None, "shape"), ([[5]], None, "rows of the corpus"), ([[-1]], None, "at least one candidate"),
        ([[0]], [1.0], "one entry per candidate"), ([[0]], [0.0, 0.0], "not all 0"),
    ],
)  # fmt: skip
def test_bad_catalogs_are_named(lists: list, popularity: list | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        catalog_metrics(lists, 2, popularity)
