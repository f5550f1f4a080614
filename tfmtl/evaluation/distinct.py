"""The distinct rows of a table, found without a second table in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tfmtl.evaluation.counting import FloatArray, IntArray, blocks

_BLOCK = 2**18  # numbers looked at together
_ODD = np.uint64(0x9E3779B97F4A7C15)  # of the golden ratio: spreads small differences over all bits


def distinct_rows(table: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the first row of each group of equal rows, and each row's group.

    Args:
        table: [n, d] without NaN; 0.0 and -0.0 are equal.

    Returns:
        (rows [m] of the table, group [n] of 0 to m - 1), `table[rows[group]] == table`; `rows` ascends.

    Example:
        >>> rows, group = distinct_rows(np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0]]))
        >>> rows, group
        (array([0, 1]), array([0, 1, 0]))

    Cost: one pass and a sort of n numbers, up to 100 bytes a row. Rows are told apart by 64 bits made of theirs and
    then compared; should two that differ share them, the rows themselves are sorted, with copies of the table.
    """
    _, first, group = np.unique(_hashes(table), return_index=True, return_inverse=True)
    if len(first) == len(table):
        return np.arange(len(table)), np.arange(len(table))
    rows, number = _in_order(first, group)
    if all(np.array_equal(table[a:b], table[rows[number[a:b]]]) for a, b in _pieces(table)):
        return rows, number
    return _in_order(*np.unique(table + 0, axis=0, return_index=True, return_inverse=True)[1:])


def _in_order(first: IntArray, group: IntArray) -> tuple[IntArray, IntArray]:
    """Number the groups by their first rows, so that whoever reads them by row reads memory from front to back."""
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return first[order], number[group.reshape(-1)]


def _pieces(table: FloatArray) -> Iterator[tuple[int, int]]:
    return blocks(len(table), max(1, _BLOCK // table.shape[1]))


def _hashes(table: FloatArray) -> npt.NDArray[np.uint64]:
    """Return 64 bits [n] for each row: sum of odd multiples of its mixed words, modulo 2^64."""
    width = table.shape[1] * table.itemsize // 4
    factors = np.random.default_rng(0).integers(0, 2**63, width, np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(table), np.uint64)
    for first, last in _pieces(table):
        block = np.ascontiguousarray(table[first:last] + 0)  # -0.0 and 0.0 are the same number in other bits
        words = block.view(np.uint32).astype(np.uint64) * _ODD
        words ^= words >> np.uint64(32)  # small numbers differ in their highest bits alone
        hashes[first:last] = words @ factors
    return hashes
