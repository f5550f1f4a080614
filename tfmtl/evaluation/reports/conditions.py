"""Conditions: the attacks, perturbed columns and parts of the rows under which a model is measured."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known, require_several
from tfmtl._keras import tf
from tfmtl.data import Feature, Text, Vector
from tfmtl.data.times import times_of
from tfmtl.evaluation.reports import perturbations
from tfmtl.evaluation.reports.measured_table import Lines, MeasuredTable
from tfmtl.evaluation.reports.slices import tiers_by_counts

Strengths = Sequence[float] | None
_QUARTERS = 4
_PIECE = 65_536


class Condition(NamedTuple):
    """One measurement.

    Attributes:
        kind: `"fgsm"`, `"pgd"`, `"noise"`, `"missing"`, `"missing_group"`, `"unknown"`, `"popularity"` or `"time"`.
        column: the perturbed column or group of columns, or the column of the parts.
        part: name of the part, or "".
        strength: of the perturbation; the number of the part.
        measure: returns the outcomes.
    """

    kind: str
    column: str
    part: str
    strength: float
    measure: Callable[[], Lines]


_DEFAULTS = {"attacks": (0.05, 0.1), "noise": (0.5, 1.0), "missing": (0.5, 1.0), "unknown": (0.5, 1.0)}


def strengths_of(given: Strengths, name: str) -> list[float]:
    """Return checked strengths of an argument of `robustness`, or the default ones for None."""
    if given is None:
        return list(_DEFAULTS[name])
    share = name in ("missing", "unknown")
    require(
        isinstance(given, Collection) and not isinstance(given, str | bytes | Mapping),
        f"`{name}` must be a list of numbers.",
        **{name: given},
    )
    for value in given:
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        valid = number and math.isfinite(value) and 0 <= value <= (1 if share else math.inf)
        rule = "shares in [0, 1]" if share else "strengths of 0 or more"
        require(valid, f"`{name}` must hold {rule}.", **{name: value})
    return [float(value) for value in given]


class Columns:
    """The columns of a table that perturbations change, by kind.

    Args:
        table: the measured table.
        columns: names of columns, or None for those of all features.
        seed: seed of the draws.
    """

    def __init__(self, table: MeasuredTable, columns: Sequence[str] | None, seed: int) -> None:
        self.table, self.seed, self.named = table, seed, columns is not None
        self.preprocessor = table.model.preprocessor
        self.features: dict[str, list[Feature]] = {}
        for feature in self.preprocessor.schema.features.values():
            self.features.setdefault(feature.column, []).append(feature)
        require_several(columns=columns)
        require_known(columns or (), self.features, "column", "`columns`")
        self.chosen = [name for name in self.features if columns is None or name in columns]

    def attacks(self, strengths: Sequence[float], steps: int) -> list[Condition]:
        """Return the attacks of one step and of `steps` steps on ranking tasks."""
        if not self.table.ranking:
            return []
        return [
            Condition(kind, "", "", s, functools.partial(self.table.attacked, s, count))
            for kind, count in {"fgsm": 1, **({"pgd": steps} if steps > 1 else {})}.items()
            for s in strengths
        ]

    def noise(self, strengths: Sequence[float]) -> list[Condition]:
        """Return noise in each column of numbers."""
        return [
            Condition("noise", name, "", s, functools.partial(self._measured, self._noise, name, s))
            for name in self.chosen
            if any(map(perturbations.holds_numbers, self.features[name]))
            for s in strengths
        ]

    def missing(self, shares: Sequence[float]) -> list[Condition]:
        """Return missing values of each column; and of the columns of a role or a kind together, for all columns."""
        known = [name for name in self.chosen if self.named or self._may_miss(name)]
        groups = {} if self.named else self._groups(known)
        kinds = {"missing": {name: [name] for name in known}, "missing_group": groups}
        return [
            Condition(kind, name, "", share, functools.partial(self._missing, kind, name, members, share))
            for kind, every in kinds.items()
            for name, members in every.items()
            for share in shares
        ]

    def unknown(self, shares: Sequence[float]) -> list[Condition]:
        """Return unknown ids in each column of ids."""
        return [
            Condition("unknown", name, "", share, functools.partial(self._measured, self._unknown, name, share))
            for name in self.chosen
            if any(map(perturbations.holds_ids, self.features[name]))
            for share in shares
        ]

    def _measured(self, perturb: Callable[[str, float], dict[str, Any]], name: str, strength: float) -> Lines:
        return self.table.changed(self._encoded(perturb(name, strength)))

    def _encoded(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Encode a few columns without a trace, which would take longer than the rows of most tables."""
        starts = range(0, len(self.table.frame), _PIECE)
        parts = [
            self.preprocessor({name: tf.constant(values[i : i + _PIECE]) for name, values in raw.items()})
            for i in starts
        ]
        return {name: tf.concat([part[name] for part in parts], axis=0) for name in raw}

    def _noise(self, name: str, strength: float) -> dict[str, Any]:
        column, features = self.table.frame[name], filter(perturbations.holds_numbers, self.features[name])
        rng = functools.partial(perturbations.generator, self.seed, "noise", name)
        return {f.name: perturbations.noisy(f, column, strength, rng()) for f in features}

    def _unknown(self, name: str, share: float) -> dict[str, Any]:
        column, found = self.table.frame[name], {}
        for feature in filter(perturbations.holds_ids, self.features[name]):
            unknown = perturbations.unknown_id(feature, self.preprocessor.vocabulary(str(feature.vocabulary)))
            rng = perturbations.generator(self.seed, "unknown", name)
            found[feature.name] = perturbations.with_unknown(feature, column, share, unknown, rng)
        return found

    def _missing(self, kind: str, name: str, members: Sequence[str], share: float) -> Lines:
        rng = perturbations.generator(self.seed, kind, name)
        rows = perturbations.drawn(len(self.table.frame), share, rng)
        found: dict[str, Any] = {}
        for member in members:
            column = perturbations.with_missing(self.table.frame[member], rows)
            found |= {feature.name: feature.read(column) for feature in self.features[member]}
        return self.table.changed(self._encoded(found))

    def _may_miss(self, name: str) -> bool:
        """Return whether all features of a column read missing values."""
        one = perturbations.with_missing(self.table.frame[name].iloc[:1], np.ones(1, bool))
        try:
            for feature in self.features[name]:
                feature.read(one)
        except ValueError:
            return False
        return True

    def _groups(self, known: Sequence[str]) -> dict[str, list[str]]:
        """Return groups of two or more columns by name: the roles, texts, vectors and histories."""
        schema = self.preprocessor.schema
        every: dict[str, Any] = {role: getattr(schema, role) for role in ("query", "candidate", "context")}
        kinds = {"texts": lambda f: isinstance(f, Text), "vectors": lambda f: isinstance(f, Vector)}
        kinds["histories"] = perturbations.holds_history
        every |= {name: filter(holds, schema.features.values()) for name, holds in kinds.items()}
        found: dict[str, list[str]] = {}
        for name, features in every.items():
            columns = [column for column in dict.fromkeys(f.column for f in features) if column in known]
            if len(columns) > 1 and columns not in found.values():
                found[name] = columns
        return found


