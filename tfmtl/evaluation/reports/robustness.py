"""Robustness: the metrics of every task under attacks, noise, missing features, unknown ids and shifts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from tfmtl._checks import require, require_fraction, require_known, require_positive_int, require_several
from tfmtl.data.interchange import as_frame, as_rows
from tfmtl.evaluation.ranks import Progress
from tfmtl.evaluation.reports.bootstrap_comparison import bootstrap_comparison
from tfmtl.evaluation.reports.conditions import (
    Columns,
    Condition,
    Strengths,
    popularity_parts,
    strengths_of,
    time_parts,
)
from tfmtl.evaluation.reports.measured_table import Line, MeasuredTable
from tfmtl.evaluation.reports.outcomes import judged_by
from tfmtl.evaluation.reports.report import as_series
from tfmtl.models import MultiTaskModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ["kind", "column", "part", "strength", "task", "metric", "value", "change", "low", "high", "rows"]
_PLAIN = Condition("clean", "", "", 0.0, dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Robustness:
    """The result of `robustness`; it prints as the table of the tasks' main metrics.

    The kinds of its lines:

    - `clean`: the table as it is
    - `fgsm`, `pgd`: an attack on the ranking task of the line by `attack`, of one step and of several; no retrieval
    - `noise`: x + strength s z, with s the standard deviation of the column (of each position of a vector), z normal
    - `missing`: a column has no value in a share of the rows; columns that must have values are left out
    - `missing_group`: so have all columns of the query, the candidate or the context, or all texts, vectors or
      histories, in the same rows
    - `unknown`: a share of the ids of a column, also inside of lists, is an id outside of the vocabulary
    - `popularity`: the rows of the head, the middle or the tail of the candidates by their rows in the training split,
      see `popularity_tiers`
    - `time`: a quarter of the rows by time

    The strength of a part of the rows is its number from 1.

    Attributes:
        table: one line per condition, task and metric, with the columns `kind`, `column`, `part`, `strength`, `task`,
            `metric`, `value`, `change` from the plain value, the bounds `low` and `high` of the change, and `rows`,
            the number of rows with a label, of a retrieval of its positives.
        metrics: by task its main metric: the first of NDCG@k, AUC, macro AUC, RMSE and the pinball loss, else the first
            of its report.

    Example:
        >>> line = ["noise", "age", "", 0.5, "click", "auc", 0.7, -0.1, float("nan"), float("nan"), 90]
        >>> lines = pd.DataFrame([line, [*line[:5], "log_loss", *line[6:]]], columns=_COLUMNS)
        >>> found = Robustness(lines, {"click": "auc"})
        >>> found.main["metric"].tolist()
        ['auc']
    """

    table: pd.DataFrame
    metrics: Mapping[str, str]

    @property
    def main(self) -> pd.DataFrame:
        """The lines of the table with the main metric of their task."""
        chosen = self.table["metric"] == self.table["task"].map(dict(self.metrics))
        return self.table[chosen].reset_index(drop=True)

    def plot(self, *, lines: int = 6) -> Figure:
        """Return the figure of `tfmtl.evaluation.plots.robustness`: curves of the main metrics by strength."""
        from tfmtl.evaluation import plots  # the extra may be absent

        return plots.robustness(self, lines=lines)

    def __str__(self) -> str:
        return str(self.main.to_string(float_format="{:,.4g}".format, na_rep="-", index=False))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.main.to_html(float_format="{:,.4g}".format, na_rep="-", index=False))


def robustness(
    model: MultiTaskModel,
    table: Any,
    *,
    attacks: Strengths = None,
    steps: int = 5,
    noise: Strengths = None,
    missing: Strengths = None,
    unknown: Strengths = None,
    popularity: bool | None = None,
    time: str | None = None,
    columns: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seen: Any = None,
    ks: Sequence[int] | int | None = None,
    samples: int = 0,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> Robustness:
    """Measure every task of a model on a table as it is, and on the same rows when their features are disturbed.

    Use it before a model meets other inputs than those of its training. The table is perturbed and encoded again;
    `Robustness` explains the kinds. A larger strength disturbs the same values and more. Retrieval tasks are measured
    where a feature of the query changes, or the rows; their queries, users, positives and `seen` remain.

    Args:
        model: the model.
        table: table (pandas, PyArrow, Polars) with features and labels; it is not changed.
        attacks: strengths as in `attack`; by default 0.05 and 0.1. An empty list leaves a kind out.
        steps: steps of `pgd`; 1 leaves it out.
        noise: strengths in standard deviations; by default 0.5 and 1.
        missing, unknown: shares in [0, 1]; by default 0.5 and 1.
        popularity: whether to measure the tiers; by default if the schema has candidates.
        time: column of the rows' times (datetimes or numbers), or None.
        columns: columns to perturb, one by one; by default all that a kind suits, and their groups.
        tasks, seen, ks: as in `evaluate`.
        samples, level: draws of a paired bootstrap over users for the interval of a change, and its level. The bounds
            are NaN with 0 draws, and in parts of the rows of a retrieval.
        seed, progress: seed of all draws; called with the number of finished and of all conditions.

    Raises:
        ValueError: if a column or task is unknown, a strength is out of range, the table has no label, or a kind is
            given that no column or task suits.

    Example:
        >>> # robustness(model, test, noise=[0.1, 1.0], time="day").plot().savefig("robustness.png")

    Cost: an evaluation for each condition, 2 `steps` passes for each attack of a task, and `samples` times two
    computations of the metrics for each interval.
    """
    measured = _measured(model, as_rows(table, "table"), tasks, seen, ks, seed)
    require_positive_int(steps=steps)
    require_fraction(level=level)
    require(isinstance(samples, int) and samples >= 0, "`samples` must be 0 or more.", samples=samples)
    kinds: dict[str, Strengths] = {"attacks": attacks, "noise": noise, "missing": missing, "unknown": unknown}
    plan = [*_plan(Columns(measured, columns, seed), kinds, steps), *_parts(measured, popularity, time)]
    return filled(measured, plan, {"samples": samples, "level": level, "seed": seed}, progress)


def _measured(
    model: MultiTaskModel, frame: pd.DataFrame, tasks: Sequence[str] | None, seen: Any, ks: Any, seed: int
) -> MeasuredTable:
    require_several(tasks=tasks)
    require_known(tasks or (), [task.name for task in model.tasks], "task", "`tasks`")
    chosen = [task for task in model.tasks if tasks is None or task.name in tasks]
    found = MeasuredTable(model, frame, chosen, as_frame(seen), ks, seed)
    require(bool(found.tasks), f"The table has no label of the tasks {[task.name for task in chosen]}.")
    return found


def filled(
    measured: MeasuredTable,
    plan: Sequence[Condition],
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Robustness:
    """Return the report of the plain table and of planned conditions; `options` are those of the intervals, if any."""
    lines: list[list[Any]] = []
    for i, condition in enumerate([_PLAIN, *plan]):
        own = measured.clean if condition is _PLAIN else condition.measure()
        for task, line in own.items():
            lines += _of_line(condition, task, line, measured.clean[task], _bounds(measured.clean[task], line, options))
        if progress is not None:
            progress(i + 1, len(plan) + 1)
    return Robustness(pd.DataFrame(lines, columns=_COLUMNS), dict(_main_metrics(measured)))


def _plan(columns: Columns, given: Mapping[str, Strengths], steps: int) -> Iterator[Condition]:
    """Yield the perturbations; a kind that is given and suits no column or task is refused."""
    strengths = {kind: strengths_of(values, kind) for kind, values in given.items()}
    kinds = {
        "attacks": columns.attacks(strengths["attacks"], steps),
        "noise": columns.noise(strengths["noise"]),
        "missing": columns.missing(strengths["missing"]),
        "unknown": columns.unknown(strengths["unknown"]),
    }
    for kind, found in kinds.items():
        rule = f"`{kind}` needs {_NEEDS[kind]}; there is none{'' if kind == 'attacks' else f' among {columns.chosen}'}."
        require(bool(found) or not given[kind], rule)
        yield from found


_NEEDS = {
    "attacks": "a ranking task with labels",
    "noise": "a column of numbers",
    "missing": "a column that may be missing",
    "unknown": "a column of ids",
}


def _parts(table: MeasuredTable, popularity: bool | None, time: str | None) -> list[Condition]:
    candidate = table.model.schema.candidate_id if table.model.schema.candidate else ""
    require(bool(candidate) or not popularity, "`popularity` needs candidates, and the schema has none.")
    tiers = popularity_parts(table) if candidate and popularity is not False else []
    return [*tiers, *(time_parts(table, time) if time is not None else [])]


def _bounds(clean: Line, own: Line, options: Mapping[str, Any] | None) -> dict[str, tuple[float, float]]:
    """Return by metric the bounds of the change less the change, from draws that both lines share."""
    if not options or not options["samples"] or not own.paired:
        return {}
    measures = {"clean": clean.outcome.measure, "own": own.outcome.measure}
    drawn = bootstrap_comparison(measures, clean.outcome.users, baseline="clean", **options).loc["own"]
    return {
        str(metric): (row["difference_low"] - row["difference"], row["difference_high"] - row["difference"])
        for metric, row in drawn.iterrows()
    }


def _of_line(
    condition: Condition, task: str, line: Line, clean: Line, bounds: Mapping[str, tuple[float, float]]
) -> Iterator[list[Any]]:
    nan = float("nan")
    for metric, value in line.outcome.values.items():
        change = value - clean.outcome.values.get(metric, nan)
        low, high = bounds.get(metric, (nan, nan))
        yield [*condition[:4], task, metric, value, change, change + low, change + high, line.rows]


def _main_metrics(table: MeasuredTable) -> Iterator[tuple[str, str]]:
    for task, line in table.clean.items():
        report = as_series({(task, name): value for name, value in line.outcome.values.items()})
        yield task, judged_by(report, task) or next(iter(line.outcome.values))
