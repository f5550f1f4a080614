"""Labels that depend on other labels or on time, and are therefore unobserved in some rows."""

from __future__ import annotations

from typing import Any

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
