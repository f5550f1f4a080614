"""Retrieval metrics: values derived by hand, a plain loop, scikit-learn, and named properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from tfmtl.evaluation.retrieval_metrics import retrieval_metrics


def reference(ranks: list[float], groups: list[int], k: int) -> dict[str, float]:
    """Return the metrics by their definitions, group by group."""
    names = ("recall", "ndcg", "map", "hit_rate", "mrr")
    values: dict[str, list[float]] = {name: [] for name in names}
    for group in sorted(set(groups)):
        own = sorted(r for r, g in zip(ranks, groups, strict=True) if g == group)
        hits = [r for r in own if r < k]
        values["recall"].append(len(hits) / len(own))
        values["hit_rate"].append(float(bool(hits)))
        gain = sum(1 / math.log2(r + 2) for r in hits)
        values["ndcg"].append(gain / sum(1 / math.log2(j + 2) for j in range(min(k, len(own)))))
        precision = [sum(other <= r for other in own) / (r + 1) for r in hits]
        values["map"].append(sum(precision) / min(k, len(own)))
        values["mrr"].append(1 / (own[0] + 1))
    return {name: sum(v) / len(v) for name, v in values.items()}


def random_lists(seed: int, lists: int = 12, candidates: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return relevance [lists, candidates], scores without ties, and the ranks of the relevant candidates."""
    rng = np.random.default_rng(seed)
    relevant = rng.random((lists, candidates)) < rng.random((lists, 1))
    relevant[:, 0] = True
    scores = rng.permuted(np.tile(np.arange(candidates), (lists, 1)), axis=1).astype(float)
    return relevant, scores, candidates - 1 - scores


def test_golden_values() -> None:
    # ann's positives are 1st and 3rd of the list, bob's only one is 6th.
    found = retrieval_metrics([2.0, 0.0, 5.0], ["ann", "ann", "bob"], ks=(3, 10))
    assert found["recall@3"] == pytest.approx((2 / 2 + 0) / 2)
    assert found["recall@10"] == 1
    # ann: (1 / log2(2) + 1 / log2(4)) / (1 / log2(2) + 1 / log2(3)) = 1.5 / 1.63093; bob: 1 / log2(7) = 0.35621
    assert found["ndcg@3"] == pytest.approx(0.91972 / 2, abs=1e-5)
    assert found["ndcg@10"] == pytest.approx((0.91972 + 0.35621) / 2, abs=1e-5)
    # ann: (1/1 + 2/3) / 2; bob: 1/6
    assert found["map@3"] == pytest.approx(5 / 6 / 2)
    assert found["map@10"] == pytest.approx((5 / 6 + 1 / 6) / 2)
    assert found["hit_rate@3"] == 0.5
    assert found["hit_rate@10"] == 1
    assert found["mrr"] == pytest.approx((1 + 1 / 6) / 2)
    assert found["top_k_accuracy@3"] == pytest.approx(2 / 3)  # of three rows, not of two groups
    at_the_edge = retrieval_metrics([2.0, 0.0, 5.0], ["ann", "ann", "bob"], ks=(5, 6))
    assert (at_the_edge["top_k_accuracy@5"], at_the_edge["top_k_accuracy@6"]) == (pytest.approx(2 / 3), 1)


def test_more_positives_than_places() -> None:
    # Three positives fill the list from the top: at k = 2 recall can only reach 2/3, NDCG and MAP are perfect.
    found = retrieval_metrics([0, 1, 2], [7, 7, 7], ks=(2,))
    assert found["recall@2"] == pytest.approx(2 / 3)
    assert found["ndcg@2"] == found["map@2"] == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 30, 100])
def test_equals_the_textbook(seed: int, k: int) -> None:
    relevant, _, position = random_lists(seed)
    groups, columns = np.nonzero(relevant)
    order = np.random.default_rng(seed).permutation(len(groups))
    ranks, groups = position[groups, columns][order], groups[order]
    found = retrieval_metrics(ranks, groups, ks=(k,))
    for name, value in reference(ranks.tolist(), groups.tolist(), k).items():
        assert found[name if name == "mrr" else f"{name}@{k}"] == pytest.approx(value), name


