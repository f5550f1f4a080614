"""Lists in the form of Arrow are encoded like the same lists of Python objects."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import strategies

from tfmtl.data.arrow_lists import arrow_lists, to_series
from tfmtl.data.columns import to_columns
from tfmtl.data.features import Categorical, Feature, IdSequence, MultiValued, Vector
from tfmtl.data.raw_table import fingerprint

INTEGERS = strategies.none() | strategies.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1, 0, -1, 5])
TEXTS = strategies.none() | strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=3)
CASES = [
    (IdSequence("a", of="u", max_length=2, dtype="int64"), INTEGERS, pa.int64()),
    (MultiValued("a", max_length=3), TEXTS, pa.string()),
]
KINDS = [lambda item: pa.list_(item), lambda item: pa.large_list(item)]


def converted(feature: Feature, column: pd.Series) -> np.ndarray:
    return to_columns(pd.DataFrame({"a": column}), [feature])["a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("feature", "values", "item"), CASES)
@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(data=strategies.data())
def test_lists_of_ids(feature: Feature, values: Any, item: pa.DataType, kind: Any, data: strategies.DataObject) -> None:
    rows = data.draw(strategies.lists(strategies.none() | strategies.lists(values, max_size=4), min_size=1, max_size=6))
    cut = data.draw(strategies.integers(0, len(rows) - 1))
    column = pa.chunked_array([pa.array(rows, kind(item))[:cut], pa.array(rows, kind(item))[cut:]])
    of_python = converted(feature, pd.Series(rows, dtype=object))
    np.testing.assert_array_equal(converted(feature, to_series(column)), of_python)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.list_(pa.int16())])
def test_vectors(kind: pa.DataType) -> None:
    rows = [[1, 2], None, [None, 3], [4, 5]]
    found = converted(Vector("a", size=2), to_series(pa.chunked_array([pa.array(rows, kind)])))
    np.testing.assert_array_equal(found, np.float32([[1, 2], [np.nan] * 2, [np.nan, 3], [4, 5]]))
    sliced = converted(Vector("a", size=2), to_series(pa.chunked_array([pa.array(rows, kind)[2:]])))
    np.testing.assert_array_equal(sliced, found[2:])


@pytest.mark.parametrize(
    ("feature", "rows", "kind", "message"),
    [
        (
            Vector("a", size=2),
            [[1.0, 2.0], [3.0]],
            pa.float32(),
            r"vectors of 2 numbers in every row; one has the shape",
        ),
        (Vector("a", size=1), [[np.inf]], pa.float32(), "Column 'a' holds infinite values"),
        (Vector("a", size=1), [["x"]], pa.string(), "Column 'a' must hold vectors of 1 numbers in every row"),
        (MultiValued("a"), [[0.5]], pa.float64(), "Column 'a' must hold strings; it holds floating values"),
        (MultiValued("a", dtype="int64"), [["x"]], pa.string(), "Column 'a' must hold integers"),
    ],
)
def test_wrong_lists_name_the_column(feature: Feature, rows: Any, kind: pa.DataType, message: str) -> None:
    column = to_series(pa.chunked_array([pa.array(rows, pa.list_(kind))]))
    with pytest.raises(ValueError, match=message):
        converted(feature, column)


def test_other_columns_are_none_of_these() -> None:
    assert arrow_lists(pd.Series([[1], [2]])) is None
    assert arrow_lists(pd.Series([1, 2], dtype="int64[pyarrow]")) is None
    with pytest.raises(ValueError, match="must hold strings"):
        converted(Categorical("a"), to_series(pa.chunked_array([pa.array([["x"]])])))


def test_the_fingerprint_of_lists_is_that_of_python_lists() -> None:
    rows = [[1, 2], [], [3]]
    ours = pd.DataFrame({"a": to_series(pa.chunked_array([pa.array(rows)]))})
    assert fingerprint(ours) == fingerprint(pd.DataFrame({"a": pd.Series(rows, dtype=object)}))
