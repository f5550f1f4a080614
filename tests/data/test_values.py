"""Values that a conversion would change without an error: large ids in floats, unsigned integers, complex numbers."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfmtl._keras import tf
from tfmtl.data import (
    Categorical,
    Feature,
    IdSequence,
    Label,
    MultiValued,
    Numeric,
    Preprocessor,
    Schema,
    Vector,
    open_files,
    to_columns,
)
from tfmtl.data.columns import to_labels

NUMBER = Categorical("a", dtype="int64")
LARGE = 2.0**53 + 2  # its odd neighbour is rounded to it


def convert(feature: Feature, values: Any, dtype: Any = None) -> np.ndarray:
    return to_columns(pd.DataFrame({feature.column: pd.Series(values, dtype=dtype)}), [feature])[feature.name]


def arrow(values: list[Any], kind: pa.DataType) -> pd.Series:
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, kind)))


@pytest.mark.parametrize(
    ("feature", "values", "digits"),
    [
        (NUMBER, pd.Series([1.0, LARGE]), 53),
        (NUMBER, pd.Series([1.0, -LARGE, np.nan]), 53),
        (NUMBER, pd.Series([1.0, LARGE], dtype="Float64"), 53),
        (NUMBER, pd.Series([1, LARGE], dtype=object), 53),
        (NUMBER, pd.Series([1.0, 2.0**24], dtype="float32"), 24),
        (NUMBER, pd.Series([1.0, 2.0**11], dtype="float16"), 11),
        (NUMBER, arrow([1.0, LARGE], pa.float64()), 53),
        (NUMBER, arrow([1.0, 2.0**24], pa.float32()), 24),
        (MultiValued("a", dtype="int64"), pd.Series([[1.0], [np.nan, LARGE]]), 53),
        (MultiValued("a", dtype="int64"), pd.Series([np.array([1.0, LARGE])]), 53),
        (IdSequence("a", of="b", dtype="int64"), arrow([[1.0, LARGE]], pa.list_(pa.float64())), 53),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else str(value),  # no pandas prints float16
)
def test_ids_that_floats_may_have_merged_are_refused(feature: Feature, values: pd.Series, digits: int) -> None:
    message = (
        rf"Column 'a' holds ids such as -?\d+ as floats, which merge integers from 2\*\*{digits} on; read the column"
    )
    with pytest.raises(ValueError, match=message):
        convert(feature, values)


@pytest.mark.parametrize("dtype", ["float64", "Float64", object])
def test_smaller_ids_in_floats_are_exact(dtype: Any) -> None:
    values = [2.0**53 - 1, 1.0 - 2.0**53, None]
    assert convert(NUMBER, values, dtype).tolist() == [2**53 - 1, 1 - 2**53, -1]


def test_ids_in_float_records_are_refused(tmp_path: pathlib.Path) -> None:
    def write(path: pathlib.Path, value: float) -> None:
        feature = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        example = tf.train.Example(features=tf.train.Features(feature={"a": feature}))
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(example.SerializeToString())

    write(tmp_path / "small.tfrecord", 2.0**24 - 1)
    assert next(iter(open_files(tmp_path, Schema([NUMBER])).chunks()))["a"].tolist() == [2**24 - 1]
    write(tmp_path / "small.tfrecord", 2.0**24)
    with pytest.raises(ValueError, match=r"column 'a' holds ids such as 16777216 as floats, which merge"):
        list(open_files(tmp_path, Schema([NUMBER])).chunks())


@pytest.mark.parametrize("dtype", ["uint64", "UInt64", "uint64[pyarrow]", object])
def test_unsigned_integers(dtype: Any) -> None:
    assert convert(NUMBER, [7, 2**63 - 1], dtype).tolist() == [7, 2**63 - 1]
    assert convert(Categorical("a"), [7, 2**63], dtype).tolist() == ["7", str(2**63)]
    message = f"Column 'a' holds ids above the largest int64, such as {2**63}; declare the feature with dtype="
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(NUMBER, [7, 2**63], dtype)


@pytest.mark.parametrize(
    ("feature", "kind", "values", "expected"),
    [
        (Categorical("a"), pa.dictionary(pa.int32(), pa.string()), ["x", None, "x"], ["x", "", "x"]),
        (NUMBER, pa.dictionary(pa.int8(), pa.int64()), [7, None, 2**60 + 1], [7, -1, 2**60 + 1]),
        (Numeric("a"), pa.dictionary(pa.int8(), pa.float64()), [1.5, 2.5, 1.5], [1.5, 2.5, 1.5]),
        (MultiValued("a", 2), pa.list_(pa.dictionary(pa.int8(), pa.string())), [["x"], None], [["x", ""], ["", ""]]),
    ],
    ids=str,
)  # fmt: skip
def test_dictionaries_of_arrow(feature: Feature, kind: pa.DataType, values: list[Any], expected: list[Any]) -> None:
    assert convert(feature, arrow(values, kind)).tolist() == expected


def test_complex_numbers_are_refused() -> None:
    values = [1 + 2j, 3 + 0j]
    for dtype in ("complex128", "complex64", object):
        with pytest.raises(ValueError, match="Column 'a' must hold numbers; it has dtype"):
            convert(Numeric("a"), values, dtype)
        with pytest.raises(ValueError, match="Column 'a' must hold integers; it has dtype"):
            convert(NUMBER, values, dtype)
        with pytest.raises(ValueError, match="Label column 'y' must hold numbers"):
            to_labels(pd.DataFrame({"y": pd.Series(values, dtype=dtype)}), Schema([NUMBER], labels=[Label("y")]))
    with pytest.raises(ValueError, match="Column 'a' must hold vectors of 2 numbers in every row; they are complex"):
        convert(Vector("a", size=2), [values, values], object)
    frame = pd.DataFrame({"user": ["u"], "a": [1.0]})
    preprocessor = Preprocessor.fit(Schema([Categorical("user"), Numeric("a")]), frame)
    with pytest.raises(ValueError, match="Feature 'a' must be a float32 tensor"):
        preprocessor({"a": tf.constant([1 + 2j])})
