"""The rank of each positive among all candidates, computed from blocks of scores.

The rank of a positive is the number of candidates with a better score: it needs no top-k list and no index, and it
determines the metrics at every cut-off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl.evaluation.counting import FloatArray, IntArray, blocks, count_above
from tfmtl.evaluation.distinct import distinct_rows
from tfmtl.tasks.interests import best_scores, interests_in

Scorer: TypeAlias = Callable[[IntArray], FloatArray]
"""A function from queries [b] to their scores [b, num_candidates]."""
Progress: TypeAlias = Callable[[int, int], object]
"""A function that is called after each block with the number of ranked queries and the number of all queries."""

BLOCK_BYTES = 64 * 2**20
_BYTES_PER_SCORE = 18  # the result of a scorer, the copy of it that is compared or sorted, and masks


def rank_positives(
    query_embeddings: npt.ArrayLike,
    candidate_embeddings: npt.ArrayLike,
    query_index: npt.ArrayLike,
    candidate_index: npt.ArrayLike,
    *,
    seen: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
    num_interests: int = 1,
) -> npt.NDArray[np.float64]:
    """Return the rank of each positive among all candidates, by the dot product of embeddings.

    `rank = #{better candidates} + #{other candidates with the same score} / 2`, from 0: the mean over all orders of the
    ties. Without ties `rank < k` is the same as a hit at `k` in `FactorizedTopK` of TFRS, which puts a tied positive
    first.

    Args:
        query_embeddings: [Q, d], multiplied in float32, or in float64 if they are float64.
        candidate_embeddings: [C, d].
        query_index: [n] row in `query_embeddings` of each positive.
        candidate_index: [n] row in `candidate_embeddings` of each positive; -1 is a positive outside the corpus, with
            rank infinity, which is a miss at every cut-off.
        seen: (query rows [m], candidate rows [m]) of pairs to remove from the lists of their queries, usually the
            training interactions. Pairs with a -1 are ignored, and a seen pair that is also a positive is kept.
        block_bytes: bound of the working memory; a block holds at least one query.
        progress: called after each block with the number of ranked queries and the number of all queries.
        num_interests: K, number of vectors of a query, of which the largest dot product is the score; the query
            embeddings are then [Q, K d].

    Returns:
        Ranks [n], float64.

    Raises:
        ValueError: if the embeddings have different dimensions or a NaN, or an index is outside its table.

    Cost: one product [b, d] x [d, C] for each block of b queries with a positive, then C comparisons per positive, or
    C log C per query with many positives. A product of few queries is limited by reading the candidates: raise
    `block_bytes` if a block holds fewer than about 8 queries, at 6 bytes per query and candidate. In addition to the
    block, up to 100 bytes per candidate are needed for a short time.

    Example:
        >>> queries, candidates = np.eye(2), np.array([[3.0, 0.0], [2.0, 1.0], [1.0, 1.0]])
        >>> rank_positives(queries, candidates, [0, 1, 1], [1, 0, 2])
        array([1. , 2. , 0.5])
        >>> rank_positives(queries, candidates, [0], [1], seen=([0], [0]))
        array([0.])
    """
    require_positive_int(num_interests=num_interests)
    queries, candidates = _embeddings(query_embeddings, candidate_embeddings, num_interests)
    rows = np.asarray(query_index)
    require(
        rows.size == 0 or int(rows.max()) < len(queries),
        f"`query_index` must lie below the number of query embeddings, {len(queries)}.",
        largest=rows.max(initial=-1).item(),
    )
    products = _DotProducts(queries, candidates)
    return _rank(
        products, len(candidates), rows, candidate_index, seen, block_bytes, progress, products.bytes_per_score
    )


def rank_by_scores(
    scores: Scorer,
    num_candidates: int,
    query_index: npt.ArrayLike,
    candidate_index: npt.ArrayLike,
    *,
    seen: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Return the rank of each positive among all candidates, by any scoring function.

    Use it instead of `rank_positives` if a score is not a dot product, such as popularity, a ranking head or a blend.

    Args:
        scores: function from queries [b] to finite scores [b, num_candidates]; its result is copied before changes.
        num_candidates: C, the number of columns of the scores.
        query_index: [n] query of each positive, integers from 0 that `scores` accepts.
        candidate_index: [n] column of each positive, -1 outside the corpus.
        seen: as in `rank_positives`.
        block_bytes: as in `rank_positives`.
        progress: as in `rank_positives`.

    Returns:
        Ranks [n], float64.

    Raises:
        ValueError: if scores have another shape or are not finite, or an index is outside the corpus.

    Example:
        >>> popularity = np.array([5.0, 9.0, 1.0])
        >>> rank_by_scores(lambda rows: np.tile(popularity, (len(rows), 1)), 3, [0, 0, 7], [0, 2, 1])
        array([1., 2., 0.])
    """

    def copied(rows: IntArray) -> FloatArray:
        block = np.array(scores(rows))
        return block if np.issubdtype(block.dtype, np.floating) else block.astype(np.float64)

    return _rank(copied, num_candidates, query_index, candidate_index, seen, block_bytes, progress)


