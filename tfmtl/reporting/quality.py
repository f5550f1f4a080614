"""Sections of quality: metrics with intervals, slices, calibration, training."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl.baselines.comparison import MODEL, compared
from tfmtl.evaluation import bootstrap_comparison, by_slice, reliability_curve
from tfmtl.evaluation.reports.outcomes import Outcome, judged_by
from tfmtl.evaluation.reports.report import as_series, judged
from tfmtl.reporting.inputs import Inputs
from tfmtl.reporting.page import Section, escaped, figure, folded, paragraph, table
from tfmtl.reporting.pictures import as_svg, page_colors
from tfmtl.tasks.binary_task import BinaryTask

_SAMPLES = 100
_MEANINGS = {
    "ndcg": "How near the top of a list the right candidates are, from 0 to 1; 1 is best.",
    "auc": "How often a row with the event has a higher value than one without; 0.5 is chance, 1 is best.",
    "macro_auc": "The mean over the classes of how often a row of a class has a higher value for it; 1 is best.",
    "rmse": "The typical error, in the unit of the label; 0 is best.",
    "pinball": "The error of predicted quantiles, in the unit of the label; 0 is best.",
}
_PARTS = {"none": (0, 0), "1 to 4": (1, 4), "5 to 19": (5, 19), "20 or more": (20, np.inf)}


def metrics(inputs: Inputs) -> Section:
    """Return the main metric of each task with its interval, beside the best simple baseline; and all metrics."""
    comparison = compared(inputs.outcomes, inputs.seed) if inputs.train is not None else None
    beside = ["best simple baseline", "its value", "the model is"] if comparison else []
    rows: list[list[Any]] = []
    folds = ""
    for task, outcome in inputs.own.items():
        found, metric = _intervals(outcome, inputs.seed), _main_metric(task, outcome)
        best = comparison.best.get(task) if comparison else None
        other = inputs.outcomes[best][task].values if best else {}
        if metric:
            row = [task, metric, outcome.values[metric], *found.get(metric, (None, None))]
            verdict = comparison.gains[task].verdict if comparison and best else "not compared"
            rows.append([*row, *([best, other.get(metric), verdict] if comparison else [])])
        lines = [
            [name, value, *found.get(name, (None, None)), *([other.get(name)] if best else [])]
            for name, value in outcome.values.items()
        ]
        names = ["metric", "value", "low", "high", *([str(best)] if best else [])]
        folds += folded(f"All metrics of {task}", table(names, lines))
    body = table(["task", "metric", "value", "low", "high", *beside], rows) + folds
    missing = [task.name for task in inputs.model.tasks if task.name not in inputs.own]
    if missing:
        body += paragraph(f"The test rows have no label of: {', '.join(missing)}.")
    used = [[name, text] for name, text in _MEANINGS.items() if any(row[1].split("@")[0] == name for row in rows)]
    body += table(["metric", "meaning"], used)
    note = "Low and high bound the interval of 95 % by a bootstrap over users, on at most 20,000 rows"
    return Section("Quality", body + paragraph(f"{note}; level: the interval of the difference holds 0.", note=True))


def _intervals(outcome: Outcome, seed: int) -> dict[str, tuple[float, float]]:
    drawn = bootstrap_comparison({MODEL: outcome.measure}, outcome.users, samples=_SAMPLES, seed=seed)
    return {name: (float(row["low"]), float(row["high"])) for (_, name), row in drawn.iterrows()}


def _main_metric(task: str, outcome: Outcome) -> str | None:
    report = as_series({(task, name): value for name, value in outcome.values.items()})
    return judged_by(report, task)


def slices(inputs: Inputs) -> Section | None:
    """Return the main metric of each task by the number of training rows of a user, and by columns of `test`."""
    body = "".join(filter(None, (_by_activity(inputs), *(_by_column(inputs, name) for name in inputs.slices))))
    return Section("Parts of the rows", body) if body else None


def _by_activity(inputs: Inputs) -> str:
    schema = inputs.model.schema
    if inputs.train is None or not schema.query_id:
        return ""
    known, counts = np.unique(inputs.keys_of_users(inputs.train), return_counts=True)
    rows = []
    for task, outcome in inputs.own.items():
        metric = _main_metric(task, outcome)
        position = np.clip(np.searchsorted(known, outcome.users), 0, len(known) - 1)
        seen = np.where(known[position] == outcome.users, counts[position], 0)
        parts = [(seen >= low) & (seen <= high) for low, high in _PARTS.values()]
        rows += [[task, metric, *([_of_part(outcome, part, metric) for part in parts])]] if metric else []
    heads = ["task", "metric", *_PARTS]
    return "<h3>By training rows of the user</h3>" + table(heads, rows)


def _of_part(outcome: Outcome, part: Any, metric: str) -> float | None:
    return outcome.measure(part.astype(np.float64)).get(metric) if part.any() else None


def _by_column(inputs: Inputs, column: str) -> str:
    rows = []
    for task in inputs.model.tasks:
        outcome = inputs.own.get(task.name)
        if task.retrieves or outcome is None or isinstance(inputs.predictions[task.name], dict):
            continue
        labels, weights = judged(task, inputs.model.schema, inputs.batch)
        kept = weights > 0
        columns = (labels[kept], inputs.predictions[task.name][kept], weights[kept])
        found = by_slice(task.report, {column: inputs.test[column].to_numpy()[kept]}, *columns)
        metric = _main_metric(task.name, outcome)
        if metric:
            rows += [
                [task.name, metric, part or "all", int(row["rows"]), row[metric]] for (_, part), row in found.iterrows()
            ]
    heads = ["task", "metric", column, "rows", "value"]
    return f"<h3>By {escaped(column)}</h3>{table(heads, rows)}" if rows else ""


def calibration(inputs: Inputs) -> Section | None:
    """Return the reliability curve of each task with probabilities of an event."""
    from tfmtl.evaluation import plots  # reads matplotlib

    curves = {}
    for task in inputs.model.tasks:
        if task.name in inputs.own and isinstance(task, BinaryTask):
            labels, weights = judged(task, inputs.model.schema, inputs.batch)
            kept = weights > 0
            curves[task.name] = reliability_curve(
                labels[kept], np.ravel(inputs.predictions[task.name])[kept], weights[kept], equal_mass=True
            )
    if not curves:
        return None
    with page_colors():
        picture = as_svg(plots.reliability(curves), "reliability")
    caption = (
        "Observed share of events by predicted probability, in ten parts of equal size; the dashed line is perfect."
    )
    return Section("Calibration", figure(picture, caption))


def training(inputs: Inputs) -> Section | None:
    """Return the curves of the training, and the conflicts between tasks."""
    from tfmtl.evaluation import plots

    body = ""
    with page_colors():
        if inputs.history:
            shown = ["loss", *(f"{task.name}_loss" for task in inputs.model.tasks)]
            shown = [name for name in shown if name in inputs.history]
            picture = as_svg(plots.learning_curves({"training": inputs.history}, shown or None), "curves")
            body += figure(picture, "Losses by epoch; dashed lines are those of validation rows.")
        if inputs.conflicts:
            from tfmtl.interpretation import conflict_heat_map

            names = [task.name for task in inputs.model.tasks]
            picture = as_svg(conflict_heat_map(inputs.conflicts, names, "cosine"), "conflicts")
            body += figure(picture, "Mean cosine between the gradients of two tasks: below 0 they conflict.")
    return Section("Training", body) if body else None
