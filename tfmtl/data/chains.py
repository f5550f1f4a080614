"""Labels that depend on other labels or on time, and are therefore unobserved in some rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl._label_graph import LabelGraph


def mask_unreached(frame: pd.DataFrame, graph: LabelGraph) -> pd.DataFrame:
    """Return the table with labels missing wherever a parent is not above 0.

    What is left are the labels of the conditional problem, P(conversion | click), on the rows where it was observed.
    An ordinary `BinaryClassification` on them is the naive model: it learns from clicked rows only and is asked about
    all, the selection bias that `EntireSpaceConversion` avoids. An ordinary task of spend, or the statistics of
    `Regression.from_statistics`, want exactly these labels.

    Args:
        frame: table with the graph's label columns; a missing parent hides its children, too.
        graph: which label column comes after which.

    Raises:
        ValueError: if a column is absent, or a label is above 0 where a parent is 0 and so contradicts the graph.

    Example:
        >>> frame = pd.DataFrame({"click": [1, 1, 0], "buy": [1, 0, 0]})
        >>> mask_unreached(frame, LabelGraph.chain("click", "buy"))["buy"].tolist()
        [1.0, 0.0, nan]
    """
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

    A row of which nothing has happened is only a negative once the window after its event has passed; until then its
    label is unknown. What has happened counts at once.

    Args:
        frame: table with the label and the time of the event that the label follows, such as the click.
        label: column of the label.
        event_time: column of times, or of numbers; a label without a time is missing unless it is above 0.
        observed_until: when the table was taken, of the same kind.
        window: how long a positive may take, a `pandas.Timedelta`, or a number for times that are numbers; 0 or more.

    Raises:
        ValueError: if a column is absent or the window is negative.

    Example:
        >>> frame = pd.DataFrame({"day": [1, 8, 9], "buy": [0.0, 0.0, 1.0]})
        >>> mask_immature(frame, "buy", "day", observed_until=10, window=7)["buy"].tolist()
        [0.0, nan, 1.0]

    Reference:
        The delayed feedback that this cuts off is that of Chapelle, "Modeling Delayed Feedback in Display
        Advertising", KDD 2014, https://doi.org/10.1145/2623330.2623634, who models the delay instead.
    """
    require_known([label, event_time], frame.columns, "column", "the table")
    require(window >= type(window)(0), "`window` must be 0 or more.", window=window)
    final = frame[event_time] + window <= observed_until
    return frame.assign(**{label: frame[label].where(final | (frame[label] > 0))})
