from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import LabelGraph, mask_immature, mask_unreached

NAN = float("nan")
CHAIN = LabelGraph.chain("visit", "conversion", "spend")


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"visit": [0, 1, 1, 1, NAN], "conversion": [0, 0, 1, NAN, 1], "spend": [0, 0, 7.5, 0, 3], "age": range(5)}
    )


def test_a_label_is_missing_where_a_parent_is_not_above_zero() -> None:
    table = frame()
    found = mask_unreached(table, CHAIN)
    np.testing.assert_array_equal(found["visit"], table["visit"])
    np.testing.assert_array_equal(found["conversion"], [NAN, 0, 1, NAN, NAN])
    np.testing.assert_array_equal(found["spend"], [NAN, NAN, 7.5, NAN, 3])  # by the conversions in the table
    assert found["age"].tolist() == list(range(5))
    pd.testing.assert_frame_equal(table, frame())  # the given one is as it was


def test_every_parent_counts() -> None:
    table = pd.DataFrame({"a": [1, 1, 0], "b": [0, 1, 1], "c": [0, 1, 0]})
    found = mask_unreached(table, LabelGraph({"c": ("a", "b")}))
    np.testing.assert_array_equal(found["c"], [NAN, 1, NAN])


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            frame().assign(visit=0),
            "Label 'conversion' is above 0 in rows where 'visit', its parent, is 0. Received: rows=2.",
        ),
        (frame().drop(columns="visit"), "Unknown label ['visit'] in the table"),
    ],
)
def test_a_table_that_contradicts_the_graph_is_refused(table: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        mask_unreached(table, CHAIN)


TIMES = pd.Series([1.0, 3.0, 4.0, 9.0, NAN, NAN])
LABELS = [0.0, 0.0, 0.0, 1.0, 0.0, 1.0]
EXPECTED = [0.0, 0.0, NAN, 1.0, NAN, 1.0]  # at 10 with a window of 7: final up to 3, the positives at once


@pytest.mark.parametrize(
    ("times", "until", "window"),
    [
        (TIMES, 10, 7),
        (pd.to_datetime(TIMES, unit="D"), pd.Timestamp("1970-01-11"), pd.Timedelta(days=7)),
    ],
    ids=["numbers", "dates"],
)
def test_a_label_is_missing_until_its_window_has_passed(times: pd.Series, until: Any, window: Any) -> None:
    table = pd.DataFrame({"time": times, "buy": LABELS})
    np.testing.assert_array_equal(mask_immature(table, "buy", "time", until, window)["buy"], EXPECTED)
    assert table["buy"].tolist() == LABELS


def test_without_a_window_every_label_with_a_time_is_final() -> None:
    table = pd.DataFrame({"time": [9, 10, 11], "buy": [0.0, 0.0, 0.0]})
    np.testing.assert_array_equal(mask_immature(table, "buy", "time", 10, 0)["buy"], [0, 0, NAN])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sell", "time", 10, 7), "Unknown column ['sell'] in the table"),
        (("buy", "tine", 10, 7), "Unknown column ['tine'] in the table; known: ['time', 'buy']. Did you mean 'time'?"),
        (("buy", "time", 10, -1), "`window` must be 0 or more. Received: window=-1."),
        (("buy", "time", pd.Timestamp(0), pd.Timedelta(days=-1)), "`window` must be 0 or more."),
    ],
)
def test_bad_argument_is_named(arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        mask_immature(pd.DataFrame({"time": TIMES, "buy": LABELS}), *arguments)
