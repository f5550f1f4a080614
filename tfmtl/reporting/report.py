"""write_report: a model and its results as one file that a browser shows."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_known, require_positive_int, require_several, require_type
from tfmtl._staging import replace_file
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.ranks import Progress
from tfmtl.models import MultiTaskModel
from tfmtl.reporting import facts, quality, reasons
from tfmtl.reporting.inputs import Inputs
from tfmtl.reporting.page import Section, page
from tfmtl.reporting.pictures import require_matplotlib

_Part = Callable[[Inputs], Section | None]


def write_report(
    model: MultiTaskModel,
    test: Any,
    path: str | os.PathLike[str],
    *,
    train: Any = None,
    seen: Any = None,
    history: Any = None,
    conflicts: Any = None,
    slices: Sequence[str] = (),
    title: str = "Report of a recommender",
    description: str = "",
    k: int = 10,
    examples: int = 5,
    rows: int = 5000,
    seed: int = 0,
    progress: Progress | None = None,
) -> pathlib.Path:
    """Write a report of a model for people who do not program: one HTML file that loads nothing from elsewhere.

    It holds the tasks and features; counts of the data and shares of unknown ids; the metrics of each task with
    intervals, beside the best simple baseline; metrics of parts of the rows; reliability curves; curves of the
    training; conflicts between tasks; the importance of features for each task; the use of experts; lists of some
    users; size and speed. A part without its input is left out. A click on the head of a column sorts a table; colors
    follow the light or dark mode of the reader.

    Args:
        model: the trained model.
        test: table (pandas, PyArrow, Polars) of rows that did not train the model, with the labels of some tasks.
        path: the file; an older one is replaced when the new one is complete.
        train: training table; it gives the baselines, the parts by activity, and the histories in the lists.
        seen: known interactions to leave out of the lists, usually `train`; it needs only the two id columns.
        history: the return value of `fit`, or its `history`.
        conflicts: a `ConflictMonitor` that was given to `fit`, or its `history`.
        slices: columns of `test` by which ranking tasks are measured.
        title, description: the head of the page, and the purpose of the model in a sentence or more.
        k: length of a list of recommendations.
        examples: number of users with a list; 0 for none.
        rows: most test rows on which the importance of features is measured.
        seed: seed of the draws.
        progress: called with the number of finished and of all parts.

    Returns:
        The path.

    Raises:
        ValueError: if a column does not exist, a table has no row, or matplotlib is not installed.
        FileNotFoundError: if the folder of `path` does not exist.

    Example:
        >>> # write_report(model, test, "report.html", train=train, seen=train, history=history)

    Cost: one evaluation, two passes over `rows` test rows for each feature, and with `train` the fit of the baselines
    of each task, which for large tables takes longest.
    """
    require_type(model, MultiTaskModel, "model")
    require_several(slices=slices)
    require_positive_int(k=k, rows=rows)
    require(isinstance(examples, int) and examples >= 0, "`examples` must be 0 or more.", examples=examples)
    require_matplotlib()
    target = pathlib.Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The folder of the report does not exist; make {str(target.parent)!r} first.")
    require(not target.is_dir(), "`path` must name a file, not a folder.", path=str(target))
    test, train, seen = (None if table is None else as_frame(table) for table in (test, train, seen))
    require(test is not None and len(test) > 0, "`test` has no row; at least one is needed.")
    require_known(slices, list(test.columns), "column", "`test`")
    logs = getattr(history, "history", history)
    inputs = Inputs(
        model, test, train, seen, history=_checked_log(logs), conflicts=getattr(conflicts, "history", conflicts),
        slices=tuple(slices), k=k, examples=examples, rows=rows, seed=seed,
    )  # fmt: skip
    parts: list[_Part] = [
        lambda given: facts.card(given, description), facts.data, quality.metrics, quality.slices, quality.calibration,
        quality.training, reasons.importance, reasons.experts, reasons.recommendations, facts.speed,
    ]  # fmt: skip
    sections: list[Section] = []
    for i, part in enumerate(parts):
        sections += filter(None, [part(inputs)])
        if progress is not None:
            progress(i + 1, len(parts))
    lead = f"{len(model.tasks)} tasks, measured on {len(inputs.test):,} rows that did not train the model."
    text = page(title, lead, sections).encode()
    replace_file(target, lambda file: file.write(text))
    return target


def _checked_log(history: Any) -> Mapping[str, Sequence[float]] | None:
    require(
        history is None or isinstance(history, Mapping),
        "`history` must be the return value of `fit`, or its `history`.",
        history=type(history).__name__,
    )
    return history
