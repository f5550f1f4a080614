"""Drift detection by the population stability index (PSI) of columns and by the Page-Hinkley test of metrics."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import stats

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl.adaptation.page_hinkley import PageHinkley
from tfmtl.data import Schema, to_columns
from tfmtl.data.columns import to_labels
from tfmtl.data.features import MISSING_INTEGER


@dataclasses.dataclass(frozen=True)
class Alarm:
    """A column or a metric that has changed.

    Attributes:
        column: name of the column or the metric.
        statistic: its population stability index, or the statistic of the Page-Hinkley test.
        threshold: the limit that the statistic exceeds.
    """

    column: str
    statistic: float
    threshold: float


class DriftMonitor:
    """Drift detection by PSI: compares each table with the preceding ones, column by column, and watches metrics.

    Use it beside `OnlineLearner`, or alone to check new data before training.

    PSI = sum_b (p_b - q_b) ln(p_b / q_b) over the bins b of a column, q its shares in the last `window` tables and p
    those in the new one, half a row added to every bin. Bins are quantiles of the first table's numbers, or its
    most frequent values and one bin for the rest; missing values have another one. Lists count by their values, vectors
    by component, and a label's column is called `label:<task>`.

    Without drift PSI is about (1/n + 1/m) chi^2 of B - 1 degrees of freedom, for n and m rows and B bins: small tables
    have large values. Therefore an alarm needs PSI above `threshold`, the size of a change that matters, and above the
    quantile of this distribution that any column exceeds in a share `false_alarms` of the tables.

    Args:
        threshold: 0.1 is commonly called a moderate change and 0.25 a large one.
        false_alarms: share of tables without drift that may raise any alarm, if rows are independent.
        window: number of preceding tables to compare with.
        bins: number of bins per column, not counting those of other and missing values.
        metrics: a `PageHinkley` by name of the metric.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Yurdakul and Naranjo, "Statistical Properties of the Population Stability Index", Journal of Risk Model
        Validation 14(4), 2020, https://doi.org/10.21314/JRMV.2020.227, section 3.

    Cost: one histogram per column and table; the state is the counts of `window` tables.
    """

    def __init__(
        self,
        threshold: float = 0.1,
        false_alarms: float = 0.01,
        window: int = 4,
        bins: int = 10,
        metrics: Mapping[str, PageHinkley] | None = None,
    ) -> None:
        require(threshold >= 0, "`threshold` must be 0 or more.", threshold=threshold)
        require_fraction(false_alarms=false_alarms)
        require_positive_int(window=window, bins=bins)
        self.threshold = threshold
        self.false_alarms = false_alarms
        self.window = window
        self.bins = bins
        self.metrics = dict(metrics or {})
        self._bins: dict[str, list[Any]] = {}  # inner edges of numbers, values of categories
        self._past: collections.deque[dict[str, list[int]]] = collections.deque(maxlen=window)

    def update(self, schema: Schema, table: Any, metrics: Mapping[str, float] | None = None) -> list[Alarm]:
        """Compare a table with the window, add it to the window, and return an alarm per changed column or metric.

        Args:
            schema: names the columns.
            table: pandas table; the first one makes the bins and raises no alarm.
            metrics: values by name; those without a `PageHinkley` are ignored.
        """
        counts = {}
        for name, values in _columns(schema, table):
            if name not in self._bins:
                self._bins[name] = _make_bins(values, self.bins)
            counts[name] = _count(values, self._bins[name])
        alarms = [alarm for name in counts if self._past for alarm in self._compared(name, counts)]
        self._past.append({name: column.tolist() for name, column in counts.items()})
        for name, watch in self.metrics.items():
            if name in (metrics or {}) and watch.update(float((metrics or {})[name])):
                alarms.append(Alarm(name, watch.statistic, watch.threshold))
        return alarms

    def _compared(self, name: str, counts: Mapping[str, np.ndarray]) -> Iterator[Alarm]:
        before = np.sum([table[name] for table in self._past], axis=0)
        now = counts[name]
        if before.sum() == 0 or now.sum() == 0:
            return
        share = 1 - (1 - self.false_alarms) ** (1 / len(counts))
        used = int(((before + now) > 0).sum())
        expected = stats.chi2.ppf(1 - share, max(used - 1, 1)) if share else math.inf
        threshold = max(self.threshold, float(expected * (1 / before.sum() + 1 / now.sum())))
        statistic = population_stability_index(before, now)
        if statistic > threshold:
            yield Alarm(name, statistic, threshold)

    def get_state(self) -> dict[str, Any]:
        """Return arguments and state as plain values."""
        arguments = {name: getattr(self, name) for name in ("threshold", "false_alarms", "window", "bins")}
        watches = {name: watch.get_state() for name, watch in self.metrics.items()}
        return {**arguments, "metrics": watches, "edges": self._bins, "past": list(self._past)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DriftMonitor:
        """Return a monitor with the state from `get_state`."""
        arguments = {name: state[name] for name in ("threshold", "false_alarms", "window", "bins")}
        monitor = cls(**arguments, metrics={n: PageHinkley.from_state(s) for n, s in state["metrics"].items()})
        monitor._bins = {name: list(values) for name, values in state["edges"].items()}
        monitor._past.extend(state["past"])
        return monitor


def population_stability_index(before: Any, now: Any) -> float:
    """Return the population stability index of two histograms [bins] of counts.

    Bins that are empty in both are left out; half a row is added to the others in both histograms.

    Example:
        >>> round(population_stability_index([50, 50, 0], [90, 10, 0]), 2)
        0.85
    """
    before, now = np.asarray(before, np.float64), np.asarray(now, np.float64)
    used = before + now > 0
    p, q = now[used] + 0.5, before[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def _columns(schema: Schema, table: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the names and values of the columns to compare, flat arrays of floats, integers or strings."""
    for name, values in to_columns(table, schema.features.values()).items():
        if values.dtype.kind == "f" and values.ndim > 1:
            yield from ((f"{name}[{i}]", component) for i, component in enumerate(values.T))
        else:
            yield name, values.reshape(-1)
    for task, values in to_labels(table, schema)[0].items():
        yield f"label:{task}", values


def _make_bins(values: np.ndarray, bins: int) -> list[Any]:
    """Return inner edges of numbers, or the most frequent values of categories."""
    observed = values[~_missing(values)]
    if values.dtype.kind == "f":
        return np.unique(np.quantile(observed, np.linspace(0, 1, bins + 1))).tolist() if len(observed) else []
    found = collections.Counter(observed.tolist())
    return [value for value, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:bins]]


def _count(values: np.ndarray, bins: list[Any]) -> np.ndarray:
    """Return the counts of the bins: intervals of numbers or categories and the rest; missing values last."""
    missing = _missing(values)
    observed = values[~missing]
    if values.dtype.kind == "f":
        indices = np.searchsorted(np.asarray(bins), observed, side="right")
    else:
        index = {value: i for i, value in enumerate(bins)}
        indices = np.asarray([index.get(value, len(bins)) for value in observed.tolist()], np.int64)
    return np.append(np.bincount(indices, minlength=len(bins) + 1), missing.sum())


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.isnan(values)
    return values == (MISSING_INTEGER if values.dtype.kind == "i" else "")
