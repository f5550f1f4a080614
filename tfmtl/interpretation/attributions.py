"""Attributions: the parts of features in the value of each task in each row."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl.models.explained import Floats


@dataclasses.dataclass(frozen=True)
class Attributions:
    """The part of each feature in the explained value of each task, per row.

    The explained value is the logit of a task for events, and otherwise the served value; of the classes of a task, the
    one with the largest value in the row counts, or the chosen one.

    Attributes:
        features: names of the F features or groups.
        tasks: names of the K tasks.
        values: parts [N, F, K].
        output: explained values [N, K].
        base: explained values at the baseline [N, K].
        gap: output - base - sum of the parts [N, K], the completeness gap; 0 for exact attributions.
        positions: for each list of ids the parts of its positions [N, length, K].
        errors: standard errors [N, F, K] of sampled parts; None otherwise.
    """

    features: list[str]
    tasks: list[str]
    values: Floats
    output: Floats
    base: Floats
    gap: Floats
    positions: dict[str, Floats] = dataclasses.field(default_factory=dict)
    errors: Floats | None = None

    def order(self, task: str) -> list[str]:
        """Return the features in the order of their mean absolute parts for a task, the largest first."""
        require_known([task], self.tasks, "task", "the attributions")
        sizes = np.abs(self.values[..., self.tasks.index(task)]).mean(axis=0)
        return [self.features[i] for i in np.argsort(-sizes, kind="stable")]

    def history(self, feature: str) -> Floats:
        """Return the parts of the positions of a list of ids [N, length, K].

        Raises:
            ValueError: if the model has no such list.
        """
        require(bool(self.positions), f"The model has no list of ids, so that {feature!r} has no positions.")
        require_known([feature], self.positions, "list of ids", "the attributions")
        return self.positions[feature]

    def to_frame(self) -> Any:
        """Return a pandas table with the column `value` (and `error`), indexed by row, feature and task."""
        from tfmtl.interpretation.tables import long_table

        rows = list(range(len(self.values)))
        errors = {} if self.errors is None else {"error": self.errors}
        index: Any = {"row": rows, "feature": self.features, "task": self.tasks}
        return long_table(index, {"value": self.values, **errors})

    def to_shap(self, task: str) -> Any:
        """Return the attributions of a task as a `shap.Explanation`, for the plots of the package `shap`.

        Raises:
            ImportError: if `shap` is not installed.
        """
        require_known([task], self.tasks, "task", "the attributions")
        if importlib.util.find_spec("shap") is None:
            raise ImportError("`to_shap` needs the package `shap`, which is not installed; run `pip install shap`.")
        shap: Any = importlib.import_module("shap")
        k = self.tasks.index(task)
        return shap.Explanation(self.values[..., k], self.base[:, k], feature_names=self.features)
