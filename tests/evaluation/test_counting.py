"""Counts of scores above a value: both methods against a plain loop, and the choice between them."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.evaluation.counting import blocks, count_above, count_by_comparing, count_by_sorting


@pytest.mark.parametrize("count", [count_above, count_by_comparing, count_by_sorting])
@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33])
@pytest.mark.parametrize("targets", [0, 1, 90])
def test_equals_the_plain_loop(count, length: int, targets: int) -> None:  # noqa: ANN001
    rng = np.random.default_rng(length)
    scores = rng.integers(0, 6, (4, length)).astype(np.float32)
    scores[0, 0] = -np.inf  # an excluded candidate
    rows, target = rng.integers(0, 4, targets), rng.integers(-1, 8, targets).astype(np.float32)
    above = [sum(s > t for s in scores[r]) for r, t in zip(rows, target, strict=True)]
    at_least = [sum(s >= t for s in scores[r]) for r, t in zip(rows, target, strict=True)]
    np.testing.assert_array_equal(count(scores.copy(), rows, target), [above, at_least])


@pytest.mark.parametrize(("targets", "sorts"), [(8, False), (9, True)])
def test_rows_are_sorted_where_they_have_more_targets_than_log2_of_their_length(targets: int, sorts: bool) -> None:
    scores = np.tile(np.arange(16.0)[::-1], (2, 1))  # the limit is log2(16) = 4 targets per row, 8 in total
    count_above(scores, np.zeros(targets, int), np.ones(targets))
    assert (scores[0, 0] == 0) == sorts


def test_blocks() -> None:
    assert list(blocks(7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(blocks(6, 3)) == [(0, 3), (3, 6)]
    assert list(blocks(0, 3)) == []
