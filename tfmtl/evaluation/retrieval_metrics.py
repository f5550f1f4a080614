"""Retrieval metrics of ranks: recall, precision, hit rate, NDCG, MAP, MRR and top-k accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int, require_several

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.integer[Any]]


def retrieval_metrics(
    ranks: npt.ArrayLike,
    groups: npt.ArrayLike,
    ks: Sequence[int] | int | None = None,
    *,
    items: npt.ArrayLike | None = None,
    num_candidates: int | None = None,
) -> dict[str, float]:
    r"""Return retrieval metrics such as recall@k and NDCG@k, averaged over queries (groups).

    Use it for the ranks of `rank_positives`; `evaluate` does both for a model. With the P positives of a group at ranks
    r_0 <= r_1 <= ... <= r_{P-1}, from 0, in the list of all candidates:

    - `recall@k` = #{j: r_j < k} / P
    - `precision@k` = #{j: r_j < k} / k
    - `hit_rate@k` = 1 if r_0 < k else 0
    - `ndcg@k` = sum_{r_j < k} 1 / log2(r_j + 2), divided by sum_{j < min(P, k)} 1 / log2(j + 2)
    - `map@k` = sum_{r_j < k} (j + 1) / (r_j + 1), divided by min(P, k)
    - `mrr` = 1 / (r_0 + 1)
    - `top_k_accuracy@k` = #{rows: rank < k} / #{rows}, every row counted as a query: the metric
      `factorized_top_k/top_k_categorical_accuracy` of TFRS

    Positives of one group with the same (tied) rank are spread around this rank, one position apart, so that a perfect
    list scores 1. A group with all positives outside the corpus (rank infinity) counts as a group of misses.

    Args:
        ranks: [n] ranks from 0, as `rank_positives` returns them.
        groups: [n] query of each row, of any sortable dtype.
        ks: cut-offs, integers from 1, or one of them; by default 10 and 100, except those above `num_candidates`.
        items: [n] candidate of each row. Given `items`, a (group, item) pair in several rows, which have equal ranks,
            is one positive of the group; `top_k_accuracy` still counts rows. Without `items` all pairs must be
            distinct.
        num_candidates: size of the corpus; a larger cut-off, with which a metric is trivially 1, is then an error.

    Returns:
        `{metric: value}`; the metrics of each k are adjacent, in the order of `ks`.

    Raises:
        ValueError: if there are no rows, lengths differ, a rank is negative or NaN, a cut-off is not a positive integer
            or above `num_candidates`, or repeated (group, item) pairs lead to impossible ranks.

    Example:
        >>> metrics = retrieval_metrics([0.0, 2.0, 5.0], ["ann", "ann", "bob"], ks=(3,))
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'recall@3': 0.5, 'precision@3': 0.333, 'ndcg@3': 0.46, 'map@3': 0.417, 'hit_rate@3': 0.5,
         'top_k_accuracy@3': 0.667, 'mrr': 0.583}

    Reference: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 2002 (binary
    gains); Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020, on the bias of metrics on a
    sample of the corpus.

    Cost: one sort of the rows.
    """
    ks = cut_offs(ks, num_candidates)
    _, values = retrieval_values(ranks, groups, ks, items=items, num_candidates=num_candidates)
    metrics: dict[str, float] = {}
    for k in ks:
        metrics |= {name: float(np.mean(v)) for name, v in values.items() if name.endswith(f"@{k}")}
        metrics[f"top_k_accuracy@{k}"] = float(np.mean(np.asarray(ranks) < k))
    return {**metrics, "mrr": float(np.mean(values["mrr"]))}


def retrieval_values(
    ranks: npt.ArrayLike,
    groups: npt.ArrayLike,
    ks: Sequence[int] | int | None = None,
    *,
    items: npt.ArrayLike | None = None,
    num_candidates: int | None = None,
) -> tuple[npt.NDArray[Any], dict[str, _Floats]]:
    """Return the sorted groups [g] and the metrics of each group [g], of which `retrieval_metrics` is the mean.

    Args:
        ranks, groups, ks, items, num_candidates: as in `retrieval_metrics`.

    Raises:
        ValueError: as in `retrieval_metrics`.

    Example:
        >>> users, values = retrieval_values([0.0, 2.0, 5.0], ["ann", "ann", "bob"], ks=(3,))
        >>> users.tolist(), values["recall@3"].tolist()
        (['ann', 'bob'], [1.0, 0.0])
    """
    row_ranks, row_groups = np.asarray(ranks, np.float64), np.asarray(groups)
    ks = cut_offs(ks, num_candidates)
    _check(row_ranks, row_groups, ks, num_candidates)
    lists = _ideal_checked(_listed(row_ranks, row_groups, items))
    values = {f"{name}@{k}": value for k in ks for name, value in _metrics_at(lists, k).items()}
    return np.unique(row_groups), {**values, "mrr": 1 / (lists.rank[lists.place == 0] + 1)}


def cut_offs(ks: Sequence[int] | int | None, num_candidates: int | None = None) -> tuple[int, ...]:
    """Return the cut-offs of an argument `ks`.

    Args:
        ks: several, one, or None for 10 and 100, of which those above the number of candidates are left out.
        num_candidates: size of the corpus, if known. In a corpus of fewer than 10 the default is its size.

    Example:
        >>> cut_offs(5), cut_offs(None), cut_offs(None, 60), cut_offs(None, 4)
        ((5,), (10, 100), (10,), (4,))
    """
    if ks is None:
        size = math.inf if num_candidates is None else num_candidates
        return tuple(k for k in (10, 100) if k <= size) or (int(size),)
    if isinstance(ks, int | np.integer):
        return (int(ks),)
    require_several(ks=ks)
    return tuple(ks)


class _Lists(NamedTuple):
    """The distinct positives, ordered by (group, rank)."""

    group: _Ints  # [p] index of the group
    rank: _Floats  # [p]
    place: _Ints  # [p] position among the positives of the group, from 0
    size: _Ints  # [groups] number of positives


def _listed(ranks: _Floats, groups: npt.NDArray[Any], items: npt.ArrayLike | None) -> _Lists:
    _, group = np.unique(groups, return_inverse=True)
    order: _Ints = np.lexsort((ranks, group)) if items is None else _distinct(group, ranks, np.asarray(items))
    group, ranks = group[order], ranks[order]
    size = np.bincount(group)
    place = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    return _Lists(group, _spread_ties(group, ranks), place, size)


def _distinct(group: _Ints, ranks: _Floats, items: npt.NDArray[Any]) -> _Ints:
    """Return rows in the order (group, rank), the first row of each (group, item) pair; its rows have equal ranks."""
    require(
        items.shape == group.shape,
        "`items` must name one candidate for each rank.",
        items=items.shape,
        ranks=group.shape,
    )
    order: _Ints = np.lexsort((items, ranks, group))
    group, items = group[order], items[order]
    first: npt.NDArray[np.bool_] = np.append(True, (group[1:] != group[:-1]) | (items[1:] != items[:-1]))
    return np.compress(first, order)


def _spread_ties(group: _Ints, ranks: _Floats) -> _Floats:
    """Spread equal ranks of a group around their common rank, one apart: [4, 4] -> [3.5, 4.5]."""
    new = np.append(True, (group[1:] != group[:-1]) | (ranks[1:] != ranks[:-1]))
    start = np.flatnonzero(new)
    length = np.diff(np.append(start, len(ranks)))
    offset = np.arange(len(ranks)) - np.repeat(start + (length - 1) / 2, length)
    return ranks + offset


def _ideal_checked(lists: _Lists) -> _Lists:
    require(
        not np.any(lists.rank < lists.place - 1e-9),
        "A group has more positives than its ranks have positions, so that a (group, item) pair must be repeated: pass "
        "`items` to `retrieval_metrics` to count each pair once.",
    )
    return lists


def _metrics_at(lists: _Lists, k: int) -> dict[str, _Floats]:
    listed = np.flatnonzero(lists.rank < k)
    group, rank, place = lists.group[listed], lists.rank[listed], lists.place[listed]

    def per_group(gains: _Floats | None = None) -> npt.NDArray[Any]:
        return np.bincount(group, weights=gains, minlength=len(lists.size))

    hits = per_group()
    reachable = np.minimum(lists.size, k)
    ideal = np.cumsum(1 / np.log2(np.arange(2, int(reachable.max()) + 2)))
    return {
        "recall": hits / lists.size,
        "precision": hits / k,
        "ndcg": per_group(1 / np.log2(rank + 2)) / ideal[reachable - 1],
        "map": per_group((place + 1) / (rank + 1)) / reachable,
        "hit_rate": (hits > 0).astype(np.float64),
    }


def _check(ranks: _Floats, groups: npt.NDArray[Any], ks: Sequence[int], num_candidates: int | None) -> None:
    require(ranks.ndim == 1 and ranks.size > 0, "`ranks` must be a list of at least one rank.", shape=ranks.shape)
    require(
        groups.shape == ranks.shape,
        "`groups` must name one query for each rank.",
        groups=groups.shape,
        ranks=ranks.shape,
    )
    require(bool((ranks >= 0).all()), "`ranks` must be numbers from 0 (infinity for a miss).", smallest=ranks.min())
    require(len(ks) > 0, "`ks` must hold at least one cut-off.", ks=ks)
    for k in ks:
        require_positive_int(k=k)
        require(
            num_candidates is None or k <= num_candidates,
            "A cut-off in `ks` is above the number of candidates, where every metric is trivial; leave it out.",
            k=k,
            num_candidates=num_candidates,
        )
