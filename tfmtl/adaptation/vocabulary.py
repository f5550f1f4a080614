"""Vocabularies that grow at their end, so that no index changes its meaning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl.data import Feature, Schema, Statistics, fit_statistics


def extend_statistics(schema: Schema, statistics: Statistics, table: Any, *, headroom: float = 0.0) -> Statistics:
    """Return statistics with the values of a later table at the end of the vocabularies.

    Use it to grow a preprocessor alone; `extend_vocabularies` grows a whole model. A value enters once its occurrences
    reach the feature's `min_count`, the most frequent values first, up to `max_size`; until then its count is kept in
    `Statistics.waiting`. Values that were too rare in the training split are not stored there, so that their count
    starts at 0. Moments and label statistics do not change, since the weights were trained with them.

    Args:
        schema: roles and kinds of the columns.
        statistics: statistics of the data that the model was trained on.
        table: pandas table with the feature columns; labels are not read.
        headroom: free indices for later values, as a share of the size of a vocabulary that outgrows its indices.

    Raises:
        ValueError: if `headroom` is negative, the table is empty or a column is absent.

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data import Categorical
        >>> schema = Schema(query=[Categorical("user_id")])
        >>> statistics = fit_statistics(schema, pd.DataFrame({"user_id": ["b", "a", "b"]}))
        >>> later = extend_statistics(schema, statistics, pd.DataFrame({"user_id": ["a", "c"]}))
        >>> later.vocabularies["user_id"].tolist(), later.counts["user_id"].tolist()
        (['b', 'a', 'c'], [2, 2, 1])

    Cost: one pass over the table and one over the vocabularies.
    """
    require(headroom >= 0, "`headroom` must be 0 or more.", headroom=headroom)
    seen = fit_statistics(_of_every_value(schema), table)
    vocabularies, counts, waiting = dict(statistics.vocabularies), dict(statistics.counts), dict(statistics.waiting)
    capacity = dict(statistics.capacity)
    for name, feature in schema.vocabularies.items():
        found = dict(zip(seen.vocabularies[name].tolist(), seen.counts[name].tolist(), strict=True))
        values, counts[name], waiting[name] = _extended(
            feature, statistics.vocabularies[name], statistics.counts[name], statistics.waiting.get(name, {}), found
        )
        vocabularies[name] = values
        if len(values) + 2 > statistics.size(name):
            capacity[name] = with_headroom(len(values), headroom)
    return dataclasses.replace(
        statistics,
        vocabularies=vocabularies,
        counts=counts,
        rows=statistics.rows + len(table),
        waiting={name: rare for name, rare in waiting.items() if rare},
        capacity=capacity,
    )


def reserve_rows(statistics: Statistics, headroom: float = 0.25) -> Statistics:
    """Return statistics with free indices in every vocabulary, for the network of a model that will grow.

    Use it before `build_network`, so that the first increments of an `OnlineLearner` need no new network.

    Args:
        statistics: from `fit_statistics`.
        headroom: free indices per vocabulary, as a share of its size.

    Raises:
        ValueError: if `headroom` is negative.
    """
    require(headroom >= 0, "`headroom` must be 0 or more.", headroom=headroom)
    sizes = {
        name: max(with_headroom(len(v), headroom), statistics.size(name)) for name, v in statistics.vocabularies.items()
    }
    return dataclasses.replace(statistics, capacity=sizes)


def with_headroom(values: int, headroom: float) -> int:
    """Return the number of indices for `values` values, two reserved indices and a share `headroom` of free ones."""
    return 2 + values + math.ceil(headroom * values)


def _extended(
    feature: Feature, values: np.ndarray, counts: np.ndarray, waiting: Mapping[Any, int], found: Mapping[Any, int]
) -> tuple[np.ndarray, np.ndarray, dict[Any, int]]:
    """Return a vocabulary and its counts after the occurrences `found`, and the counts of values that wait."""
    known = {value: i for i, value in enumerate(values.tolist())}
    grown = counts.copy()
    rare = dict(waiting)
    for value, n in found.items():
        if value in known:
            grown[known[value]] += n
        else:
            rare[value] = rare.get(value, 0) + n
    least, most = getattr(feature, "min_count", 1), getattr(feature, "max_size", None)
    new = sorted((value for value, n in rare.items() if n >= least), key=lambda value: (-rare[value], value))
    new = new if most is None else new[: max(most - len(values), 0)]
    if new:
        kind = np.int64 if getattr(feature, "dtype", "string") == "int64" else object
        values = np.concatenate([values, np.asarray(new, kind)]).astype(kind)
        grown = np.concatenate([grown, np.asarray([rare[value] for value in new], np.int64)])
    entered = set(new)
    return values, grown, {value: n for value, n in rare.items() if value not in entered}


def _of_every_value(schema: Schema) -> Schema:
    """Return the schema without labels and without limits of the vocabularies."""
    open_limits = {"min_count": 1, "max_size": None}

    def open_to_all(feature: Feature) -> Feature:
        limits: dict[str, Any] = {n: open_limits[n] for n in open_limits if hasattr(feature, n)}
        return dataclasses.replace(feature, **limits)

    names = ("query", "candidate", "context")
    roles: dict[str, Any] = {role: tuple(map(open_to_all, getattr(schema, role))) for role in names}
    return dataclasses.replace(schema, labels=(), **roles)
