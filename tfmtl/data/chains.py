"""Labels that depend on other labels or on time, and are therefore unobserved in some rows."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl._label_graph import LabelGraph
from tfmtl.data.interchange import as_rows
from tfmtl.data.times import comparable, duration, times_of


def mask_unreached(frame: pd.DataFrame, graph: LabelGraph) -> pd.DataFrame:
    """Return the table with labels missing wherever a parent is not above 0.

    The remaining labels are those of the conditional problem, P(conversion | click). Use them for a task of spend or
    for `Regression.from_statistics`. A `BinaryClassification` of them is the naive model: it is trained on clicked rows
    but predicts all rows, the selection bias that `EntireSpaceConversion` avoids.

    Args:
        frame: table with the graph's label columns; a missing parent hides its children, too.
        graph: the label columns by their parents.

    Raises:
        ValueError: if a column is absent, or a label is above 0 where a parent is 0 and so contradicts the graph.

    Example:
        >>> frame = pd.DataFrame({"click": [1, 1, 0], "buy": [1, 0, 0]})
        >>> mask_unreached(frame, LabelGraph.chain("click", "buy"))["buy"].tolist()
        [1.0, 0.0, nan]
    """
    frame = as_rows(frame)
    require_known(graph.order, frame.columns, "label", "the table")
    hidden: dict[str, pd.Series] = {}
    for label in graph.order:
        for parent in graph.parents_of(label):
            wrong = int(((frame[label] > 0) & (frame[parent] == 0)).sum())
            require(not wrong, f"Label {label!r} is above 0 in rows where {parent!r}, its parent, is 0.", rows=wrong)
            hidden[label] = hidden.get(label, frame[label]).where(frame[parent] > 0)
    return frame.assign(**hidden)


def repair_order(frame: pd.DataFrame, graph: LabelGraph, how: Literal["raise_parents", "drop"]) -> pd.DataFrame:
    """Return the table without rows that contradict the order of labels, such as a purchase without a click.

    Use it before training a chain on logs in which events got lost, or in which one action skips another, such as
    "buy now" without a cart. One warning counts the rows by label and parent.

    Args:
        frame: table with the graph's label columns.
        graph: the label columns by their parents.
        how: `"raise_parents"` sets every ancestor of a label above 0 to 1 where it is 0 or missing; `"drop"` removes
            rows in which a label is above 0 and an ancestor is 0.

    Raises:
        ValueError: if a column is absent or `how` is another word.

    Example:
        >>> import warnings
        >>> frame = pd.DataFrame({"click": [1.0, 0.0, 0.0], "buy": [1.0, 1.0, 0.0]})
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     raised = repair_order(frame, LabelGraph.chain("click", "buy"), "raise_parents")
        ...     left = repair_order(frame, LabelGraph.chain("click", "buy"), "drop")
        >>> raised["click"].tolist(), len(left)
        ([1.0, 1.0, 0.0], 2)
    """
    frame = as_rows(frame)
    require_known([how], ("raise_parents", "drop"), "value", "`how`")
    require_known(graph.order, frame.columns, "label", "the table")
    broken, found = np.zeros(len(frame), bool), []
    raised = {label: frame[label].copy() for label in graph.order}
    for label in graph.order:
        above = (frame[label] > 0).to_numpy()
        for parent in graph.ancestors_of(label):
            wrong = above & (frame[parent] == 0).to_numpy()
            broken |= wrong
            if wrong.any():
                found.append(f"{int(wrong.sum())} with {label!r} but not {parent!r}")
            raised[parent] = raised[parent].mask(above & ~(frame[parent] > 0).to_numpy(), 1)
    if found:
        done = "their parents were set to 1" if how == "raise_parents" else "they were dropped"
        warnings.warn(
            f"{int(broken.sum())} of {len(frame)} rows contradicted the order of labels, and {done}: "
            f"{', '.join(found)}.",
            stacklevel=2,
        )
    return frame[~broken] if how == "drop" else frame.assign(**raised)


def mask_immature(frame: pd.DataFrame, label: str, event_time: str, observed_until: Any, window: Any) -> pd.DataFrame:
    """Return the table with a label missing where it may still become positive.

    Use it before training on recent rows. A row without a positive label is negative only after `window` has passed
    since its event; until then its label is unknown. A positive label counts at once.

    Args:
        frame: table with the label and the time of the event that the label follows, such as the click.
        label: column of the label.
        event_time: column of datetimes, or of numbers; a label without a time is missing unless it is above 0.
        observed_until: time at which the table was extracted, of the same kind; without a time zone it takes that of
            the column.
        window: longest delay of a positive label, a `pandas.Timedelta` or an offset such as `pandas.DateOffset`, or a
            number for times that are numbers; 0 or more.

    Raises:
        ValueError: if a column is absent or the window is negative.
        TypeError: if the column holds no times, or another argument is of another kind than the column.

    Example:
        >>> frame = pd.DataFrame({"day": [1, 8, 9], "buy": [0.0, 0.0, 1.0]})
        >>> mask_immature(frame, "buy", "day", observed_until=10, window=7)["buy"].tolist()
        [0.0, nan, 1.0]

    Reference:
        Delayed feedback is described by Chapelle, "Modeling Delayed Feedback in Display
        Advertising", KDD 2014, https://doi.org/10.1145/2623330.2623634, who models the delay instead.
    """
    frame = as_rows(frame)
    require_known([label, event_time], frame.columns, "column", "the table")
    times = times_of(frame, event_time, missing=True)
    end = comparable(observed_until, times, event_time, "observed_until")
    final = np.asarray(times + duration(window, times, event_time, "window") <= end, dtype=bool) & times.notna()
    return frame.assign(**{label: frame[label].where(final | (frame[label] > 0))})
