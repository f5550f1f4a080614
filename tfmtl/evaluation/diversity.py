"""Metrics of each recommended list: distances inside it, categories, unexpectedness and serendipity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.evaluation.counting import IntArray, blocks
from tfmtl.evaluation.ranks import candidate_columns, index_array

_Floats = npt.NDArray[np.float64]
_BLOCK = 2**22  # numbers of a block of lists

Pairs = tuple[npt.ArrayLike, npt.ArrayLike]
"""Lists [m] and candidates [m]: the candidate at position i belongs to the list at position i."""


def diversity_metrics(
    lists: npt.ArrayLike,
    *,
    embeddings: npt.ArrayLike | None = None,
    categories: npt.ArrayLike | None = None,
    relevant: Pairs | None = None,
    expected: npt.ArrayLike | None = None,
) -> dict[str, float]:
    r"""Return the mean diversity and serendipity of recommended lists.

    Use it beside accuracy metrics and `catalog_metrics`, which has the novelty: a list of variants of one item may be
    accurate. For a list R of n candidates:

    - `intra_list_distance` = mean of 1 - cos(e_i, e_j) over its n (n - 1) / 2 pairs
    - `category_distance` = the same mean of [c_i != c_j]; for several categories per candidate that of the Jaccard
      distance 1 - #(c_i and c_j) / #(c_i or c_j)
    - `categories` = number of different categories in R
    - `unexpectedness` = #(R without E) / n, with E the candidates that a baseline shows as well
    - `serendipity` = #(relevant candidates of R without E) / n

    Args:
        lists: [queries, k] candidates, -1 for an empty position.
        embeddings: [C, d] of the candidates, such as those of a retrieval task or of a text.
        categories: [C] category of each candidate, a missing one being a category of its own; or [C, G], True for each
            category of a candidate.
        relevant: (list [m], candidate [m]) of the relevant pairs, such as the positives of a test split.
        expected: [queries, m] lists of a baseline, -1 for an empty position, or [m] one list for all queries, such as
            the most popular candidates, `np.argsort(-popularity(...))[:k]`.

    Returns:
        `{metric: value}` of the given arguments; means over the lists with a candidate, and for distances over those
        with two. NaN if there is none.

    Raises:
        ValueError: if a candidate is outside the corpus, or an argument has another shape or a NaN.

    Example:
        >>> lists, genres = [[0, 1, 2], [0, 2, -1]], ["drama", "drama", "war"]
        >>> found = diversity_metrics(lists, categories=genres, relevant=([0, 1], [2, 0]), expected=[0])
        >>> {name: round(value, 3) for name, value in found.items()}
        {'category_distance': 0.833, 'categories': 2.0, 'unexpectedness': 0.583, 'serendipity': 0.167}

    Reference: Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005; Ge et al.,
    "Beyond Accuracy: Evaluating Recommender Systems by Coverage and Serendipity", RecSys 2010, with the number of
    candidates as in Kotkov et al., "A survey of serendipity in recommender systems", Knowledge-Based Systems 2016.
    """
    values = diversity_values(lists, embeddings=embeddings, categories=categories, relevant=relevant, expected=expected)
    return {name: float(np.nanmean(own)) if (~np.isnan(own)).any() else float("nan") for name, own in values.items()}


def diversity_values(
    lists: npt.ArrayLike,
    *,
    embeddings: npt.ArrayLike | None = None,
    categories: npt.ArrayLike | None = None,
    relevant: Pairs | None = None,
    expected: npt.ArrayLike | None = None,
) -> dict[str, _Floats]:
    """Return the metrics of each list [queries], of which `diversity_metrics` is the mean; NaN where undefined.

    Use it for intervals, with `bootstrap_comparison`.

    Args:
        lists, embeddings, categories, relevant, expected: as in `diversity_metrics`.

    Raises:
        ValueError: as in `diversity_metrics`.

    Example:
        >>> diversity_values([[0, 1], [1, -1]], embeddings=[[1.0, 0.0], [0.0, 2.0]])["intra_list_distance"]
        array([ 1., nan])

    Cost: k d operations per list for embeddings, one sort of all positions for categories, k^2 G per list for several
    categories per candidate; in blocks.
    """
    rows = _lists(lists, "lists")
    values: dict[str, _Floats] = {}
    if embeddings is not None:
        values["intra_list_distance"] = _cosine_distance(rows, _corpus(embeddings, "embeddings", rows))
    if categories is not None:
        table = np.asarray(categories)
        several = table.ndim == 2
        values |= _of_sets(rows, _corpus(table, "categories", rows)) if several else _of_codes(rows, table)
    if expected is not None:
        values |= _against(rows, expected, relevant)
    require(expected is not None or relevant is None, "`relevant` needs `expected`, the lists of a baseline.")
    require(bool(values), "Give `embeddings`, `categories` or `expected`.")
    return values


def _lists(values: npt.ArrayLike, name: str) -> IntArray:
    rows = np.asarray(values)
    valid = rows.ndim == 2 and (np.issubdtype(rows.dtype, np.integer) or rows.size == 0)
    require(valid, f"`{name}` must be integers of the shape [queries, k].", shape=rows.shape, dtype=str(rows.dtype))
    return rows.astype(np.int64)


def _corpus(values: npt.ArrayLike, name: str, rows: IntArray) -> _Floats:
    table = np.asarray(values, np.float64)
    require(table.ndim == 2, f"`{name}` must have one row per candidate.", shape=table.shape)
    _require_inside(rows, len(table), name)
    require(bool(np.isfinite(table).all()), f"`{name}` must be finite.")
    return table


def _require_inside(rows: IntArray, size: int, name: str) -> None:
    largest = int(rows.max(initial=-1))
    require(largest < size, f"`lists` must name rows of `{name}`, from 0 to {size - 1}.", largest=largest)


def _pair_mean(equal: _Floats, count: _Floats) -> _Floats:
    """Return 1 minus the mean of similarities, given sums over ordered pairs; NaN for lists with fewer than two."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 1, 1 - equal / (count * (count - 1)), np.nan)


