"""Statistics of the training split: vocabularies, moments and label statistics."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl.data.columns import check_columns, to_columns, to_labels
from tfmtl.data.distinct_candidates import DistinctCandidates
from tfmtl.data.features import Feature
from tfmtl.data.moments import Moments, RunningMoments
from tfmtl.data.raw_table import RawTable, raw_table
from tfmtl.data.schema import Schema
from tfmtl.data.values import MISSING_INTEGER


@dataclasses.dataclass(frozen=True)
class LabelStatistics:
    """Summary of one task's observed labels, weighted by sample weight.

    Attributes:
        count: observed labels with a weight above zero.
        mean, deviation: of the label.
        log_mean, log_deviation: of log(1 + label) where every label exceeds -1, else 0 and 1.
        minimum, maximum: of the label.
        frequencies: share of each value by value, empty above 1,000 distinct values.
    """

    count: int
    mean: float
    deviation: float
    log_mean: float
    log_deviation: float
    minimum: float
    maximum: float
    frequencies: Mapping[float, float]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The statistics of a training split, from `fit_statistics`; the preprocessor and the tasks are built with them.

    Attributes:
        vocabularies: values by owner feature, most frequent first.
        counts: occurrences of these values, in the same order.
        moments: by name of the `Numeric`, `Vector` or other feature that measures its column.
        labels: by task.
        rows: rows of the training split.
        waiting: occurrences by value, by vocabulary, of later values that are still too rare for the vocabulary.
        capacity: number of indices by vocabulary, if some are reserved for later values.
    """

    vocabularies: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]
    moments: Mapping[str, Moments]
    labels: Mapping[str, LabelStatistics]
    rows: int
    waiting: Mapping[str, Mapping[Any, int]] = dataclasses.field(default_factory=dict)
    capacity: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def size(self, vocabulary: str) -> int:
        """Return the number of indices of a vocabulary: its values, "missing" (0), "unknown" (1) and free ones."""
        require_known([vocabulary], self.vocabularies, "vocabulary", "the statistics")
        return max(len(self.vocabularies[vocabulary]) + 2, self.capacity.get(vocabulary, 0))

    def get_config(self) -> dict[str, Any]:
        """Return plain values that `from_config` rebuilds the statistics from."""
        return {
            "vocabularies": {name: values.tolist() for name, values in self.vocabularies.items()},
            "counts": {name: values.tolist() for name, values in self.counts.items()},
            "moments": {name: dataclasses.asdict(m) for name, m in self.moments.items()},
            "labels": {
                task: {**dataclasses.asdict(s), "frequencies": list(s.frequencies.items())}
                for task, s in self.labels.items()
            },
            "rows": self.rows,
            "waiting": {name: list(counts.items()) for name, counts in self.waiting.items()},
            "capacity": dict(self.capacity),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Statistics:
        """Rebuild statistics from `get_config`."""
        return cls(
            vocabularies={n: _array(v) for n, v in config["vocabularies"].items()},
            counts={n: np.asarray(v, np.int64) for n, v in config["counts"].items()},
            moments={n: Moments(tuple(m["mean"]), tuple(m["deviation"])) for n, m in config["moments"].items()},
            labels={
                t: LabelStatistics(**{**s, "frequencies": dict(s["frequencies"])}) for t, s in config["labels"].items()
            },
            rows=config["rows"],
            waiting={name: dict(counts) for name, counts in config.get("waiting", {}).items()},
            capacity=dict(config.get("capacity", {})),
        )


def fit_statistics(
    schema: Schema, source: pd.DataFrame | RawTable, candidates: DistinctCandidates | None = None
) -> Statistics:
    """Learn vocabularies, moments and label statistics from the training split.

    Args:
        schema: roles and kinds of the columns.
        source: the training table, or a source that yields it in pieces; the columns of
            features with the vocabulary of another, such as an `IdSequence`, are not read and may be absent.
        candidates: collects the distinct candidates in the same pass; none of them may have a history.

    Raises:
        ValueError: naming the column or task: absent columns, wrong types, infinity, an empty table, a task without a
            single label.

    Example:
        >>> from tfmtl.data.features import Categorical
        >>> table = pd.DataFrame({"user_id": ["b", "a", "b"]})
        >>> statistics = fit_statistics(Schema(query=[Categorical("user_id")]), table)
        >>> statistics.vocabularies["user_id"].tolist(), statistics.size("user_id")
        (['b', 'a'], 4)

    Cost: one pass; memory of one piece and of the distinct values.
    """
    features = [f.unrounded for f in schema.features.values() if not f.borrows]
    borrowed = set(schema.feature_columns) - {feature.column for feature in features}
    read = [column for column in schema.columns() if column not in borrowed]
    pieces = raw_table(source).chunks(list(dict.fromkeys(read)))
    tokens = {name: collections.Counter[Any]() for name in schema.vocabularies}
    sums: dict[str, RunningMoments] = {}
    labels = {task: _LabelSums() for task in schema.tasks}
    rows = 0
    for piece in pieces:
        rows += len(piece)
        check_columns(piece, read)
        columns = to_columns(piece, features)
        for name, counter in tokens.items():
            _count(counter, schema.features[name].tokens(columns[name]))
        for feature in features:
            measured = feature.measure(columns[feature.name])
            if measured is not None:
                sums.setdefault(feature.name, RunningMoments()).add(measured)
        if candidates is not None:
            candidates.add(columns)
        values, weights = to_labels(piece, schema, np.float64)
        for task, total_label in labels.items():
            total_label.add(values[task], weights[task])
    require(rows > 0, "The training table is empty; at least one row is needed.")
    ranked = {name: _rank(schema.vocabularies[name], counter) for name, counter in tokens.items()}
    return Statistics(
        vocabularies={name: values for name, (values, _) in ranked.items()},
        counts={name: counts for name, (_, counts) in ranked.items()},
        moments={name: total.moments() for name, total in sums.items()},
        labels={task: total.result(task) for task, total in labels.items()},
        rows=rows,
    )


def _count(counter: collections.Counter[Any], tokens: np.ndarray) -> None:
    values, counts = np.unique(tokens, return_counts=True) if tokens.dtype != object else _unique(tokens)
    decoded = (v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values)
    counter.update({v: int(n) for v, n in zip(decoded, counts, strict=True) if v not in ("", MISSING_INTEGER)})


def _unique(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, values = pd.factorize(column.reshape(-1))
    return np.asarray(values), np.bincount(codes, minlength=len(values))


def _rank(feature: Feature, counter: collections.Counter[Any]) -> tuple[np.ndarray, np.ndarray]:
    least = getattr(feature, "min_count", 1)
    kept = sorted(((n, v) for v, n in counter.items() if n >= least), key=lambda pair: (-pair[0], pair[1]))
    kept = kept[: getattr(feature, "max_size", None)]
    return _array([v for _, v in kept]), np.asarray([n for n, _ in kept], np.int64)


def _array(values: list[Any]) -> np.ndarray:
    return np.asarray(values, np.int64 if values and isinstance(values[0], int | np.integer) else object)


class _LabelSums:
    """Running summary of one task's labels."""

    def __init__(self) -> None:
        self.count = 0
        self.plain, self.log = RunningMoments(), RunningMoments()
        self.minimum, self.maximum = np.inf, -np.inf
        self.frequencies: dict[float, float] = collections.defaultdict(float)

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        observed = ~np.isnan(values) & (weights > 0)
        if not observed.any():
            return
        values, weights = values[observed], weights[observed]
        self.count += len(values)
        self.plain.add(values, weights)
        self.minimum, self.maximum = min(self.minimum, float(values.min())), max(self.maximum, float(values.max()))
        if self.minimum > -1:
            self.log.add(np.log1p(values.astype(np.float64)), weights)
        if len(self.frequencies) <= 1000:
            for value, weight in pd.Series(weights).groupby(values).sum().items():
                self.frequencies[float(value)] += float(weight)

    def result(self, task: str) -> LabelStatistics:
        require(
            self.count > 0,
            f"Every label of task {task!r} is missing in the training table; drop the task or its label.",
        )
        plain = self.plain.moments()
        log = self.log.moments() if self.minimum > -1 else Moments((0.0,), (1.0,))
        total = sum(self.frequencies.values())
        few = {v: n / total for v, n in sorted(self.frequencies.items())} if len(self.frequencies) <= 1000 else {}
        return LabelStatistics(
            self.count,
            plain.mean[0],
            plain.deviation[0],
            log.mean[0],
            log.deviation[0],
            self.minimum,
            self.maximum,
            few,
        )
