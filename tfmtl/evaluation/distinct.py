"""The distinct rows of a table, found without a copy of the table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tfmtl.evaluation.counting import FloatArray, IntArray, blocks

_BLOCK = 2**18  # numbers hashed or compared at a time
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: it spreads small differences over all bits


def distinct_rows(table: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the first row of each group of equal rows, and the group of each row.

    Args:
        table: [n, d] without NaN; 0.0 and -0.0 are equal.

    Returns:
        Indices of the first rows [m], ascending, and the group of each row [n], from 0 to m - 1, so that
        `table[rows[group]] == table`.

    Example:
        >>> rows, group = distinct_rows(np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0]]))
        >>> rows, group
        (array([0, 1]), array([0, 1, 0]))

    Cost: one pass and a sort of n numbers, up to 100 bytes per row. Rows are grouped by a hash of 64 bits and then
    compared; if two different rows have the same hash, the rows themselves are sorted, which copies the table.
    """
    _, first, group = np.unique(_hashes(table), return_index=True, return_inverse=True)
    if len(first) == len(table):
        return np.arange(len(table)), np.arange(len(table))
    rows, number = _in_order(first, group)
    if all(np.array_equal(table[a:b], table[rows[number[a:b]]]) for a, b in _pieces(table)):
        return rows, number
    return _in_order(*np.unique(table + 0, axis=0, return_index=True, return_inverse=True)[1:])


def _in_order(first: IntArray, group: IntArray) -> tuple[IntArray, IntArray]:
    """Number the groups in the order of their first rows, so that reading groups by row is sequential in memory."""
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return first[order], number[group.reshape(-1)]


def _pieces(table: FloatArray) -> Iterator[tuple[int, int]]:
    return blocks(len(table), max(1, _BLOCK // table.shape[1]))


def _hashes(table: FloatArray) -> npt.NDArray[np.uint64]:
    """Return a hash of each row [n]: the sum of odd multiples of its mixed words, modulo 2^64."""
    width = table.shape[1] * table.itemsize // 4
    factors = np.random.default_rng(0).integers(0, 2**63, width, np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(table), np.uint64)
    for first, last in _pieces(table):
        block = np.ascontiguousarray(table[first:last] + 0)  # -0.0 + 0 is 0.0: equal numbers need equal bits
        words = block.view(np.uint32).astype(np.uint64) * _ODD
        words ^= words >> np.uint64(32)  # small integers as floats differ only in their highest bits
        hashes[first:last] = words @ factors
    return hashes
