"""Perturbed columns: shares are exact and nested, missing values keep the others, unknown ids are unknown."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfmtl.data import Categorical, IdSequence, MultiValued, Numeric, NumericSequence, Text, Vector
from tfmtl.evaluation.reports.perturbations import (
    drawn,
    generator,
    holds_ids,
    holds_numbers,
    noisy,
    unknown_id,
    with_missing,
    with_unknown,
)

LARGE = 2**62 + 1  # a float would round it


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    masks = [drawn(10, share, np.random.default_rng(3)) for share in (0.0, 0.3, 0.7, 1.0)]
    assert [int(mask.sum()) for mask in masks] == [0, 3, 7, 10]
    assert all((small <= large).all() for small, large in itertools.pairwise(masks))


def test_draws_depend_on_the_seed_the_kind_and_the_column() -> None:
    found = [generator(*names).random() for names in [(0, "a", "b"), (1, "a", "b"), (0, "b", "b"), (0, "a", "c")]]
    assert len(set(found)) == 4
    assert generator(0, "a", "b").random() == found[0]


@pytest.mark.parametrize(
    ("values", "dtype", "feature", "expected"),
    [
        ([LARGE, 7, LARGE - 2], "int64", Categorical("c", dtype="int64"), [-1, 7, LARGE - 2]),
        ([LARGE, 7, LARGE - 2], "uint64", Categorical("c", dtype="int64"), [-1, 7, LARGE - 2]),
        ([LARGE, 7, LARGE - 2], "int64", Categorical("c"), ["", "7", str(LARGE - 2)]),
        ([True, False, True], "bool", Categorical("c"), ["", "False", "True"]),
        (["x", None, "y"], object, Categorical("c"), ["", "", "y"]),
        (["x", "y", "y"], "category", Categorical("c"), ["", "y", "y"]),
        (["x", "y", None], "string[pyarrow]", Categorical("c"), ["", "y", ""]),
        ([1.5, np.nan, 2.5], "float64", Numeric("c"), [np.nan, np.nan, 2.5]),
        ([1, 2, 3], "int64", Numeric("c"), [np.nan, 2.0, 3.0]),
        ([["a"], ["b"], None], object, IdSequence("c", of="d", max_length=1), [[""], ["b"], [""]]),
        ([[1.0], [2.0], None], object, Vector("c", size=1), [[np.nan], [2.0], [np.nan]]),
    ],
)
def test_missing_values_leave_the_others_as_they_are(values: Any, dtype: Any, feature: Any, expected: Any) -> None:
    column = pd.Series(values, [5, 5, 2], dtype, name="c")
    before = column.copy(deep=True)
    found = feature.read(with_missing(column, np.array([True, False, False])))
    np.testing.assert_array_equal(found, np.array(expected, found.dtype))
    pd.testing.assert_series_equal(column, before)
    every = feature.read(with_missing(column, np.ones(3, bool)))
    np.testing.assert_array_equal(every, np.broadcast_to(found[:1], every.shape))


def test_arrow_lists_can_be_missing() -> None:
    column = pd.Series(pd.arrays.ArrowExtensionArray(pa.array([["a", "b"], ["c"]])), name="c")
    feature = IdSequence("c", of="d", max_length=2)
    found = feature.read(with_missing(column, np.array([False, True])))
    assert found.tolist() == [["a", "b"], ["", ""]]


def test_noise_has_the_deviation_of_the_column_and_keeps_missing_values() -> None:
    column, z = pd.Series([1.0, np.nan, 5.0, 9.0], name="c"), np.random.default_rng(1).standard_normal(4)
    deviation = np.sqrt(np.mean((np.array([1.0, 5.0, 9.0]) - 5.0) ** 2))
    found = noisy(Numeric("c"), column, 0.5, np.random.default_rng(1))
    np.testing.assert_allclose(found, column + 0.5 * deviation * z, rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(noisy(Numeric("c"), column, 0.0, np.random.default_rng(1)), column.astype("float32"))


def test_noise_of_vectors_is_that_of_each_position_and_of_lists_that_of_all() -> None:
    rows = pd.Series([[0.0, 10.0], [2.0, 10.0]], name="c")
    z = np.random.default_rng(1).standard_normal((2, 2))
    found = noisy(Vector("c", size=2), rows, 1.0, np.random.default_rng(1))
    np.testing.assert_allclose(found, np.array(rows.tolist()) + [1.0, 0.0] * z, rtol=1e-6)
    ages = pd.Series([[0.0, 4.0], [2.0]], name="c")
    found = noisy(NumericSequence("c", of="h", max_length=2), ages, 1.0, np.random.default_rng(1))
    np.testing.assert_allclose(found, [[0.0, 4.0], [2.0, np.nan]] + np.std([0.0, 4.0, 2.0]) * z, rtol=1e-6)


def test_large_numbers_have_noise_before_they_are_rounded() -> None:
    """Unix seconds within an hour: in float32 they would be multiples of 128."""
    seconds = pd.Series(1.7e9 + np.arange(4.0), name="c")
    found = noisy(Numeric("c", dtype="float64"), seconds, 0.1, np.random.default_rng(1))
    expected = seconds + 0.1 * np.std(np.arange(4.0)) * np.random.default_rng(1).standard_normal(4)
    np.testing.assert_allclose(found - 1.7e9, expected - 1.7e9, rtol=1e-6)


def test_a_share_of_the_ids_is_unknown_and_missing_ones_stay() -> None:
    column = pd.Series(["a", None, "b", "c", ""], dtype=object, name="c")
    before = column.copy()
    found = with_unknown(Categorical("c"), column, 1.0, "?", np.random.default_rng(0))
    assert found.tolist() == ["?", "", "?", "?", ""]
    some = with_unknown(Categorical("c"), column, 1 / 3, "?", np.random.default_rng(0))
    assert (some == "?").sum() == 1
    pd.testing.assert_series_equal(column, before)


def test_unknown_ids_are_inside_of_lists() -> None:
    column = pd.Series([[1, 2], [], [3, 4]], name="c")
    feature = IdSequence("c", of="d", max_length=3, dtype="int64")
    every = with_unknown(feature, column, 1.0, 9, np.random.default_rng(0))
    assert every.tolist() == [[9, 9, -1], [-1] * 3, [9, 9, -1]]
    half = with_unknown(feature, column, 0.5, 9, np.random.default_rng(0))
    assert (half == 9).sum() == 2
    assert column.tolist() == [[1, 2], [], [3, 4]]


def test_an_unknown_id_is_not_in_the_vocabulary() -> None:
    largest = np.iinfo(np.int64).max
    assert unknown_id(Categorical("c", dtype="int64"), np.array([largest, largest - 1, 5])) == largest - 2
    assert unknown_id(Categorical("c"), [b"unknown", "unknown1"]) == "unknown2"
    assert unknown_id(Categorical("c"), np.array([], object)) == "unknown"


def test_kinds_of_features() -> None:
    numbers = [Numeric("a"), Vector("b", size=2), NumericSequence("c", of="h")]
    with_ids = [Categorical("d"), Categorical("e", dtype="int64"), IdSequence("f", of="d"), MultiValued("g")]
    assert all(holds_numbers(f) and not holds_ids(f) for f in numbers)
    assert all(holds_ids(f) and not holds_numbers(f) for f in with_ids)
    assert not holds_ids(Text("t"))
    assert not holds_numbers(Text("t"))
