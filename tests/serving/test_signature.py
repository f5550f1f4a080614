"""Requests as protos: written and absent values, and lists that are too short or too long."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.serving import to_examples
from tfmtl.serving.signature import from_examples

SPECS = {
    "name": tf.TensorSpec([None], tf.string),
    "count": tf.TensorSpec([None], tf.int32),
    "age": tf.TensorSpec([None], tf.float32),
    "ids": tf.TensorSpec([None, None], tf.int64),
    "vector": tf.TensorSpec([None, 2], tf.float32),
}
COLUMNS = {
    "name": ["a", ""],
    "count": np.asarray([-1, 7], np.int32),
    "age": [np.nan, -np.inf],
    "ids": [[4, -1, -1], [-1, 5, 6]],
    "vector": [[1.0, np.nan], [np.nan, np.nan]],
}


def test_a_request_comes_back() -> None:
    parsed = from_examples(to_examples(COLUMNS), SPECS)
    assert parsed["name"].numpy().tolist() == [b"a", b""]
    for name in ("count", "age", "ids", "vector"):
        np.testing.assert_array_equal(parsed[name], COLUMNS[name])
        assert parsed[name].dtype == SPECS[name].dtype


def test_missing_values_are_not_written() -> None:
    first, second = (tf.train.Example.FromString(e).features.feature for e in to_examples(COLUMNS).numpy())
    assert sorted(first) == ["ids", "name", "vector"]
    assert list(first["ids"].int64_list.value) == [4]
    assert sorted(second) == ["age", "count", "ids"]
    assert list(second["ids"].int64_list.value) == [-1, 5, 6]  # the position of an entry in its list may matter


def test_absent_values_are_missing_and_long_lists_are_cut() -> None:
    def example(numbers: list[float]) -> bytes:
        feature = tf.train.Feature(float_list=tf.train.FloatList(value=numbers))
        return tf.train.Example(
            features=tf.train.Features(feature={"age": feature, "vector": feature})
        ).SerializeToString()

    parsed = from_examples(tf.constant([b"", example([]), example([1.0]), example([1.0, 2.0, 3.0])]), SPECS)
    np.testing.assert_array_equal(parsed["age"], [np.nan, np.nan, 1, 1])
    np.testing.assert_array_equal(parsed["vector"], [[np.nan] * 2, [np.nan] * 2, [1, np.nan], [1, 2]])
    assert parsed["ids"].shape == (4, 0)
    assert parsed["name"].numpy().tolist() == [b""] * 4


def test_no_rows() -> None:
    parsed = from_examples(to_examples({}), SPECS)
    assert [parsed[name].shape[0] for name in SPECS] == [0] * 5


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^All columns must have the same number of rows. Received: rows="):
        to_examples({"a": [1], "b": [1, 2]})