def _cosine_distance(rows: IntArray, table: _Floats) -> _Floats:
    """Sum the cosines of all pairs: the squared norm of the sum of unit vectors, without the pairs of one vector."""
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    units = np.divide(table, norms, out=np.zeros_like(table), where=norms > 0)
    units = np.concatenate([units, np.zeros_like(units[:1])])  # position -1 reads the last row
    total = np.empty(len(rows))
    for first, last in blocks(len(rows), max(1, _BLOCK // max(1, rows.shape[1] * table.shape[1]))):
        chosen = units[np.where(rows[first:last] < 0, len(table), rows[first:last])]  # [b, k, d]
        total[first:last] = (chosen.sum(1) ** 2).sum(1) - (chosen**2).sum((1, 2))
    return _pair_mean(total, (rows >= 0).sum(1).astype(np.float64))


def _of_codes(rows: IntArray, categories: npt.NDArray[np.generic]) -> dict[str, _Floats]:
    require(categories.ndim == 1, "`categories` must have the shape [C] or [C, G].", shape=categories.shape)
    _require_inside(rows, len(categories), "categories")
    names = categories.astype(str) if categories.dtype == object else categories
    _, code = np.unique(names, return_inverse=True)
    query, position = np.nonzero(rows >= 0)
    size = max(1, len(categories))
    pairs, count = np.unique(query * size + code[rows[query, position]], return_counts=True)
    own = pairs // size
    different = np.bincount(own, minlength=len(rows)).astype(np.float64)
    equal = np.bincount(own, count * (count - 1.0), minlength=len(rows)).astype(np.float64)
    listed = (rows >= 0).sum(1).astype(np.float64)
    return {"category_distance": _pair_mean(equal, listed), "categories": np.where(listed > 0, different, np.nan)}


def _of_sets(rows: IntArray, table: _Floats) -> dict[str, _Floats]:
    """Return the metrics for several categories per candidate; candidates without any are equal to each other."""
    require(bool(np.isin(table, (0, 1)).all()), "`categories` [C, G] must be True or False.")
    table = np.concatenate([table, np.zeros_like(table[:1])])
    equal, different = np.empty((2, len(rows)))
    width = rows.shape[1] * (table.shape[1] + rows.shape[1])
    for first, last in blocks(len(rows), max(1, _BLOCK // max(1, width))):
        there = rows[first:last] >= 0
        chosen = table[np.where(there, rows[first:last], len(table) - 1)]  # [b, k, G]
        both = chosen @ chosen.transpose(0, 2, 1)
        sizes = chosen.sum(2)
        either = sizes[:, :, None] + sizes[:, None, :] - both
        alike = np.divide(both, either, out=np.ones_like(both), where=either > 0)
        pairs = there[:, :, None] & there[:, None, :]
        equal[first:last] = (alike * pairs).sum((1, 2)) - there.sum(1)
        different[first:last] = (chosen.max(1, initial=0)).sum(1)
    listed = (rows >= 0).sum(1).astype(np.float64)
    return {"category_distance": _pair_mean(equal, listed), "categories": np.where(listed > 0, different, np.nan)}


def _against(rows: IntArray, expected: npt.ArrayLike, relevant: Pairs | None) -> dict[str, _Floats]:
    """Return the unexpected share of each list, and the share that is relevant as well."""
    baseline = np.asarray(expected)
    shown = _lists(
        np.broadcast_to(baseline, (len(rows), len(baseline))) if baseline.ndim == 1 else baseline, "expected"
    )
    require(len(shown) == len(rows), "`expected` must have a list for each of `lists`.", shape=shown.shape)
    size = int(max(rows.max(initial=0), shown.max(initial=0))) + 1
    keys = np.arange(len(rows))[:, None] * size
    surprising = (rows >= 0) & ~np.isin(keys + rows, (keys + shown)[shown >= 0])
    count = (rows >= 0).sum(1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {"unexpectedness": surprising.sum(1) / count}
        if relevant is not None:
            pairs = _relevant_keys(relevant, len(rows), size)
            values["serendipity"] = (surprising & np.isin(keys + rows, pairs)).sum(1) / count
    return values


def _relevant_keys(relevant: Pairs, queries: int, size: int) -> IntArray:
    """Return keys of the pairs with a candidate below `size`: no list holds the others."""
    query = candidate_columns(relevant[0], queries, "the lists of `relevant`")
    item = index_array(relevant[1], "the candidates of `relevant`")
    require(len(query) == len(item), "Expected equal lengths in `relevant`.", lengths=(len(query), len(item)))
    kept = (query >= 0) & (item >= 0) & (item < size)
    found: IntArray = query[kept].astype(np.int64) * size + item[kept]
    return found