def popularity_parts(table: MeasuredTable) -> list[Condition]:
    """Return the head, the middle and the tail of the candidates by their rows in the training split."""
    schema, statistics = table.model.preprocessor.schema, table.model.preprocessor.statistics
    feature = schema.features[schema.candidate_id]
    name = str(feature.vocabulary)
    counts = pd.Series(statistics.counts[name], statistics.vocabularies[name])
    tiers = tiers_by_counts(pd.Series(feature.read(table.frame[feature.column])), counts)
    return _parts(table, "popularity", feature.column, tiers)


def time_parts(table: MeasuredTable, time: str) -> list[Condition]:
    """Return the quarters of the rows by time, the earliest first; rows without a time are in none."""
    times = pd.Series(times_of(table.frame, time, missing=True))
    order = times.rank(method="min", pct=False).to_numpy()
    known = int(times.notna().sum())
    require(known > 0, f"Column {time!r} of `time` has no value.")
    quarters = np.clip(np.ceil(order / known * _QUARTERS), 1, _QUARTERS)
    names = {i: f"quarter {i}" for i in range(1, _QUARTERS + 1)}
    return _parts(table, "time", time, pd.Categorical(pd.Series(quarters).map(names), list(names.values())))


def _parts(table: MeasuredTable, kind: str, column: str, parts: pd.Categorical) -> list[Condition]:
    return [
        Condition(kind, column, str(part), float(i + 1), functools.partial(table.part, parts.codes == i))
        for i, part in enumerate(parts.categories)
        if (parts.codes == i).any()
    ]
