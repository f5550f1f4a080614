"""Count the scores of a row above a value, by comparison or by sorting: the inner loop of the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

_COMPARED = 2**16  # scores compared at a time, so that the copies fit the processor's cache


def count_above(scores: FloatArray, rows: IntArray, target: FloatArray) -> tuple[IntArray, IntArray]:
    """Count, for each target, the scores of its row above it and those not below it, by the cheaper method.

    Args:
        scores: [b, C]; may be overwritten.
        rows: [m] row of each target.
        target: [m].

    Returns:
        The number of scores above each target [m], and of those not below it [m].

    Example:
        >>> above, at_least = count_above(np.array([[3.0, 1.0, 2.0, 2.0]]), np.array([0]), np.array([2.0]))
        >>> above.item(), at_least.item()
        (1, 3)

    Cost: 2 C comparisons per target, or one sort per row if rows have more than log2(C) targets on average.
    """
    num_rows, length = scores.shape
    sorting_pays = len(target) > num_rows * np.log2(length)
    return (count_by_sorting if sorting_pays else count_by_comparing)(scores, rows, target)


def count_by_comparing(scores: FloatArray, rows: IntArray, target: FloatArray) -> tuple[IntArray, IntArray]:
    """Count as `count_above` does, by comparing each target with all scores of its row."""
    above, at_least = np.empty((2, len(target)), np.int64)
    for first, last in blocks(len(target), max(1, _COMPARED // scores.shape[1])):
        lists, bound = scores[rows[first:last]], target[first:last, None]
        above[first:last] = np.count_nonzero(lists > bound, axis=1)
        at_least[first:last] = np.count_nonzero(lists >= bound, axis=1)
    return above, at_least


def count_by_sorting(scores: FloatArray, rows: IntArray, target: FloatArray) -> tuple[IntArray, IntArray]:
    """Count as `count_above` does, by a binary search for all targets at once; sorts `scores` in place."""
    scores.sort(axis=1)
    num_candidates = scores.shape[1]
    below = _bisect(scores, rows, target, np.less)
    at_most = _bisect(scores, rows, target, np.less_equal)
    return num_candidates - at_most, num_candidates - below


def _bisect(ascending: FloatArray, rows: IntArray, target: FloatArray, before: np.ufunc) -> IntArray:
    """Count the leading elements of each target's row [m] for which `before(element, target)` is true."""
    length = ascending.shape[1]
    flat, start = ascending.ravel(), rows * length - 1
    found = np.zeros(len(target), np.int64)
    step = 1 << (length.bit_length() - 1)
    while step:
        ahead = found + step
        advance = before(flat[start + np.minimum(ahead, length)], target)
        found += step * (advance & (ahead <= length))
        step >>= 1
    return found


def blocks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Split `range(total)` into ranges (first, last) of length `size`; the last range may be shorter."""
    return ((first, min(first + size, total)) for first in range(0, total, size))
