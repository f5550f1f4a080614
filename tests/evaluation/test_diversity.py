"""Metrics of lists: values by hand, plain loops over hostile lists, and bad input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tfmtl.evaluation import bootstrap_comparison, diversity, diversity_metrics, diversity_values

GENRES = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], bool)


def test_distances_by_hand() -> None:
    # Angles of 0, 90 and 180 degrees: distances 1 (0-1), 2 (0-2) and 1 (1-2), of any lengths.
    table = [[2.0, 0.0], [0.0, 0.1], [-3.0, 0.0], [5.0, 0.0]]
    found = diversity_values([[0, 1, 2], [0, 3, -1], [-1, 2, -1], [-1, -1, -1]], embeddings=table)
    assert found["intra_list_distance"][:2] == pytest.approx([4 / 3, 0.0])
    assert np.isnan(found["intra_list_distance"][2:]).all()
    assert diversity_metrics([[0, 1, 2], [0, 3, -1], [2, -1, -1]], embeddings=table) == {
        "intra_list_distance": pytest.approx(2 / 3)
    }


def test_categories_by_hand() -> None:
    # Of the pairs of a a b only one is equal; a b c has none.
    found = diversity_values([[0, 1, 2], [0, 2, 3], [0, 1, -1]], categories=["a", "a", "b", "c"])
    assert found["category_distance"] == pytest.approx([2 / 3, 1.0, 0.0])
    assert found["categories"].tolist() == [2, 3, 1]


def test_several_categories_by_hand() -> None:
    # 0 and 1 share one of two genres; 2 shares none with them; 3 and 4 have none and are equal.
    found = diversity_values([[0, 1, 2], [3, 4, -1], [3, 0, -1]], categories=GENRES)
    assert found["category_distance"] == pytest.approx([(0.5 + 1 + 1) / 3, 0.0, 1.0])
    assert found["categories"].tolist() == [3, 0, 2]


def test_serendipity_by_hand() -> None:
    # Popular are 0 and 1. List 0: 2 and 3 are unexpected, 3 is relevant. List 1: 1 is relevant and expected.
    relevant = ([0, 0, 1, 1, 0], [3, 0, 1, 9, -1])
    found = diversity_values([[0, 2, 3, -1], [1, 4, -1, -1], [-1] * 4], relevant=relevant, expected=[0, 1])
    assert found["unexpectedness"][:2] == pytest.approx([2 / 3, 1 / 2])
    assert found["serendipity"][:2] == pytest.approx([1 / 3, 0.0])
    assert np.isnan(found["serendipity"][2])
    own = diversity_values([[0, 2], [0, 2]], relevant=([0, 1], [2, 2]), expected=[[2, -1, 5], [0, -1, -1]])
    assert own["serendipity"].tolist() == [0.0, 0.5]
    assert own["unexpectedness"].tolist() == [0.5, 0.5]


def plain(
    row: list[int], table: np.ndarray, code: np.ndarray, sets: np.ndarray, liked: set[int], shown: set[int]
) -> dict[str, float]:
    """Return the metrics of one list by their definitions."""
    items = [i for i in row if i >= 0]
    pairs = list(itertools.combinations(items, 2))

    def cosine(i: int, j: int) -> float:
        norm = np.linalg.norm(table[i]) * np.linalg.norm(table[j])
        return float(1 - table[i] @ table[j] / norm) if norm else 1.0

    def jaccard(i: int, j: int) -> float:
        either = (sets[i] | sets[j]).sum()
        return float(1 - (sets[i] & sets[j]).sum() / either) if either else 0.0

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    surprising = [i for i in items if i not in shown]
    return {
        "intra_list_distance": mean([cosine(i, j) for i, j in pairs]),
        "category_distance": mean([float(code[i] != code[j]) for i, j in pairs]),
        "jaccard": mean([jaccard(i, j) for i, j in pairs]),
        "categories": len({code[i] for i in items}) if items else np.nan,
        "genres": float(np.any([sets[i] for i in items], axis=0).sum()) if items else np.nan,
        "unexpectedness": len(surprising) / len(items) if items else np.nan,
        "serendipity": len([i for i in surprising if i in liked]) / len(items) if items else np.nan,
    }


@pytest.mark.parametrize("block", [1, 50, 2**22])
@pytest.mark.parametrize("kind", ["usual", "one category", "zeros", "huge"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_plain_loops(seed: int, kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "_BLOCK", block)
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(12)[:6] for _ in range(9)])
    rows[rng.random(rows.shape) < 0.4] = -1
    rows[0], rows[1] = -1, [3, -1, -1, -1, -1, -1]
    table, code = rng.normal(size=(12, 4)), rng.choice(["x", "y", "z"], 12)
    sets = rng.random((12, 5)) < 0.3
    if kind == "one category":
        code[:], sets[:] = "x", [True, False, False, False, False]
    if kind == "zeros":
        table[::2], sets[::2] = 0, False
    if kind == "huge":
        table *= 1e150
    liked, shown = rng.random((9, 12)) < 0.4, np.stack([rng.permutation(12)[:4] for _ in range(9)])
    given: dict[str, Any] = {"relevant": np.nonzero(liked), "expected": shown}
    found = diversity_values(rows, embeddings=table, categories=code, **given)
    of_sets = diversity_values(rows, categories=sets)
    found |= {"jaccard": of_sets["category_distance"], "genres": of_sets["categories"]}
    for query in range(9):
        likes = set(np.flatnonzero(liked[query]).tolist())
        expected = plain(rows[query].tolist(), table, code, sets, likes, set(shown[query].tolist()))
        for name, value in expected.items():
            assert found[name][query] == pytest.approx(value, nan_ok=True, abs=1e-12), name


def test_missing_categories_are_one_category() -> None:
    for categories in (["a", None, None], [1.0, np.nan, np.nan]):
        found = diversity_values([[0, 1, 2]], categories=categories)
        assert found["category_distance"] == pytest.approx([2 / 3])


def test_no_list_has_no_value() -> None:
    found = diversity_metrics(np.zeros([0, 5], int), embeddings=np.eye(2), categories=[0, 1], expected=[0])
    assert set(found) == {"intra_list_distance", "category_distance", "categories", "unexpectedness"}
    assert np.isnan(list(found.values())).all()
    assert np.isnan(diversity_metrics([[1]], embeddings=np.eye(2))["intra_list_distance"])
    assert np.isnan(diversity_metrics([[]], categories=GENRES)["categories"])


def test_values_of_lists_have_intervals() -> None:
    values = {name: diversity_values([[0, 1], [1, 2]], categories=c)["category_distance"] for name, c in CODES.items()}
    models = {n: lambda w, v=v: {"distance": float(np.average(v, weights=w))} for n, v in values.items()}
    found = bootstrap_comparison(models, ["ann", "bob"], samples=20)
    assert found.loc[("fine", "distance"), "difference"] == pytest.approx(0.5)


CODES = {"coarse": ["a", "a", "b"], "fine": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("lists", "options", "sentence"),
    [
        ([0, 1], {"expected": [0]}, "`lists` must be integers of the shape"),
        ([[0.5]], {"expected": [0]}, "`lists` must be integers"),
        ([[0]], {}, "Give `embeddings`, `categories` or `expected`"),
        ([[0]], {"relevant": ([0], [0])}, "`relevant` needs `expected`"),
        ([[2]], {"embeddings": np.eye(2)}, "`lists` must name rows of `embeddings`, from 0 to 1.*largest=2"),
        ([[2]], {"categories": ["a", "b"]}, "`lists` must name rows of `categories`"),
        ([[0]], {"embeddings": [1.0]}, "one row per candidate"),
        ([[0]], {"embeddings": [[np.nan]]}, "`embeddings` must be finite"),
        ([[0]], {"categories": [[2]]}, "must be True or False"),
        ([[0]], {"categories": [[[1]]]}, "`categories` must have the shape"),
        ([[0]], {"expected": [[0], [1]]}, "`expected` must have a list for each"),
        ([[0]], {"expected": [0], "relevant": ([1], [0])}, "`relevant`"),
        ([[0]], {"expected": [0], "relevant": ([0, 0], [0])}, "equal lengths in `relevant`"),
    ],
)  # fmt: skip
def test_bad_lists_are_named(lists: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        diversity_metrics(lists, **options)