@pytest.mark.parametrize("k", [1, 5, 30])
def test_equals_scikit_learn(k: int) -> None:
    relevant, scores, position = random_lists(9)
    groups, columns = np.nonzero(relevant)
    found = retrieval_metrics(position[groups, columns], groups, ks=(k, 30))
    assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score(relevant, scores, k=k))
    # With the whole list as the cut-off, average precision is scikit-learn's label ranking average precision.
    assert found["map@30"] == pytest.approx(label_ranking_average_precision_score(relevant, scores))


@pytest.mark.parametrize("tied", [1, 2, 3, 8])
def test_positives_tied_with_each_other_at_the_top_are_perfect(tied: int) -> None:
    found = retrieval_metrics([(tied - 1) / 2] * tied, [0] * tied, ks=(tied,))
    assert all(value == pytest.approx(1) for value in found.values()), found


def test_tie_with_other_candidates_lies_between_best_and_worst_order() -> None:
    best, tied, worst = (retrieval_metrics(r, [0, 0], ks=(4,)) for r in ([0, 1], [1.5, 1.5], [2, 3]))
    for name in ("ndcg@4", "map@4", "mrr"):
        assert worst[name] < tied[name] < best[name]


def test_positive_outside_the_corpus_is_a_miss_but_counts() -> None:
    found = retrieval_metrics([0, np.inf, np.inf], ["a", "a", "b"], ks=(1, 1000))
    assert found["recall@1000"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["top_k_accuracy@1000"] == pytest.approx(1 / 3)
    assert found["mrr"] == found["hit_rate@1000"] == found["map@1"] == 0.5


def test_repeated_rows_count_once_when_items_are_given() -> None:
    once = retrieval_metrics([0, 4, 4], ["a", "a", "b"], ks=(2, 5), items=["x", "y", "x"])
    twice = retrieval_metrics([4, 0, 4, 0], ["a", "a", "b", "a"], ks=(2, 5), items=["y", "x", "x", "x"])
    rows = {"top_k_accuracy@2", "top_k_accuracy@5"}
    assert {k: v for k, v in once.items() if k not in rows} == {k: v for k, v in twice.items() if k not in rows}
    assert (once["top_k_accuracy@2"], twice["top_k_accuracy@2"]) == (pytest.approx(1 / 3), pytest.approx(2 / 4))


def test_repeated_rows_of_tied_items_count_once() -> None:
    found = retrieval_metrics([0.5] * 4, [0] * 4, ks=(2,), items=["x", "y", "x", "y"])
    assert all(value == pytest.approx(1) for value in found.values()), found


def test_values_grow_with_k_and_stay_in_the_unit_interval() -> None:
    relevant, _, position = random_lists(4)
    groups, columns = np.nonzero(relevant)
    found = retrieval_metrics(position[groups, columns], groups, ks=range(1, 31))
    assert all(0 <= value <= 1 for value in found.values())
    for name in ("recall", "hit_rate", "top_k_accuracy"):
        assert np.all(np.diff([found[f"{name}@{k}"] for k in range(1, 31)]) >= 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranks": [], "groups": []}, "at least one rank"),
        ({"ranks": [0.0], "groups": [1, 2]}, "`groups` must name one query for each rank"),
        ({"ranks": [-1.0], "groups": [1]}, "numbers from 0"),
        ({"ranks": [np.nan], "groups": [1]}, "numbers from 0"),
        ({"ranks": [0.0], "groups": [1], "ks": ()}, "at least one cut-off"),
        ({"ranks": [0.0], "groups": [1], "ks": (0,)}, "`k` must be a positive integer. Received: k=0"),
        (
            {"ranks": [0.0], "groups": [1], "ks": (10,), "num_candidates": 9},
            "above the number of candidates, where every metric is trivial; leave it out. Received: k=10",
        ),
        ({"ranks": [0.0, 0.0], "groups": [1, 1]}, "pass `items`"),
        ({"ranks": [0.0], "groups": [1], "items": [1, 2]}, "`items` must name one candidate"),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(**arguments)
