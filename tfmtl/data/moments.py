"""Mean and deviation of columns that are read in pieces."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and standard deviation [size] of the observed values, after the feature's transform."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class RunningMoments:
    """Running count, sum and sum of squares of each column, in float64."""

    def __init__(self) -> None:
        self.count: Any = 0.0
        self.sum: Any = 0.0
        self.squares: Any = 0.0

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add rows [N] or [N, size]; values that are not finite do not count."""
        matrix = values.astype(np.float64).reshape(len(values), -1)
        weight = np.isfinite(matrix) * (1.0 if weights is None else weights.reshape(-1, 1))
        known = np.nan_to_num(matrix)
        self.count = self.count + weight.sum(0)
        self.sum = self.sum + (weight * known).sum(0)
        self.squares = self.squares + (weight * known**2).sum(0)

    def moments(self) -> Moments:
        """Return the moments of all rows; a constant column has the deviation 1."""
        count = np.maximum(self.count, 1e-12)
        mean = self.sum / count
        variance = np.maximum(self.squares / count - mean**2, 0)
        deviation = np.sqrt(np.where(variance <= 1e-12 * mean**2, 1.0, variance))  # a constant column stays finite
        return Moments(tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(deviation).tolist()))
