"""Metrics of slices: cold and warm users, popular and rare items, values of a column."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl._checks import require, require_positive_int
from tfmtl.data import Categorical, to_columns


def by_slice(
    metric: Callable[..., Mapping[str, float]], slices: Mapping[str, Any], *columns: Any, **options: Any
) -> pd.DataFrame:
    """Return a metric for each part of the rows, such as cold and warm users.

    Use it to find groups for which a model is worse than its average suggests.

    Args:
        metric: function of the columns such as `binary_metrics` or `retrieval_metrics`.
        slices: the part of each row [n], by name of the slice: the result of `activity`, `popularity_tiers` or
            `quantiles`, or any column of a table. Rows with a missing value belong to no part.
        *columns: positional arguments of the metric: arrays [n] or [n, ...], or None.
        **options: keyword arguments of the metric.

    Returns:
        One line per part, with the index (slice, part), the number of `rows` and the metrics. The first line, (all, ),
        is that of all rows. The metrics of a part are NaN if `metric` raises, such as without an observed label.

    Raises:
        ValueError: if a slice or a column has another length.

    Example:
        >>> from tfmtl.evaluation import regression_metrics
        >>> found = by_slice(regression_metrics, {"sex": ["f", "f", "m"]}, [1.0, 2.0, 3.0], [1.0, 2.0, 5.0])
        >>> found["mae"].round(2).tolist(), found["rows"].tolist()
        ([0.67, 0.0, 2.0], [3, 2, 1])
    """
    arrays = [None if column is None else np.asarray(column) for column in columns]
    require(any(array is not None for array in arrays), "`by_slice` needs at least one column of rows.")
    rows = len(next(array for array in arrays if array is not None))
    require(all(a is None or len(a) == rows for a in arrays), f"Every column must have {rows} rows.")
    found = {("all", ""): _measured(metric, arrays, np.ones(rows, bool), options)}
    for name, values in slices.items():
        parts = pd.Series(pd.Categorical(values) if not isinstance(values, pd.Series) else values.to_numpy())
        require(len(parts) == rows, f"Slice {name!r} must have a part for each of the {rows} rows.", rows=len(parts))
        for part in pd.Categorical(parts).categories:
            chosen = (parts == part).to_numpy(bool)
            if chosen.any():
                found[name, str(part)] = _measured(metric, arrays, chosen, options)
    index = pd.MultiIndex.from_tuples(list(found), names=["slice", "part"])
    return pd.DataFrame(list(found.values()), index)


def _measured(metric: Any, arrays: Sequence[Any], chosen: npt.NDArray[np.bool_], options: Any) -> dict[str, float]:
    try:
        values = dict(metric(*(None if array is None else array[chosen] for array in arrays), **options))
    except ValueError:
        if chosen.all():
            raise
        values = {}
    return {"rows": int(chosen.sum()), **values}


def activity(ids: npt.ArrayLike, train_ids: npt.ArrayLike, edges: Sequence[int] = (1, 5, 20)) -> pd.Categorical:
    """Return, for each row, the interval of the number of training rows of its user (or item).

    The first part are cold users, with fewer training rows than the first edge.

    Args:
        ids: [n] user of each row.
        train_ids: [m] users of the training rows.
        edges: least count of each part after the first, ascending.

    Example:
        >>> list(activity(["a", "b", "c"], ["a", "a", "b"], edges=(1, 2)))
        ['2+', '1', '0']
    """
    require(all(a < b for a, b in itertools.pairwise([0, *edges])), "`edges` must ascend from 1.", edges=edges)
    own, others = _of_one_kind(ids, train_ids)
    counts = own.map(others.value_counts()).fillna(0).to_numpy()
    bounds = [0, *edges]
    names = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in itertools.pairwise(bounds)]
    names.append(f"{bounds[-1]}+")
    return pd.Categorical.from_codes(np.searchsorted(edges, counts, side="right"), names, ordered=True)


def popularity_tiers(
    ids: npt.ArrayLike, train_ids: npt.ArrayLike, shares: Sequence[float] = (0.5, 0.8)
) -> pd.Categorical:
    """Return, for each row, the popularity tier of its item: `head`, `middle` or `tail`.

    The head are the most popular items, which together have the first share of the training rows; the middle are the
    following items up to the second share; the tail are all other items, also those without a training row.

    Args:
        ids: [n] item of each row.
        train_ids: [m] items of the training rows.
        shares: the two cumulative shares, ascending.

    Example:
        >>> list(popularity_tiers(["a", "b", "c", "z"], ["a"] * 5 + ["b"] * 3 + ["c"] * 2))
        ['head', 'middle', 'tail', 'tail']
    """
    require(len(shares) == 2 and 0 < shares[0] < shares[1] < 1, "`shares` must be two ascending shares.", shares=shares)
    own, others = _of_one_kind(ids, train_ids)
    return tiers_by_counts(own, others.value_counts(), shares)


def tiers_by_counts(own: pd.Series, counts: pd.Series, shares: Sequence[float] = (0.5, 0.8)) -> pd.Categorical:
    """Return the popularity tier of each row by the number of training rows of its item.

    Args:
        own: [n] item of each row.
        counts: training rows by item, the most frequent one first.
        shares: as in `popularity_tiers`.
    """
    before = (counts.cumsum() - counts) / counts.sum()
    tier = pd.Series(np.searchsorted(shares, before.to_numpy() + 1e-12, side="right"), counts.index)
    codes = own.map(tier).fillna(2).to_numpy(np.int64)
    return pd.Categorical.from_codes(codes, ["head", "middle", "tail"], ordered=True)


def _of_one_kind(*columns: npt.ArrayLike) -> list[pd.Series]:
    """Return columns of ids as comparable values: numbers, or else strings as a model reads them, NaN where missing."""
    given = [pd.Series(np.asarray(column)) for column in columns]
    if all(pd.api.types.is_numeric_dtype(column) for column in given):
        return given
    read = [to_columns(pd.DataFrame({"id": column}), [Categorical("id")])["id"] for column in given]
    return [pd.Series(column).replace("", np.nan) for column in read]


def quantiles(values: npt.ArrayLike, parts: int = 4) -> pd.Categorical:
    """Return, for each row, its interval of `parts` intervals that hold about equally many rows.

    Example:
        >>> quantiles([1.0, 2.0, 3.0, 4.0], parts=2).codes.tolist()
        [0, 0, 1, 1]
    """
    require_positive_int(parts=parts)
    return pd.qcut(np.asarray(values, np.float64), parts, duplicates="drop")
