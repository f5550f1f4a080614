"""TabularFeatures: raw columns as one matrix for trees, with counts and out-of-fold rates of categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl.baselines.interactions import Floats, Ints
from tfmtl.baselines.ranking_baseline import Target
from tfmtl.data.columns import Columns
from tfmtl.data.features import Feature

MOST_CATEGORIES = 250
"""Largest number of categories that scikit-learn's histograms can hold apart, less the missing one."""


class TabularFeatures:
    """Raw columns as one float matrix: numbers, codes of categories, counts, and smoothed rates of the label.

    - numbers are unchanged, NaN where missing; in a column with fewer than half of its numbers the missing ones lie
      below all others instead, because trees cannot split a column without a number; of a list the length is used
    - a category, also the missing one, has a code by its order among the training values, NaN if it is new
    - its count is the number of *other* training rows with it, so that a training row does not count itself
    - its rate is (sum w y + m p) / (sum w + m) with the smoothing m, over the training rows of other folds; p is the
      weighted mean of y in these rows. New rows use all training rows.

    A training row therefore never sees its own label, and rows of one group have one fold.

    Args:
        features: the features to use.
        smoothing: m, the weight of the mean.
        folds: number of folds, at least 2.
        seed: seed of the folds.
    """

    def __init__(self, features: Sequence[Feature], smoothing: float, folds: int, seed: int) -> None:
        self._features, self._smoothing, self._folds, self._seed = list(features), smoothing, folds, seed
        self._tables: dict[str, _Table] = {}
        self._fills: dict[str, Floats] = {}
        self.categorical: list[bool] = []

    def fit_transform(self, columns: Columns, target: Target, rows: Ints) -> Floats:
        """Fit to all training rows and return the matrix [len(rows), d] of some of them.

        Args:
            columns: raw columns by feature name; categories of all rows [n], other features of the chosen rows alone.
            target: the labels of all rows.
            rows: the chosen rows.
        """
        distinct, group = np.unique(target.groups, return_inverse=True)
        fold = np.random.default_rng(self._seed).integers(0, self._folds, len(distinct))[group.reshape(-1)]
        self.categorical, parts = [], []
        for feature in self._features:
            values = columns[feature.name]
            if is_category(feature):
                table = self._tables[feature.name] = _Table(values, target, fold, self._folds, self._smoothing)
                few = table.size <= MOST_CATEGORIES
                parts.append(table.of_training(fold)[rows])
                self.categorical += [few] + [False] * (parts[-1].shape[1] - 1)
            else:
                self._fills[feature.name] = fill = _fill(_numbers(values))
                parts.append(_filled(_numbers(values), fill))
                self.categorical += [False] * parts[-1].shape[1]
        return np.concatenate(parts, axis=1)

    def transform(self, columns: Columns) -> Floats:
        """Return the matrix [n, d] of new rows."""
        return np.concatenate(list(self._new(columns)), axis=1)

    def _new(self, columns: Columns) -> Iterator[Floats]:
        for feature in self._features:
            values, table = columns[feature.name], self._tables.get(feature.name)
            if table is None:
                yield _filled(_numbers(values), self._fills[feature.name])
            else:
                yield table.of_new(values)


class _Table:
    """Codes, counts and sums of the label of each value of one category."""

    def __init__(self, values: npt.NDArray[Any], target: Target, fold: Ints, folds: int, smoothing: float) -> None:
        listed = values.tolist()  # strings are found by their hash: sorting millions of them takes seconds
        self._code_of = {value: code for code, value in enumerate(sorted(set(listed)))}
        self._codes = np.fromiter(map(self._code_of.__getitem__, listed), np.int64, len(listed))
        self._smoothing = smoothing
        self.size = size = len(self._code_of)
        cell = self._codes * folds + fold
        columns = np.column_stack([np.ones(len(cell)), target.columns])  # of the weights, then of the labels

        def summed(weights: Floats) -> Floats:
            return np.asarray(np.bincount(cell, weights, minlength=size * folds), np.float64).reshape(size, folds)

        self._sums = np.stack([summed(target.weights * column) for column in columns.T], axis=2)  # [size, folds, 1 + d]
        self._counts = np.bincount(self._codes, minlength=size).astype(np.float64)

    def of_training(self, fold: Ints) -> Floats:
        """Return code, count and rates [n, 2 + d] of the training rows, by the rows of other folds."""
        others = self._sums.sum(axis=1, keepdims=True) - self._sums
        rates = self._rates(others, others.sum(axis=0, keepdims=True))[self._codes, fold]
        return np.column_stack([self._codes, self._counts[self._codes] - 1, rates])

    def of_new(self, values: npt.NDArray[Any]) -> Floats:
        """Return code, count and rates [n, 2 + d] of new rows, by all training rows."""
        found = np.fromiter((self._code_of.get(value, -1) for value in values.tolist()), np.int64, len(values))
        known = found >= 0
        sums = self._sums.sum(axis=1)
        rates = np.where(known[:, np.newaxis], self._rates(sums, sums.sum(axis=0))[found], _mean(sums.sum(axis=0)))
        codes = np.where(known, found, np.nan)
        return np.column_stack([codes, np.where(known, self._counts[found], 0), rates])

    def _rates(self, sums: Floats, total: Floats) -> Floats:
        return (sums[..., 1:] + self._smoothing * _mean(total)) / (sums[..., :1] + self._smoothing)


def _mean(total: Floats) -> Floats:
    """Return the means [..., d] of sums [..., 1 + d], of which the first is the weight; 0 without a weight."""
    mean: Floats = total[..., 1:] / np.maximum(total[..., :1], 1e-12)
    return mean


def is_category(feature: Feature) -> bool:
    """Return whether a feature has one string or integer per row."""
    return not feature.raw_spec.dtype.is_floating and feature.raw_spec.shape.rank == 1


def _numbers(values: npt.NDArray[Any]) -> Floats:
    """Return numbers [n, d], or the length [n, 1] of lists of ids."""
    if values.dtype.kind == "f":
        return values.reshape(len(values), -1).astype(np.float64)
    present = values != ("" if values.dtype == object else -1)
    return present.sum(axis=1, keepdims=True).astype(np.float64)


def _fill(numbers: Floats) -> Floats:
    """Return the value for missing numbers of each column [d]: below all numbers if most are missing, otherwise NaN."""
    absent = np.isnan(numbers)
    least = np.where(absent, np.inf, numbers).min(axis=0)
    least = np.where(absent.all(axis=0), 1.0, least)  # every missing number of an empty column is 0
    return np.where(absent.mean(axis=0) > 0.5, least - np.maximum(1.0, np.abs(least)), np.nan)


def _filled(numbers: Floats, fill: Floats) -> Floats:
    return np.where(np.isnan(numbers), fill, numbers)
