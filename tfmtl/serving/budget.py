"""Budget: limits of the size, latency and quality of a version, without which it is not published."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.serving.publishing import compressed_size
from tfmtl.serving.verification import Tensors
from tfmtl.serving.warm_up import of_size

_CALLS = 50  # the latency is their median
_WARM_UP = 5


class BudgetExceeded(ValueError):  # noqa: N818 - the name is the event
    """A version misses its budget; the message holds a table of all limits and measurements."""


class Line(NamedTuple):
    """One limit and the measured value.

    Attributes:
        what: name of the measurement, such as `size [kB]` or `rating rmse`.
        measured: measured value; NaN if there is none.
        limit: bound of the value.
        at_most: whether the bound is an upper one.
    """

    what: str
    measured: float
    limit: float
    at_most: bool

    @property
    def kept(self) -> bool:
        """Whether the value keeps the limit; a missing value never does."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits of a version's size, latency and quality, checked before it is published.

    Use it in scheduled exports, so that a model that is too large, too slow or too inaccurate never reaches a server.

    Attributes:
        size: largest size of the version as a gzipped archive, in kilobytes of 1000 bytes.
        latency: longest duration of a request of `rows` rows in milliseconds, by signature: the median of 50 calls in
            this process after the version has been loaded.
        rows: number of rows of these requests.
        at_most: upper bounds of metrics by (task, metric), such as `{("rating", "rmse"): 0.92}`.
        at_least: lower bounds of metrics by (task, metric).

    The values of the metrics come from the `ModelCard` that is given to the export.

    Raises:
        ValueError: if a limit is not a positive number (of a metric: a finite one) or `rows` not a positive integer.

    Example:
        >>> teacher, trivial = {("rating", "rmse"): 0.90}, {("rating", "rmse"): 1.10}
        >>> Budget.keeping(0.95, teacher, trivial, {"rating": "rmse"}, size=500).at_most
        {('rating', 'rmse'): 0.91}

    Cost: one load of the version, and 55 calls of each signature with a limit.
    """

    size: float | None = None
    latency: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rows: int = 1
    at_most: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    at_least: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        costs = {"size": self.size, **{f"latency[{name!r}]": value for name, value in self.latency.items()}}
        for name, limit in costs.items():
            valid = limit is None or (isinstance(limit, (int, float)) and 0 < limit < math.inf)
            require(valid, f"`{name}` must be a positive number.", received=limit)
        for key, bound in [*self.at_most.items(), *self.at_least.items()]:
            valid = isinstance(key, tuple) and len(key) == 2 and math.isfinite(bound)
            require(valid, "Bounds of metrics must be finite numbers by (task, metric).", received={key: bound})
        require(isinstance(self.rows, int) and self.rows > 0, "`rows` must be a positive integer.", rows=self.rows)

    @classmethod
    def keeping(
        cls,
        share: float,
        reference: Mapping[tuple[str, str], float],
        baseline: Mapping[tuple[str, str], float],
        metrics: Mapping[str, str],
        **limits: Any,
    ) -> Budget:
        """Return a budget that requires, in every task, a share of the margin of a reference over a baseline.

        bound = baseline + share (reference - baseline), an upper bound if the reference is below the baseline. The
        reports of `evaluation.evaluate` and `trivial_baseline` are such mappings.

        Args:
            share: such as 0.97; 1 requires the values of the reference, more than 1 better ones.
            reference: metrics of, for example, the teacher, by (task, metric).
            baseline: metrics of predictions without a model, by (task, metric).
            metrics: the metric that judges each task, by task.
            **limits: other arguments of the class.

        Raises:
            ValueError: if a report lacks a metric, or both have the same value of one.
        """
        bounds: dict[bool, dict[tuple[str, str], float]] = {True: {}, False: {}}
        for key in metrics.items():
            require(key in reference and key in baseline, f"The reports must have {key[1]!r} of task {key[0]!r}.")
            best, least = float(reference[key]), float(baseline[key])
            require(best != least, f"Reference and baseline agree in {key[1]!r} of task {key[0]!r}.", value=best)
            bounds[best < least][key] = round(least + share * (best - least), 12)
        return cls(at_most=bounds[True], at_least=bounds[False], **limits)

    def measure(
        self, version: pathlib.Path, requests: Mapping[str, Tensors], metrics: Mapping[str, Mapping[str, Any]]
    ) -> list[Line]:
        """Return every limit with its measured value.

        Args:
            version: folder of a complete SavedModel.
            requests: one request per signature, by signature.
            metrics: values by task and metric.

        Raises:
            ValueError: if a signature with a limit does not exist.
        """
        return [*self._costs(version, requests), *self._worth(metrics)]

    def check(
        self, version: pathlib.Path, requests: Mapping[str, Tensors], metrics: Mapping[str, Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the lines of `measure` as plain values, or raise if a limit is missed; the arguments are the same.

        Raises:
            BudgetExceeded: with a table of all lines.
        """
        lines = self.measure(version, requests, metrics)
        missed = [line.what for line in lines if not line.kept]
        if missed:
            raise BudgetExceeded(
                f"The version misses its budget in {', '.join(missed)}; nothing was published.\n\n{table(lines)}"
            )
        return [{**line._asdict(), "measured": round(line.measured, 6)} for line in lines]

    def _costs(self, version: pathlib.Path, requests: Mapping[str, Tensors]) -> Iterator[Line]:
        if self.size is not None:
            yield Line("size [kB]", compressed_size(version) / 1000, self.size, at_most=True)
        unknown = [name for name in self.latency if name not in requests]
        require(not unknown, f"`latency` limits the signatures {unknown}; the version has {sorted(requests)}.")
        signatures = tf.saved_model.load(str(version)).signatures if self.latency else {}
        for name, limit in self.latency.items():
            request = of_size({i: tf.constant(value) for i, value in requests[name].items()}, self.rows)
            yield Line(f"{name} [ms, {self.rows} rows]", _latency(signatures[name], request), limit, at_most=True)

    def _worth(self, metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[Line]:
        for at_most, bounds in ((True, self.at_most), (False, self.at_least)):
            for (task, metric), bound in bounds.items():
                value = metrics.get(task, {}).get(metric)
                yield Line(f"{task} {metric}", math.nan if value is None else float(value), bound, at_most)


def table(lines: list[Line]) -> str:
    """Return a Markdown table of limits and values, in which missed limits are marked.

    Example:
        >>> print(table([Line("size [kB]", 120.0, 100.0, True)]))
        | what | measured | limit | |
        |---|---|---|---|
        | size [kB] | 120 | at most 100 | missed |
    """
    rows = [
        f"| {line.what} | {'not measured' if math.isnan(line.measured) else f'{line.measured:.5g}'} | "
        f"{'at most' if line.at_most else 'at least'} {line.limit:.5g} | {'' if line.kept else 'missed'} |"
        for line in lines
    ]
    return "\n".join(["| what | measured | limit | |", "|---|---|---|---|", *rows])


def _latency(signature: Any, request: Mapping[str, tf.Tensor]) -> float:
    taken = []
    for _ in range(_WARM_UP + _CALLS):
        start = time.perf_counter()
        signature(**request)
        taken.append(1000 * (time.perf_counter() - start))
    return float(np.median(taken[_WARM_UP:]))
