from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.every_kind import LARGE
from tfmtl.data.columns import check_columns, to_columns, to_labels
from tfmtl.data.features import Categorical, Feature, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.schema import Label, Schema


def convert(feature: Feature, values: Any, dtype: Any = None) -> np.ndarray:
    return to_columns(pd.DataFrame({feature.name: pd.Series(values, dtype=dtype)}), [feature])[feature.name]


def labels_of(label: Label, **columns: Any) -> tuple[list[float], list[float]]:
    schema = Schema([Categorical("user")], labels=[label])
    values, weights = to_labels(pd.DataFrame({name: pd.Series(column) for name, column in columns.items()}), schema)
    assert values[label.task].dtype == weights[label.task].dtype == np.float32
    return values[label.task].tolist(), weights[label.task].tolist()


@pytest.mark.parametrize("dtype", [object, "str", "string", "string[pyarrow]", "category"])
def test_strings_of_every_dtype(dtype: Any) -> None:
    assert convert(Categorical("a"), ["x", None, "", "Ü"], dtype).tolist() == ["x", "", "", "Ü"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([7, LARGE], "int64", ["7", str(LARGE)]),
        ([7, None], "Int64", ["7", ""]),
        ([7, None], object, ["7", ""]),
        ([7, None], "category", ["7", ""]),
        ([True, False], "bool", ["True", "False"]),
        ([None, None], object, ["", ""]),
        ([np.nan, None], "str", ["", ""]),
    ],
)
def test_other_values_of_a_string_feature(values: Any, dtype: Any, expected: list[str]) -> None:
    assert convert(Categorical("a"), values, dtype).tolist() == expected


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([7, LARGE, -1], "int64"),
        ([7, LARGE, None], "Int64"),
        ([7, LARGE, None], object),
        ([7, LARGE, np.nan], object),
        ([7, LARGE, None], "int64[pyarrow]"),
    ],
)
def test_integers_keep_every_digit(values: Any, dtype: Any) -> None:
    assert convert(Categorical("a", dtype="int64"), values, dtype).tolist() == [7, LARGE, -1]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([3.0, np.nan], "float64", [3, -1]),
        ([3.0, None], "Float64", [3, -1]),
        ([True, False], "bool", [1, 0]),
        ([True, None], "boolean", [1, -1]),
        ([None, None], object, [-1, -1]),
    ],
)
def test_other_values_of_an_integer_feature(values: Any, dtype: Any, expected: list[int]) -> None:
    found = convert(Categorical("a", dtype="int64"), values, dtype)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", ["float64", "Float64", object])
@pytest.mark.parametrize("value", [2.5, np.inf, 1e30])
def test_fractions_and_infinity_are_no_integers(value: float, dtype: Any) -> None:
    with pytest.raises(ValueError, match="Column 'a' must hold integers of 64 bits; it holds fractions or infinity"):
        convert(Categorical("a", dtype="int64"), [1.0, value], dtype)


ROWS = [["x", "y", "z"], [], None, ("y",), ["z", None]]


@pytest.mark.parametrize("make", [list, tuple, lambda row: np.array(row, object)], ids=["list", "tuple", "array"])
def test_lists_are_cut_and_padded(make: Any) -> None:
    rows = pd.Series([None if row is None else make(row) for row in ROWS], dtype=object)
    found = convert(MultiValued("a", max_length=2), rows)
    assert found.tolist() == [["x", "y"], ["", ""], ["", ""], ["y", ""], ["z", ""]]


@pytest.mark.parametrize("make", [list, np.array], ids=["list", "array"])
def test_lists_of_integers_keep_every_digit(make: Any) -> None:
    rows = pd.Series([make([LARGE, 2, 3]), None, make([4])], dtype=object)
    found = convert(IdSequence("a", of="b", max_length=2, dtype="int64"), rows)
    assert found.dtype == np.int64
    assert found.tolist() == [[LARGE, 2], [-1, -1], [4, -1]]


def test_lists_that_are_all_empty() -> None:
    assert convert(MultiValued("a", max_length=2, dtype="int64"), [[], None], object).tolist() == [[-1, -1]] * 2


def test_missing_vectors_are_nan_rows() -> None:
    found = convert(Vector("a", size=2), [[1, 2], None, np.array([3.0, np.nan])], object)
    np.testing.assert_array_equal(found, np.array([[1, 2], [np.nan, np.nan], [3, np.nan]], np.float32))


@pytest.mark.parametrize("dtype", ["float32", "Float64", "Int64", object, "int64[pyarrow]"])
def test_numbers_of_every_dtype(dtype: Any) -> None:
    found = convert(Numeric("a"), [1, None, 3], dtype)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1, np.nan, 3])


