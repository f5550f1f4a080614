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
from tfmtl.reporting import disturbances, facts, quality, reasons
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

    It holds the model and the data; each task's metrics with intervals beside the best simple baseline; parts of the
    rows; calibration, training and conflicts; robustness to other inputs; the importance of features; the use of
    experts; lists of some users; size and speed. A part without its input is left out. A click on a head sorts a table.

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
        k, examples: length of a list of recommendations, and number of users with a list.
        rows: most test rows on which the importance of features is measured.
        seed, progress: seed of the draws; called with the number of finished and of all parts.

    Returns: the path.

    Raises:
        ValueError: if a column, a row or matplotlib is missing; FileNotFoundError if the folder of `path` is.

    Example:
        >>> # write_report(model, test, "report.html", train=train, seen=train, history=history)

    Cost: one evaluation, for each feature two passes over `rows` rows and three over 2000, and the baselines.
    """
    require_type(model, MultiTaskModel, "model")
    require_positive_int(k=k, rows=rows)
    require(isinstance(examples, int) and examples >= 0, "`examples` must be 0 or more.", examples=examples)
    target = _checked_path(path)
    inputs = Inputs(
        model, *_checked_tables(test, train, seen, slices), history=_checked_log(getattr(history, "history", history)),
        conflicts=getattr(conflicts, "history", conflicts), slices=tuple(slices), k=k, examples=examples, rows=rows,
        seed=seed,
    )  # fmt: skip
    text = page(title, inputs.lead, _sections(inputs, description, progress)).encode()
    replace_file(target, lambda file: file.write(text))
    return target


def _sections(inputs: Inputs, description: str, progress: Progress | None) -> list[Section]:
    parts: list[_Part] = [
        lambda given: facts.card(given, description), facts.data, quality.metrics, quality.slices, quality.calibration,
        quality.training, disturbances.robustness, reasons.importance, reasons.experts, reasons.recommendations,
        facts.speed,
    ]  # fmt: skip
    found: list[Section] = []
    for i, part in enumerate(parts):
        found += filter(None, [part(inputs)])
        if progress is not None:
            progress(i + 1, len(parts))
    return found


def _checked_path(path: str | os.PathLike[str]) -> pathlib.Path:
    require_matplotlib()
    target = pathlib.Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The folder of the report does not exist; make {str(target.parent)!r} first.")
    require(not target.is_dir(), "`path` is a folder, not a file; add the name of a file.", path=str(target))
    return target


def _checked_tables(test: Any, train: Any, seen: Any, slices: Sequence[str]) -> tuple[Any, Any, Any]:
    test, train, seen = (None if table is None else as_frame(table) for table in (test, train, seen))
    require(test is not None and len(test) > 0, "`test` has no row; at least one is needed.")
    require_several(slices=slices)
    require_known(slices, list(test.columns), "column", "`test`")
    return test, train, seen


def _checked_log(history: Any) -> Mapping[str, Sequence[float]] | None:
    require(
        history is None or isinstance(history, Mapping),
        "`history` must be the return value of `fit`, or its `history`.",
        history=type(history).__name__,
    )
    return history
