"""Mean and deviation of columns that are read in pieces."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

_ROUNDING = 2.0**-52
"""Relative deviation of a constant that was computed in several ways, in float64."""

_ROWS = 65_536  # added at a time, to bound memory

_LEAST = 2.0**-126  # the smallest float32 with all its digits

_SMALL = 2.0**-100  # float32 has no such number with all its digits after a division


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and standard deviation [size] of the observed values, after the feature's transform."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def need_float64(self) -> bool:
        """Whether float32 numbers of this size differ by more than a thousandth of the deviation.

        Unix seconds within two days are an example: float32 rounds them to multiples of 128.
        """
        pairs = zip(self.mean, self.deviation, strict=True)
        return any(abs(mean) > 2**13 * deviation or deviation < _SMALL for mean, deviation in pairs)


class RunningMoments:
    """Running count, mean and sum of squared distances from the mean of each column, in float64.

    Pieces are merged by the formulas of Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983:
    the sum of squares minus the square of the sum would cancel for numbers far from 0, such as unix seconds.
    """

    def __init__(self) -> None:
        self.count: Any = 0.0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add rows [N] or [N, size]; values that are not finite do not count."""
        for start in range(0, len(values), _ROWS):
            rows = slice(start, start + _ROWS)
            matrix = np.asarray(values[rows], np.float64).reshape(len(values[rows]), -1)
            self._add(matrix, np.ones([len(matrix), 1]) if weights is None else weights[rows, np.newaxis])

    def _add(self, matrix: np.ndarray, weights: np.ndarray) -> None:
        known = np.isfinite(matrix)
        weight = known * weights.astype(np.float64)
        count = weight.sum(0)
        total = self.count + count
        share = count / np.where(total > 0, total, 1.0)
        # one of the values is subtracted first, so that a constant column has its value as the mean and no deviation
        base = np.where(known.any(0), matrix[known.argmax(0), np.arange(matrix.shape[1])], 0.0)
        centred = np.where(known, matrix - base, 0.0)
        offset = (weight * centred).sum(0) / np.where(count > 0, count, 1.0)
        distance = np.where(count > 0, base + offset - self.mean, 0.0)
        self.squares = self.squares + (weight * (centred - offset) ** 2).sum(0) + distance**2 * self.count * share
        self.mean = np.where(self.count > 0, self.mean + distance * share, base + offset)
        self.count = total

    def moments(self) -> Moments:
        """Return the moments of all rows.

        A constant column has the deviation 1, and so has one that varies by no more than float64 rounds, or by less
        than the smallest float32.
        """
        deviation = np.sqrt(self.squares / np.maximum(self.count, 1e-12))
        constant = deviation <= np.maximum(_ROUNDING * np.abs(self.mean), _LEAST)
        deviation = np.where(constant, 1.0, deviation)
        return Moments(tuple(np.atleast_1d(self.mean).tolist()), tuple(np.atleast_1d(deviation).tolist()))
