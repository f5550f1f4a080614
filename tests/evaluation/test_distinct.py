"""Distinct rows against `numpy.unique`: repeated, zero and extreme rows, and equal hashes of all rows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tfmtl.evaluation import distinct
from tfmtl.evaluation.distinct import distinct_rows
from tfmtl.evaluation.ranks import rank_positives


def tables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    repeated = rng.normal(size=(50, 3))[rng.integers(0, 50, 400)]
    signs = np.where(rng.random((300, 6)) < 0.5, -1.0, 1.0)
    zeros = np.where(rng.random((300, 6)) < 0.5, -0.0, 0.0)
    one_hot = np.eye(40)[rng.integers(0, 40, 200)]
    tiny = rng.integers(0, 3, (300, 2)) * 5e-324
    return {
        "empty": np.zeros((0, 4)),
        "one row": np.ones((1, 4)),
        "all distinct": rng.normal(size=(400, 3)),
        "repeated": repeated,
        "signs": signs,
        "zeros of both signs": zeros,
        "one hot": one_hot,
        "one column of integers": rng.integers(0, 99, (400, 1)).astype(np.float64),
        "subnormal": tiny,
        "huge": repeated * 1e300,
        "every second column": rng.integers(0, 3, (200, 8)).astype(np.float64)[:, ::2],
    }


def check(table: np.ndarray) -> None:
    first, group = distinct_rows(table)
    assert len(first) == len(np.unique(table + 0, axis=0))
    assert group.shape == (len(table),)
    np.testing.assert_array_equal(table[first[group]], table)
    np.testing.assert_array_equal(group[first], np.arange(len(first)))
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", tables())
def test_groups_are_those_of_the_rows(name: str, dtype: type[np.floating]) -> None:
    with np.errstate(over="ignore"):  # huge numbers overflow to infinity in float32
        check(tables()[name].astype(dtype))


@pytest.mark.parametrize("name", tables())
def test_rows_that_share_their_bits_are_still_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_hashes", lambda table: np.zeros(len(table), np.uint64))
    check(tables()[name])


@pytest.mark.parametrize("name", ["repeated", "zeros of both signs"])
def test_pieces_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_BLOCK", 7)
    check(tables()[name])


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_of_many_small_integers_differ(width: int, dtype: type[np.floating]) -> None:
    # 65,536 rows of numbers with low bits 0: good hashes of 64 bits collide with probability 1e-10.
    digits = (np.arange(2**16)[:, None] // 16 ** np.arange(4) % 16) if width == 4 else np.arange(2**16)[:, None]
    assert len(np.unique(distinct._hashes(digits.astype(dtype)))) == 2**16


def test_ranking_holds_no_second_table_of_candidates() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(20_000, 256)).astype(np.float32)  # 20 MB
    distinct_rows(candidates[:10])  # the first call allocates caches
    monitored = candidates[:5], candidates, np.arange(5), np.arange(5)
    tracemalloc.start()
    rank_positives(*monitored, block_bytes=2**20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < candidates.nbytes