class _DotProducts:
    """The scorer of embeddings: dot products, computed block by block, or the largest of those of several vectors.

    Each distinct candidate is multiplied once: the rounding of BLAS depends on the position in the block and would
    break ties of equal candidates, such as items without history that share one embedding.
    """

    def __init__(self, queries: FloatArray, candidates: FloatArray) -> None:
        first, self._distinct_of = distinct_rows(candidates)
        self._all_distinct = len(first) == len(candidates)
        self._queries = queries
        self._rows = candidates if self._all_distinct else candidates[first]
        copies = interests_in(queries, candidates) + (0 if self._all_distinct else 1)
        self.bytes_per_score = candidates.itemsize * copies + 2  # products and masks

    def __call__(self, rows: IntArray) -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):  # `_checked_block` raises on an overflow
            product: FloatArray = best_scores(self._queries[rows], self._rows)
        return product if self._all_distinct else product[:, self._distinct_of]


class _Pairs(NamedTuple):
    """Pairs ordered by query: the input row, the position of its query in `queries`, and the candidate column."""

    source: IntArray
    position: IntArray
    column: IntArray

    def between(self, first: int, last: int) -> _Pairs:
        start, stop = np.searchsorted(self.position, (first, last))
        return _Pairs(self.source[start:stop], self.position[start:stop] - first, self.column[start:stop])


