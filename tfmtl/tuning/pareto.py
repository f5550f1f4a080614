"""Results with more than one objective: the Pareto front, and the selection of one result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from tfmtl._checks import require, require_known

Objectives: TypeAlias = "Mapping[str, Literal['min', 'max']]"
Row: TypeAlias = Mapping[str, Any]

_BLOCK = 256  # rows compared with all others at a time
_AUGMENTATION = 1e-3  # share of the sum in the distance: small enough to leave the order of distinct maxima alone


def pareto_front(rows: Sequence[Row] | Any, objectives: Objectives) -> list[dict[str, Any]]:
    """Return the rows that no other row beats, in their order.

    A row beats another if it is at least as good in every objective and better in one. Rows that are equal in all
    objectives do not beat each other: all of them stay. A row with a missing objective, None or NaN, neither stays nor
    beats.

    Args:
        rows: mappings such as those of `trials_table`, of which `metrics` is read, or a pandas table.
        objectives: by name, whether it is minimised (`"min"`) or maximised (`"max"`).

    Raises:
        ValueError: if there is no objective, a direction is another word, or no row has an objective.

    Example:
        >>> rows = [{"auc": 0.8, "rmse": 0.9}, {"auc": 0.7, "rmse": 1.0}, {"auc": 0.7, "rmse": 0.8}]
        >>> [rows.index(row) for row in pareto_front(rows, {"auc": "max", "rmse": "min"})]
        [0, 2]

    Cost: n^2 comparisons of n rows, 256 n at a time.
    """
    records = _records(rows)
    costs = _costs(records, objectives)
    return [dict(record) for record, stays in zip(records, undominated(costs), strict=True) if stays]


def undominated(costs: np.ndarray) -> np.ndarray:
    """Return which of n points no other beats [n].

    Args:
        costs: [n, objectives], all minimised; points with NaN neither stay nor beat.

    Example:
        >>> undominated(np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 2.0], [0.0, np.nan]])).tolist()
        [True, False, True, False]
    """
    stays = ~np.isnan(costs).any(axis=1)
    known = costs[stays]
    beaten = np.zeros(len(known), dtype=bool)
    for start in range(0, len(known), _BLOCK):
        part = known[start : start + _BLOCK, np.newaxis]
        beats = (known <= part).all(axis=2) & (known < part).any(axis=2)
        beaten[start : start + _BLOCK] = beats.any(axis=1)
    stays[stays] = ~beaten
    return stays


def select_from_front(
    rows: Sequence[Row] | Any,
    objectives: Objectives,
    *,
    weights: Mapping[str, float] | None = None,
    bounds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the row of the front that a stated preference picks.

    Of the front's rows within the bounds, the one nearest to the ideal point, which has the best value of every
    objective: min over rows of max_j w_j d_j + 0.001 sum_j w_j d_j, d_j = |f_j - ideal_j| / |nadir_j - ideal_j|, the
    nadir being the worst value on the front; d_j is 0 where all are equal. Ideal and nadir are those of the whole
    front, so that a bound moves no other choice. Of equal rows the first is taken.

    Args:
        rows, objectives: as of `pareto_front`.
        weights: w by objective, 0 or more, one above 0; those not named are 0. All 1 by default: a balanced choice.
        bounds: by objective, the largest value to be accepted if it is minimised, the smallest if it is maximised.

    Raises:
        ValueError: if a name is no objective, weights are not numbers of at least 0, or no row is within the bounds.

    Example:
        "An RMSE of at most 0.92, and then the best AUC":

        >>> rows = [{"auc": 0.8, "rmse": 0.95}, {"auc": 0.7, "rmse": 0.91}, {"auc": 0.6, "rmse": 0.9}]
        >>> select_from_front(rows, {"auc": "max", "rmse": "min"}, bounds={"rmse": 0.92}, weights={"auc": 1})
        {'auc': 0.7, 'rmse': 0.91}

    Reference:
        The augmented weighted Chebyshev distance of Steuer, Choo, "An interactive weighted Tchebycheff procedure for
        multiple objective programming", Mathematical Programming 26, 1983, https://doi.org/10.1007/BF02591870. Unlike a
        weighted sum it can reach every point of a front, also where the front is not convex.
    """
    front = pareto_front(rows, objectives)
    require(bool(front), f"No row has a value of each of the objectives {list(objectives)}.")
    wanted = _weights(weights, objectives)
    costs = _costs(front, objectives)
    ideal, nadir = costs.min(axis=0), costs.max(axis=0)
    spread = np.where(nadir > ideal, nadir - ideal, 1.0)
    apart = wanted * (costs - ideal) / spread
    distances = apart.max(axis=1) + _AUGMENTATION * apart.sum(axis=1)
    distances[~_within(front, costs, objectives, bounds or {})] = np.inf
    return front[int(np.argmin(distances))]


def value_of(row: Row, name: str) -> float:
    """Return a row's value of an objective, its own or that of its `metrics`; NaN if it has none."""
    value = row.get(name)
    if value is None:
        value = (row.get("metrics") or {}).get(name)
    return math.nan if value is None else float(value)


def _within(front: Sequence[Row], costs: np.ndarray, objectives: Objectives, bounds: Mapping[str, float]) -> np.ndarray:
    require_known(bounds, objectives, "objective", "`bounds`")
    names = list(objectives)
    within = np.ones(len(front), dtype=bool)
    for name, bound in bounds.items():
        column = names.index(name)
        within &= costs[:, column] <= (bound if objectives[name] == "min" else -bound)
    best = {name: (min if objectives[name] == "min" else max)(value_of(row, name) for row in front) for name in bounds}
    require(bool(within.any()), f"No row of the front is within the bounds; the best values are {best}.", bounds=bounds)
    return within


def _weights(weights: Mapping[str, float] | None, objectives: Objectives) -> np.ndarray:
    given = dict.fromkeys(objectives, 1.0) if weights is None else weights
    require_known(given, objectives, "objective", "`weights`")
    values = np.array([float(given.get(name, 0.0)) for name in objectives])
    valid = bool(np.isfinite(values).all() and (values >= 0).all() and values.any())
    require(valid, "`weights` must be 0 or more, and one above 0.", weights=weights)
    return values


def _records(rows: Any) -> list[Row]:
    return rows.to_dict("records") if hasattr(rows, "to_dict") else list(rows)


def _costs(rows: Sequence[Row], objectives: Objectives) -> np.ndarray:
    """Return the objectives as minimised values [rows, objectives]."""
    require(len(objectives) > 0, "`objectives` must name at least one.", objectives=objectives)
    for name, direction in objectives.items():
        require(direction in ("min", "max"), f"The direction of {name!r} must be 'min' or 'max'.", direction=direction)
    values = np.array([[value_of(row, name) for name in objectives] for row in rows]).reshape(-1, len(objectives))
    absent = [name for name, column in zip(objectives, values.T, strict=True) if len(rows) and np.isnan(column).all()]
    known = sorted({str(key) for row in rows for key in row})
    require(not absent, f"No row has a value of the objectives {absent}; rows have {known}.")
    return values * [1.0 if direction == "min" else -1.0 for direction in objectives.values()]
