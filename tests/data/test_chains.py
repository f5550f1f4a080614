from __future__ import annotations

import datetime
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import LabelGraph, mask_immature, mask_unreached, repair_order

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
        (pd.to_datetime(TIMES, unit="D"), "1970-01-11", datetime.timedelta(days=7)),
        (pd.to_datetime(TIMES, unit="D"), np.datetime64("1970-01-11"), pd.DateOffset(days=7)),
        (pd.to_datetime(TIMES, unit="D").dt.tz_localize("UTC"), "1970-01-11", pd.offsets.Day(7)),
        (
            pd.to_datetime(TIMES, unit="D").dt.tz_localize("UTC"),
            pd.Timestamp("1970-01-11 01:00", tz="Europe/Oslo"),
            np.timedelta64(7, "D"),
        ),
    ],
    ids=["numbers", "dates", "text bound", "offset", "zone", "zones"],
)
def test_a_label_is_missing_until_its_window_has_passed(times: pd.Series, until: Any, window: Any) -> None:
    table = pd.DataFrame({"time": times, "buy": LABELS})
    np.testing.assert_array_equal(mask_immature(table, "buy", "time", until, window)["buy"], EXPECTED)
    assert table["buy"].tolist() == LABELS


@pytest.mark.parametrize(
    ("times", "until", "window", "sentence"),
    [
        (["9/1/2024", "10/1/2024"], "2024-10-02", pd.Timedelta(days=1), "Column 'time' must hold datetimes or numbers"),
        ([1, 2], pd.Timestamp(0), 1, "`observed_until` must be Real"),
        ([1, 2], 3, pd.Timedelta(days=1), "`window` must be Real"),
        (pd.to_datetime([1, 2], unit="D"), 3, pd.Timedelta(days=1), "`observed_until` must be a datetime"),
        (pd.to_datetime([1, 2], unit="D"), pd.Timestamp(0, tz="UTC"), pd.Timedelta(0), "It must have no time zone"),
        (pd.to_datetime([1, 2], unit="D"), pd.Timestamp(0), 7, "`window` must be a pandas.Timedelta or an offset of"),
    ],
)
def test_times_of_different_kinds_are_refused(times: Any, until: Any, window: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        mask_immature(pd.DataFrame({"time": times, "buy": [0.0, 1.0]}), "buy", "time", until, window)


def test_without_a_window_every_label_with_a_time_is_final() -> None:
    table = pd.DataFrame({"time": [9, 10, 11], "buy": [0.0, 0.0, 0.0]})
    np.testing.assert_array_equal(mask_immature(table, "buy", "time", 10, 0)["buy"], [0, 0, NAN])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sell", "time", 10, 7), "Unknown column ['sell'] in the table"),
        (("buy", "tine", 10, 7), "Unknown column ['tine'] in the table; known: ['time', 'buy']. Did you mean 'time'?"),
        (("buy", "time", 10, -1), "`window` must be 0 or more. Received: window=-1."),
    ],
)
def test_bad_argument_is_named(arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        mask_immature(pd.DataFrame({"time": TIMES, "buy": LABELS}), *arguments)


@pytest.mark.parametrize("window", [pd.Timedelta(days=-1), pd.DateOffset(days=-1)])
def test_a_negative_window_is_named(window: Any) -> None:
    table = pd.DataFrame({"time": pd.to_datetime([1, 2], unit="D"), "buy": [0.0, 1.0]})
    with pytest.raises(ValueError, match=re.escape("`window` must be 0 or more.")):
        mask_immature(table, "buy", "time", pd.Timestamp(0), window)


def broken() -> pd.DataFrame:
    return pd.DataFrame(
        {"visit": [1, 0, 0, NAN, 1], "conversion": [1, 0, 1, 1, 0], "spend": [2.0, 3.0, 0, 0, NAN], "age": range(5)},
        index=[7, 8, 9, 10, 11],
    )


def test_parents_are_raised_with_one_warning_that_counts_rows() -> None:
    given = broken()
    with pytest.warns(UserWarning, match="contradicted") as caught:
        found = repair_order(given, CHAIN, "raise_parents")
    assert [str(one.message) for one in caught] == [
        "2 of 5 rows contradicted the order of labels, and their parents were set to 1: 1 with 'conversion' but not "
        "'visit', 1 with 'spend' but not 'visit', 1 with 'spend' but not 'conversion'."
    ]
    np.testing.assert_array_equal(found["visit"], [1, 1, 1, 1, 1])
    np.testing.assert_array_equal(found["conversion"], [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(found[["spend", "age"]], given[["spend", "age"]])
    pd.testing.assert_frame_equal(given, broken())
    mask_unreached(found, CHAIN)  # which refuses rows that contradict the order


def test_rows_against_the_order_are_dropped() -> None:
    with pytest.warns(UserWarning, match="2 of 5 rows contradicted the order of labels, and they were dropped: "):
        found = repair_order(broken(), CHAIN, "drop")
    assert found.index.tolist() == [7, 10, 11]  # a missing parent contradicts nothing
    mask_unreached(found, CHAIN)


def test_a_table_in_order_is_unchanged_without_a_warning() -> None:
    good = frame()
    for how in ("drop", "raise_parents"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = repair_order(good, CHAIN, how)  # type: ignore[arg-type]
        expected = good if how == "drop" else good.assign(visit=[0, 1, 1, 1, 1])
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_another_repair_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("Unknown value ['fix'] in `how`; known: ['raise_parents', 'drop']")):
        repair_order(frame(), CHAIN, "fix")  # type: ignore[arg-type]
