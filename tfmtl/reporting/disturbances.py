"""The section of robustness: each task under attacks, noise, missing columns and unknown ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl.evaluation.reports.conditions import Columns
from tfmtl.evaluation.reports.measured_table import MeasuredTable
from tfmtl.evaluation.reports.robustness import Robustness, filled
from tfmtl.reporting.inputs import Inputs
from tfmtl.reporting.page import Section, figure, folded, paragraph, table
from tfmtl.reporting.pictures import as_svg, page_colors
from tfmtl.tasks import Task
from tfmtl.tasks.label_metrics import SMALLER_IS_BETTER

_ROWS, _LEAST_ROWS = 2000, 20
_HEADS = ["kind", "column", "strength", "task", "metric", "value", "change"]
_MEANINGS = {
    "fgsm": "An attack: the worst small change of each row's vectors, with the labels in hand; not for retrieval.",
    "noise": "Random errors of a column of numbers, in its standard deviations.",
    "missing": "A column without any value.",
    "missing_group": "All columns of the user, of the candidate, of the context, or of one kind without any value.",
    "unknown": "All ids of a column are new to the model.",
}


def robustness(inputs: Inputs) -> Section | None:
    """Return the main metric of each task under disturbed features, the worst column of each kind first."""
    sample = inputs.sample().head(_ROWS)
    tasks = [task for task in inputs.model.tasks if task.name in inputs.judged and task.name in inputs.own]
    if not tasks or len(sample) < _LEAST_ROWS:
        return None
    found = _measured(inputs, sample, tasks)
    lines = found.main[found.main["kind"] != "clean"]
    if not len(lines):
        return None
    with page_colors():
        picture = as_svg(found.plot(lines=4), "robustness")
    body = table(_HEADS, _worst(found)) + figure(picture, "Main metric by strength; the dashed line is undisturbed.")
    body += folded("All columns and strengths", table(_HEADS, lines[_HEADS].to_numpy(object).tolist()))
    body += table(["kind", "meaning"], [[k, text] for k, text in _MEANINGS.items() if (lines["kind"] == k).any()])
    note = f"On {len(sample):,} test rows. The first table has the column of each kind that makes a task worst."
    return Section("Robustness", body + paragraph(note, note=True))


def _measured(inputs: Inputs, sample: Any, tasks: Sequence[Task]) -> Robustness:
    try:
        given = MeasuredTable(inputs.model, sample, tasks, inputs.seen, seed=inputs.seed)
    except ValueError:  # no list can hold a positive of the sample, such as if all of them are in `seen`
        ranking = [task for task in tasks if not task.retrieves]
        given = MeasuredTable(inputs.model, sample, ranking, seed=inputs.seed)
    columns = Columns(given, None, inputs.seed)
    plan = [*columns.attacks([0.05, 0.1], 1), *columns.noise([0.5, 1.0]), *columns.missing([1.0])]
    return filled(given, [*plan, *columns.unknown([1.0])])


def _worst(found: Robustness) -> list[list[Any]]:
    """Return by kind and task the line with the largest loss of quality."""
    lines = found.main[found.main["kind"] != "clean"].dropna(subset="change")
    signs = lines["metric"].map(lambda metric: -1.0 if metric in SMALLER_IS_BETTER else 1.0)
    losses = (signs * lines["change"]).groupby([lines["kind"], lines["task"]], sort=False)
    return lines.loc[losses.idxmin(), _HEADS].to_numpy(object).tolist()
