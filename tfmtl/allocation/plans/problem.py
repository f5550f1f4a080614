"""How many phases each task takes part in, under a budget."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tfmtl.allocation.affinity import Floats

Counts = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Maximize sum_k values[k, m_k] over counts m_k in 0 ... P with base max(m) + sum_k costs_k m_k <= budget.

    The tasks of a phase share the cost `base`, so that the task with the most phases pays it for all.

    Attributes:
        values: [K, P + 1], the value of task k after m phases; values[:, 0] is 0.
        costs: [K], the cost of a phase of each task.
        base: the cost of a phase with any task.
        budget: the budget, in the same unit.
    """

    values: Floats
    costs: Floats
    base: float
    budget: float

    @property
    def most(self) -> int:
        """P, the number of phases."""
        return self.values.shape[1] - 1

    def cost(self, counts: Counts) -> float:
        """Return the cost of counts [K]."""
        return float(self.base * counts.max() + self.costs @ counts)

    def fits(self, counts: Counts) -> bool:
        """Return whether counts [K] are within the budget, apart from rounding."""
        return self.cost(counts) <= self.budget * (1 + 1e-9)

    def value(self, counts: Counts) -> float:
        """Return the value of counts [K]."""
        return float(self.values[np.arange(len(counts)), counts].sum())