def _rank(
    scores: Scorer,
    num_candidates: int,
    query_index: npt.ArrayLike,
    candidate_index: npt.ArrayLike,
    seen: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    block_bytes: int,
    progress: Progress | None,
    bytes_per_score: int = _BYTES_PER_SCORE,
) -> npt.NDArray[np.float64]:
    require_positive_int(num_candidates=num_candidates, block_bytes=block_bytes)
    rows, columns = _index_pair((query_index, candidate_index), num_candidates, "`query_index` and `candidate_index`")
    require(not np.any(rows < 0), "`query_index` must not be negative.", smallest=rows.min(initial=0).item())
    excluded = _index_pair(([], []) if seen is None else seen, num_candidates, "the two arrays of `seen`")
    queries = np.unique(rows[columns >= 0])
    positives, removed = _grouped(rows, columns, queries), _grouped(*excluded, queries)
    ranks = np.full(len(rows), np.inf)
    for first, last in blocks(len(queries), max(1, block_bytes // (bytes_per_score * num_candidates))):
        chosen, without = positives.between(first, last), removed.between(first, last)
        block = _checked_block(scores(queries[first:last]), last - first, num_candidates)
        ranks[chosen.source] = _rank_in_block(block, chosen, without)
        del block  # free its memory before the next block is computed
        if progress is not None:
            progress(last, len(queries))
    return ranks


def _grouped(rows: IntArray, columns: IntArray, queries: IntArray) -> _Pairs:
    """Order the pairs by query; drop pairs with the column -1 and pairs of queries that `queries` (sorted) lacks."""
    position = np.searchsorted(queries, rows)
    known = columns >= 0
    known &= np.append(queries, -1)[position] == rows
    source = np.flatnonzero(known)
    source = source[np.argsort(position[source])]
    return _Pairs(source, position[source], columns[source])


def _rank_in_block(scores: FloatArray, positives: _Pairs, removed: _Pairs) -> npt.NDArray[np.float64]:
    """Return the ranks of the positives of one block; overwrites `scores` [b, C]."""
    place = (positives.position, positives.column)
    target = scores[place]
    scores[removed.position, removed.column] = -np.inf
    scores[place] = target  # a positive is kept in its list even if it was seen
    above, at_least = count_above(scores, positives.position, target)
    return above + (at_least - above - 1) / 2


def _embeddings(queries: npt.ArrayLike, candidates: npt.ArrayLike, interests: int) -> tuple[FloatArray, FloatArray]:
    tables = {"query_embeddings": np.asarray(queries), "candidate_embeddings": np.asarray(candidates)}
    for name, table in tables.items():
        valid = table.ndim == 2 and table.shape[1] > 0
        require(valid, f"`{name}` must have the shape [rows, dimension].", shape=table.shape)
        require(bool(np.isfinite(table).all()), f"`{name}` must be finite: a NaN or infinity cannot be ranked.")
    (_, width), (_, other) = (table.shape for table in tables.values())
    require(
        width == interests * other,
        "Query and candidate embeddings must have the same dimension."
        if interests == 1
        else f"Query embeddings must have {interests} times the dimension of candidate embeddings.",
        query_embeddings=width,
        candidate_embeddings=other,
    )
    dtype = np.result_type(np.float32, *tables.values())
    query_table, candidate_table = (table.astype(dtype, copy=False) for table in tables.values())
    return query_table, candidate_table


def index_array(values: npt.ArrayLike, where: str) -> IntArray:
    """Return `values` as a one-dimensional integer array; raise `ValueError` if they are not."""
    array = np.asarray(values, np.int64 if np.size(values) == 0 else None)
    valid = array.ndim == 1 and np.issubdtype(array.dtype, np.integer)
    require(valid, f"Expected one-dimensional integer arrays in {where}.", dtype=str(array.dtype), shape=array.shape)
    return array


def candidate_columns(values: npt.ArrayLike, num_candidates: int, where: str) -> IntArray:
    """Return `values` as candidates from -1 (none) to `num_candidates - 1`; raise `ValueError` if they are not."""
    columns = index_array(values, where)
    smallest, largest = int(columns.min(initial=0)), int(columns.max(initial=-1))
    require(
        smallest >= -1 and largest < num_candidates,
        f"The candidates in {where} must lie between -1 (none) and {num_candidates - 1}.",
        smallest=smallest,
        largest=largest,
    )
    return columns


def _index_pair(
    pair: tuple[npt.ArrayLike, npt.ArrayLike], num_candidates: int, where: str
) -> tuple[IntArray, IntArray]:
    rows, columns = index_array(pair[0], where), candidate_columns(pair[1], num_candidates, where)
    require(len(rows) == len(columns), f"Expected equal lengths in {where}.", lengths=(len(rows), len(columns)))
    return rows, columns


def _checked_block(scores: FloatArray, num_queries: int, num_candidates: int) -> FloatArray:
    require(
        scores.shape == (num_queries, num_candidates),
        f"Scores of a block must have the shape [{num_queries}, {num_candidates}].",
        shape=scores.shape,
    )
    require(bool(np.isfinite(scores).all()), "Scores must be finite: a NaN or infinity cannot be ranked.")
    return scores
