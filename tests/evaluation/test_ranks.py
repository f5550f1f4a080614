"""Ranks against a plain loop: ties, repeated rows, exclusions and block boundaries."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tfmtl.evaluation.ranks import rank_by_scores, rank_positives

Pairs = tuple[np.ndarray, np.ndarray]


def reference(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray, seen: Pairs | None = None) -> list[float]:
    """Return the ranks by counting in the list of each positive."""
    positives = set(zip(rows.tolist(), columns.tolist(), strict=True))
    removed = set() if seen is None else set(zip(seen[0].tolist(), seen[1].tolist(), strict=True)) - positives
    result = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if column < 0:
            result.append(float("inf"))
            continue
        others = [scores[row, c] for c in range(scores.shape[1]) if c != column and (row, c) not in removed]
        own = scores[row, column]
        result.append(sum(o > own for o in others) + sum(o == own for o in others) / 2)
    return result


def tied_embeddings(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return embeddings of small integers: their products are exact, with many ties."""
    return rng.integers(-2, 3, (rows, 3)).astype(np.float32)


def random_case(seed: int, num_queries: int, num_candidates: int, n: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, num_queries, n), rng.integers(-1, num_candidates, n)
    return tied_embeddings(rng, num_queries), tied_embeddings(rng, num_candidates), rows, columns


@pytest.mark.parametrize("block_bytes", [1, 700, 2**26])
@pytest.mark.parametrize(
    ("num_queries", "num_candidates", "n"),
    [(1, 1, 3), (1, 9, 4), (5, 1, 6), (7, 13, 5), (7, 13, 200), (20, 16, 30), (20, 17, 400)],
)
@pytest.mark.parametrize("with_seen", [False, True])
def test_equals_the_plain_loop(
    num_queries: int, num_candidates: int, n: int, block_bytes: int, with_seen: bool
) -> None:
    queries, candidates, rows, columns = random_case(n, num_queries, num_candidates, n)
    rng = np.random.default_rng(1)
    seen = (rng.integers(-1, num_queries, 3 * n), rng.integers(-1, num_candidates, 3 * n)) if with_seen else None
    expected = reference(queries @ candidates.T, rows, columns, seen)
    found = rank_positives(queries, candidates, rows, columns, seen=seen, block_bytes=block_bytes)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float64


