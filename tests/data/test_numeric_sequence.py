from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.data.every_kind import SCHEMA, table
from tfmtl._keras import tf
from tfmtl.data import Categorical, IdSequence, NumericSequence, Preprocessor, Schema, with_histories
from tfmtl.data.arrow_lists import to_series

ITEMS, RECENT = Categorical("item"), IdSequence("recent", of="item", max_length=2)
AGES = NumericSequence("ages", of="recent", max_length=2)
SCHEMA_OF_AGES = Schema([Categorical("user"), RECENT, AGES], [ITEMS])


def preprocessor(**arguments: Any) -> Preprocessor:
    schema = Schema(
        [Categorical("user"), RECENT, NumericSequence("ages", of="recent", max_length=2, **arguments)], [ITEMS]
    )
    return Preprocessor.fit(schema, pd.DataFrame({"user": ["u"], "item": ["a"]}))  # neither list is read


def test_golden_encoding() -> None:
    """log(1 + 1) = 0.693147, -log(1 + 2) = -1.098612; each value has a flag, and the last flag is that of the row."""
    log2, log3 = 0.6931472, -1.0986123
    raw = [[1.0, math.nan, 5.0], [math.inf, -2.0, 5.0], [math.nan] * 3, [0.0, 1.0, 9.0]]
    found = preprocessor()({"ages": tf.constant(raw)})["ages"]
    expected = [[log2, 0, 0, 1, 0], [0, 1, log3, 0, 0], [0, 1, 0, 1, 1], [0, 0, log2, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    plain = preprocessor(transform="none")({"ages": tf.constant(raw)})["ages"]
    expected = [[1, 0, 0, 1, 0], [0, 1, -2, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(plain, expected)


@pytest.mark.parametrize("width", [0, 1])
def test_short_lists_end_in_missing_numbers(width: int) -> None:
    found = preprocessor(transform="none")({"ages": 3 * tf.ones([1, width])})["ages"].numpy().tolist()
    assert found == [[[0, 1, 0, 1, 1]], [[3, 0, 0, 1, 0]]][width]


def test_columns_of_python_and_of_arrow_are_read_alike() -> None:
    column = table()["days"]
    feature = SCHEMA.features["days"]
    nan = math.nan
    expected = [
        [0, 2.5, nan], [nan] * 3, [nan] * 3, [1, nan, 3], [1e30, nan, nan], [nan] * 3, [-2, 0.5, nan], [7, nan, nan],
    ]  # fmt: skip
    np.testing.assert_array_equal(feature.read(column), np.array(expected, np.float32))
    plain = [None if row is None else [None if v is None or v != v else float(v) for v in row] for row in column]
    arrow = to_series(pa.chunked_array([pa.array(plain, pa.list_(pa.float64()))])).rename("days")
    np.testing.assert_array_equal(feature.read(arrow), np.array(expected, np.float32))
    integers = to_series(pa.chunked_array([pa.array([[1, None], []], pa.list_(pa.int64()))])).rename("days")
    np.testing.assert_array_equal(feature.read(integers), [[1, nan, nan], [nan] * 3])


@pytest.mark.parametrize("rows", [[[]], [None, []], [np.array([])]])
def test_a_table_of_empty_lists_is_read(rows: list[Any]) -> None:
    found = AGES.read(pd.Series(rows, name="ages", dtype=object))
    np.testing.assert_array_equal(found, np.full([len(rows), 2], np.nan, np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["1,2"], "Column 'ages' must hold lists but holds strings."),
        ([[1.0, math.inf]], "Column 'ages' holds 1 infinite values, the first at position 1;"),
        ([["a"]], "Column 'ages' must hold numbers; it has dtype object."),
        ([3.0], "Column 'ages' must hold lists of numbers; 'float' object is not subscriptable."),
    ],
)
def test_other_columns_are_named(rows: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        AGES.read(pd.Series(rows, name="ages", dtype=object))


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        ("recnt", "Unknown feature ['recnt'] in `of` of 'ages'; known: ['user', 'recent', 'ages', 'item']."),
        ("item", "`of` of 'ages' must be an `IdSequence` with `max_length=3`. Received: of=Categorical(name='item'"),
        ("recent", "`of` of 'ages' must be an `IdSequence` with `max_length=3`. Received: of=IdSequence(name='recent'"),
    ],
)
def test_the_schema_needs_the_history(of: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Schema([Categorical("user"), RECENT, NumericSequence("ages", of=of, max_length=3)], [ITEMS])


def test_ages_are_those_of_the_events_at_the_time_of_the_row() -> None:
    """The basket of 5 January holds c and a; neither is in the other's history."""
    days = pd.to_datetime(["2024-01-05", "2024-01-01 00:00", "2024-01-02 12:00", "2024-01-05"], format="mixed")
    rows = pd.DataFrame({"user": "u", "item": ["c", "a", "b", "a"], "day": days}, index=[5, 6, 7, 8])
    found = with_histories(rows, SCHEMA_OF_AGES, "day", ages=["ages"])
    assert found["recent"].to_dict() == {5: ["b", "a"], 6: [], 7: ["a"], 8: ["b", "a"]}
    assert found["ages"].to_dict() == {5: [2.5, 4.0], 6: [], 7: [1.5], 8: [2.5, 4.0]}
    whole = with_histories(rows, SCHEMA_OF_AGES, "day", ages=["ages"], same_moment=True)
    assert whole["ages"].to_dict() == {5: [2.5, 4.0], 6: [], 7: [1.5], 8: [0.0, 2.5]}
    assert "ages" not in with_histories(rows, SCHEMA_OF_AGES, "day")


def test_ages_reach_into_the_past_in_the_unit_of_numbers_and_over_zones() -> None:
    past = pd.DataFrame({"user": ["u", "v"], "item": ["a", "b"], "day": [3, 4]})
    rows = pd.DataFrame({"user": ["v", "u"], "item": ["a", "b"], "day": [10, 9]})
    assert with_histories(rows, SCHEMA_OF_AGES, "day", past=past, ages=["ages"])["ages"].tolist() == [[6.0], [6.0]]
    nanoseconds = {"past": past.assign(day=past["day"] + 2**60), "rows": rows.assign(day=rows["day"] + 2**60)}
    found = with_histories(nanoseconds["rows"], SCHEMA_OF_AGES, "day", past=nanoseconds["past"], ages=["ages"])
    assert found["ages"].tolist() == [[6.0], [6.0]]
    past["day"] = pd.to_datetime(["2024-01-01 12:00", "2024-01-01 12:00"]).tz_localize("UTC")
    rows["day"] = pd.to_datetime(["2024-01-02 01:00", "2024-01-02 13:00"]).tz_localize("Europe/Oslo")  # UTC + 1
    assert with_histories(rows, SCHEMA_OF_AGES, "day", past=past, ages=["ages"])["ages"].tolist() == [[0.5], [1.0]]


def test_ages_belong_to_a_history_that_is_made() -> None:
    rows = pd.DataFrame({"user": ["u"], "item": ["a"], "day": [1]})
    with pytest.raises(
        ValueError, match=re.escape("Unknown list of ages ['recent'] in the `NumericSequence` features")
    ):
        with_histories(rows, SCHEMA_OF_AGES, "day", ages=["recent"])