@pytest.mark.parametrize(
    ("feature", "values", "sentence"),
    [
        (Categorical("a"), [1.5, 2.0], "Column 'a' must hold strings; it holds floating values."),
        (Categorical("a"), ["x", 2], "Column 'a' must hold strings; it holds mixed-integer values."),
        (Text("a"), [1.5], "Column 'a' must hold strings; it holds floating values."),
        (Categorical("a", dtype="int64"), ["7"], "Column 'a' must hold integers; it has dtype"),
        (Numeric("a"), ["7"], "Column 'a' must hold numbers; it has dtype"),
        (Numeric("a"), [pd.Timestamp(0)], "Column 'a' must hold numbers; it has dtype datetime64"),
        (Numeric("a"), [0.0, -np.inf, np.inf], "Column 'a' holds 2 infinite values, the first at position 1;"),
        (Numeric("a"), [1e300], "Column 'a' holds 1 infinite values"),  # above the largest float32
        (Numeric("a", missing="error"), [0, np.nan], "Column 'a' has 1 missing values, the first at position 1;"),
        (MultiValued("a"), ["x|y"], "Column 'a' must hold lists but holds strings; give the feature a `separator`."),
        (MultiValued("a"), [["x"]] * 200 + ["x|y"], "Column 'a' must hold lists but holds strings"),
        (MultiValued("a"), [3], "Column 'a' must hold lists of string values;"),
        (MultiValued("a"), [[1.5]], "Column 'a' must hold strings; it holds floating values."),
        (IdSequence("a", of="b", dtype="int64"), [["x"]], "Column 'a' must hold integers; it has dtype"),
        (
            Vector("a", size=2),
            [[1, 2], [1, 2, 3]],
            "Column 'a' must hold vectors of 2 numbers in every row; one has the shape (3,).",
        ),
        (Vector("a", size=2), [[1]], "one has the shape (1,)."),
        (Vector("a", size=2), [3.0, 4.0], "one has the shape ()."),
        (
            Vector("a", size=2),
            [["x", "y"]],
            "Column 'a' must hold vectors of 2 numbers in every row; could not convert",
        ),
        (Vector("a", size=2), [[1, np.inf]], "Column 'a' holds infinite values; replace them."),
    ],
)
def test_wrong_values_name_the_column(feature: Feature, values: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        convert(feature, values)


def test_tables_that_cannot_be_read() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2]})
    with pytest.raises(
        ValueError, match=re.escape("lacks the columns ['c', 'd'] that the schema names; it has ['a', 'b'].")
    ):
        check_columns(frame, ["c", "a", "d", "c"])
    with pytest.raises(ValueError, match=re.escape("The table is empty; at least one row is needed.")):
        check_columns(frame[:0], ["a"])
    with pytest.raises(ValueError, match=re.escape("has the columns ['a'] more than once")):
        check_columns(frame[["a", "b", "a"]], ["a", "b"])
    check_columns(frame[["a", "b", "b"]], ["a"])  # a column that is not read may occur twice


def test_a_missing_label_has_weight_zero() -> None:
    label = Label("stars", sample_weight="trust")
    values, weights = labels_of(label, stars=pd.array([5, None, 3], "Int64"), trust=[0.5, -9.0, 0.0])
    np.testing.assert_array_equal(values, [5, np.nan, 3])
    assert weights == [0.5, 0.0, 0.0]  # the weight of a missing label does not matter


def test_without_a_weight_column_observed_labels_weigh_one() -> None:
    assert labels_of(Label("a"), a=pd.Series([True, None, False], dtype=object))[1] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [object, "str", "string[pyarrow]", "category"])
def test_classes_become_positions(dtype: Any) -> None:
    column = pd.Series(["low", None, "top"], dtype=dtype)
    values, weights = labels_of(Label("a", classes=("top", "low")), a=column)
    np.testing.assert_array_equal(values, [1, np.nan, 0])
    assert weights == [1, 0, 1]


@pytest.mark.parametrize("column", [[20, 10], [20.0, 10.0], pd.array([20, 10], "Int64")])
def test_classes_may_be_numbers(column: Any) -> None:
    assert labels_of(Label("a", classes=(10, 20)), a=column)[0] == [1, 0]


@pytest.mark.parametrize(
    ("label", "columns", "sentence"),
    [
        (Label("a", classes=("x",)), {"a": ["x", "z"]}, "Label column 'a' holds ['z'], which the classes ['x'] lack."),
        (Label("a"), {"a": ["x"]}, "; name the classes of text in `Label(classes=...)`."),
        (Label("a"), {"a": [1.0, np.inf]}, "Label column 'a' holds 1 infinite values, the first at position 1;"),
        (Label("a", sample_weight="w"), {"a": [1.0]}, "The table lacks the columns ['w']"),
        (
            Label("a", sample_weight="w"),
            {"a": [1.0, 1.0], "w": [1.0, -1.0]},
            "Weight column 'w' of task 'a' must be zero or positive",
        ),
        (
            Label("a", sample_weight="w"),
            {"a": [1.0, 1.0], "w": [np.nan, 1.0]},
            "1 rows are not, the first at position 0.",
        ),
    ],
)
def test_wrong_labels_name_the_column(label: Label, columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        labels_of(label, **columns)


@pytest.mark.parametrize("dtype", [object, "category"])
def test_bytes_are_the_text_that_they_spell(dtype: Any) -> None:
    assert convert(Categorical("a"), ["Ü".encode(), None, b"7"], dtype).tolist() == ["Ü", "", "7"]
    lists = convert(IdSequence("a", of="b", max_length=2), [[b"x", b"y", b"z"], []])
    assert lists.tolist() == [["x", "y"], ["", ""]]
    with pytest.raises(ValueError, match="Column 'a' holds bytes that are no UTF-8 text; write them as text"):
        convert(Categorical("a"), [b"\xff"], dtype)