def test_golden_values() -> None:
    # The query has the scores 3, 2, 2, 1. No score is above 3; for each 2 one score is above and one is tied, which
    # counts as one half; three scores are above 1.
    candidates = np.array([[3.0], [2.0], [2.0], [1.0]])
    found = rank_positives([[1.0]], candidates, [0, 0, 0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(found, [0, 1.5, 1.5, 3])
    # Without the seen candidate 0 each rank falls by 1; candidate 1 is seen but a positive, and is kept.
    found = rank_positives([[1.0]], candidates, [0, 0], [1, 3], seen=([0, 0], [0, 1]))
    np.testing.assert_array_equal(found, [0.5, 2])


def test_equal_scores_rank_in_the_middle() -> None:
    found = rank_positives(np.zeros((2, 4)), np.ones((9, 4)), [0, 1], [0, 8])
    np.testing.assert_array_equal(found, [4, 4])


@pytest.mark.parametrize("num_queries", [1, 2, 5, 31])
@pytest.mark.parametrize("num_candidates", [5, 17, 101])
def test_identical_candidates_tie_although_products_are_rounded(num_queries: int, num_candidates: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(num_queries, 33)).astype(np.float32)
    candidates = np.repeat(rng.normal(size=(1, 33)).astype(np.float32), num_candidates, axis=0)
    rows = np.arange(num_queries)
    found = rank_positives(queries, candidates, rows, rows % num_candidates)
    np.testing.assert_array_equal(found, (num_candidates - 1) / 2)


def test_candidates_that_differ_in_the_sign_of_zero_tie() -> None:
    rng = np.random.default_rng(0)
    candidates = np.repeat(rng.normal(size=(1, 200)).astype(np.float32), 31, axis=0)
    candidates[:, :9] = np.where(rng.random((31, 9)) < 0.5, 0.0, -0.0)  # nearly all rows differ in their bytes
    found = rank_positives(rng.normal(size=(31, 200)).astype(np.float32), candidates, np.arange(31), np.arange(31))
    np.testing.assert_array_equal(found, 15)


def test_repeated_candidates_among_others() -> None:
    queries, candidates, rows, columns = random_case(8, 6, 10, 80)
    candidates = candidates[[0, 1, 2, 3, 4, 2, 1, 7, 8, 2]] + np.float32(0.5)
    expected = reference(queries @ candidates.T, rows, columns)
    np.testing.assert_array_equal(rank_positives(queries, candidates, rows, columns), expected)


def test_all_others_seen_leaves_the_positive_first() -> None:
    queries, candidates, *_ = random_case(0, 3, 50, 1)
    seen = (np.repeat(np.arange(3), 50), np.tile(np.arange(50), 3))
    found = rank_positives(queries, candidates, [0, 1, 2], [7, 49, 0], seen=seen)
    np.testing.assert_array_equal(found, [0, 0, 0])


def test_empty_inputs() -> None:
    queries, candidates = np.ones((2, 3)), np.ones((4, 3))
    assert rank_positives(queries, candidates, [], []).shape == (0,)
    np.testing.assert_array_equal(rank_positives(queries, candidates, [1, 0], [-1, -1]), [np.inf, np.inf])
    found = rank_positives(queries, candidates, [0], [0], seen=([], []))
    np.testing.assert_array_equal(found, rank_positives(queries, candidates, [0], [0]))


def test_scorer_may_keep_its_result_and_use_any_query_number() -> None:
    table = np.array([[5.0, 9, 1], [4, 4, 4]])
    asked: list[int] = []

    def scores(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return table if len(rows) == 2 else table[:1]

    found = rank_by_scores(scores, 3, [70, 3, 70], [1, 0, 0], seen=([3], [1]))
    # Query 3 has the scores 5, 9, 1, of which 9 is seen; query 70 has three equal scores.
    np.testing.assert_array_equal(found, [1, 0, 1])
    np.testing.assert_array_equal(table, [[5, 9, 1], [4, 4, 4]])
    assert asked == [3, 70]
    np.testing.assert_array_equal(rank_by_scores(lambda rows: table.astype(int), 3, [3, 70], [1, 0]), [0, 1])


def test_float64_scores_are_not_rounded() -> None:
    close = np.array([[1.0, 1.0 + 1e-12]])
    np.testing.assert_array_equal(rank_by_scores(lambda rows: close, 2, [0], [0]), [1])
    np.testing.assert_array_equal(rank_positives(np.ones((1, 1)), close.T, [0], [0]), [1])


def test_progress_counts_queries() -> None:
    queries, candidates, rows, columns = random_case(2, 10, 8, 100)
    calls: list[tuple[int, int]] = []
    rank_positives(queries, candidates, rows, columns, block_bytes=3 * 8 * 6, progress=lambda *call: calls.append(call))
    assert calls == [(3, 10), (6, 10), (9, 10), (10, 10)]


@pytest.mark.parametrize("n", [300, 30_000], ids=["comparing", "sorting"])
def test_working_memory_is_bounded(n: int) -> None:
    queries, candidates, rows, columns = random_case(4, 300, 2_000, n)
    block_bytes = 2**21  # the whole score matrix is 2.4 million bytes, with its copy and masks 5 million
    tracemalloc.start()
    rank_positives(queries, candidates, rows, columns, block_bytes=block_bytes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < block_bytes + 100 * n + 2**18


def test_hits_equal_those_of_tfrs() -> None:
    from tfmtl._keras import tf  # isort: skip
    import tensorflow_recommenders as tfrs  # isort: skip  # after tfmtl has chosen Keras 2

    rng = np.random.default_rng(5)
    queries = rng.normal(size=(30, 8)).astype(np.float32)
    candidates = rng.normal(size=(60, 8)).astype(np.float32)
    rows, columns = rng.integers(0, 30, 200), rng.integers(0, 60, 200)
    ids = np.array([f"item {c}" for c in range(60)])
    index = tfrs.layers.factorized_top_k.BruteForce(k=20).index(tf.constant(candidates), tf.constant(ids))
    metric = tfrs.metrics.FactorizedTopK(index, ks=(1, 5, 20))
    metric.update_state(queries[rows], candidates[columns], true_candidate_ids=tf.constant(ids[columns]))
    found = rank_positives(queries, candidates, rows, columns)
    np.testing.assert_allclose([np.mean(found < k) for k in (1, 5, 20)], [float(r) for r in metric.result()], rtol=1e-6)


TWO = np.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 4)), TWO, [0], [0]), "same dimension.*query_embeddings=4, candidate_embeddings=3"),
        ((np.full((2, 3), np.nan), TWO, [0], [0]), "`query_embeddings` must be finite"),
        ((TWO, np.full((2, 3), np.inf), [0], [0]), "`candidate_embeddings` must be finite"),
        ((np.ones(3), TWO, [0], [0]), r"`query_embeddings` must have the shape.*shape=\(3,\)"),
        ((np.ones((2, 0)), TWO, [0], [0]), r"`query_embeddings` must have the shape.*shape=\(2, 0\)"),
        ((TWO, TWO, [2], [0]), "`query_index` must lie below the number of query embeddings, 2"),
        ((TWO, TWO, [-1], [0]), "`query_index` must not be negative"),
        ((TWO, TWO, [0], [2]), "between -1 .none. and 1.*largest=2"),
        ((TWO, TWO, [0], [-2]), "between -1 .none. and 1.*smallest=-2"),
        ((TWO, TWO, [0, 1], [0]), r"equal lengths.*\(2, 1\)"),
        ((TWO, TWO, [0.0], [0]), "integer arrays.*float64"),
        ((TWO, np.ones((0, 3)), [], []), "`num_candidates` must be a positive integer"),
    ],
)
def test_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_positives(*arguments)


def test_refuses_what_cannot_be_ranked() -> None:
    big = np.full((2, 3), 1e30, np.float32)
    with pytest.raises(ValueError, match="Scores must be finite"):
        rank_positives(big, big, [0], [0])
    with pytest.raises(ValueError, match=r"must have the shape \[1, 3\]. Received: shape=\(2,\)"):
        rank_by_scores(lambda rows: np.ones(2), 3, [0], [0])
    with pytest.raises(ValueError, match="the two arrays of `seen`"):
        rank_positives(TWO, TWO, [0], [0], seen=([0], [5]))
    with pytest.raises(ValueError, match="`block_bytes` must be a positive integer"):
        rank_positives(TWO, TWO, [0], [0], block_bytes=0)
