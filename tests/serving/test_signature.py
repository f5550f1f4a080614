"""Requests as protos: written and absent values, and lists that are too short or too long."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.serving import to_examples
from tfmtl.serving.parsing import _of_other_types, from_examples

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


def proto(**features: list[float]) -> bytes:
    """Return a proto in which whole numbers are written as integers, other numbers as floats."""
    written = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        if all(isinstance(value, int) for value in values)
        else tf.train.Feature(float_list=tf.train.FloatList(value=values))
        for name, values in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=written)).SerializeToString()


def test_a_number_may_be_an_integer() -> None:
    """The other rows of the batch, other inputs and the ends of lists stay as they are."""
    rows = [
        proto(age=[30], count=[7], vector=[1, -2], ids=[4, 5, 6]),
        proto(age=[30.5], count=[8], vector=[0.5]),
        proto(vector=[2**40, 4, 5], age=[], more=[3]),
        b"",
        proto(count=[9], age=[-(2**62)], vector=[0.25, 0.75]),
    ]
    parsed = from_examples(tf.constant(rows), SPECS)
    np.testing.assert_array_equal(parsed["age"], np.asarray([30, 30.5, np.nan, np.nan, -(2.0**62)], np.float32))
    np.testing.assert_array_equal(parsed["vector"], [[1, -2], [0.5, np.nan], [2**40, 4], [np.nan] * 2, [0.25, 0.75]])
    np.testing.assert_array_equal(parsed["count"], [7, 8, -1, -1, 9])
    np.testing.assert_array_equal(parsed["ids"], [[4, 5, 6], *[[-1] * 3] * 4])
    for number, row in enumerate(rows):
        alone = from_examples(tf.constant([row]), SPECS)
        np.testing.assert_array_equal(alone["age"][0], parsed["age"][number])
        np.testing.assert_array_equal(alone["vector"][0], parsed["vector"][number])


def test_numbers_of_any_width_may_be_integers() -> None:
    specs = {"values": tf.TensorSpec([None, None], tf.float32)}
    parsed = from_examples(tf.constant([proto(values=[1, 2, 3]), proto(values=[0.5]), proto(values=[4])]), specs)
    np.testing.assert_array_equal(parsed["values"], [[1, 2, 3], [0.5, *[np.nan] * 2], [4, *[np.nan] * 2]])


def test_a_text_that_looks_like_an_integer_is_a_text() -> None:
    text = proto(age=[3])
    row = tf.train.Example(
        features=tf.train.Features(
            feature={
                "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text])),
                "age": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
            }
        )
    ).SerializeToString()
    parsed = from_examples(tf.constant([row]), SPECS)
    assert (parsed["name"].numpy().tolist(), parsed["age"].numpy().tolist()) == ([text], [0.5])


@pytest.mark.parametrize("rows", [[], [b""], [b"", proto(other=[1])]])
def test_exact_numbers_may_be_absent_from_the_whole_batch(rows: list[bytes]) -> None:
    specs = {"time": tf.TensorSpec([None], tf.float64), **SPECS}
    parsed = from_examples(tf.constant(rows, tf.string), specs)
    assert parsed["time"].dtype == tf.float64
    np.testing.assert_array_equal(parsed["time"], [np.nan] * len(rows))
    np.testing.assert_array_equal(parsed["age"], [np.nan] * len(rows))


def test_exact_numbers_and_integers_in_one_row() -> None:
    specs = {"time": tf.TensorSpec([None], tf.float64), **SPECS}
    parsed = from_examples(tf.constant([proto(time=[1_700_000_001], age=[3]), proto(age=[0.5])]), specs)
    np.testing.assert_array_equal(parsed["time"], [1_700_000_001.0, np.nan])
    np.testing.assert_array_equal(parsed["age"], [3, 0.5])


def test_integers_beyond_their_type_are_its_nearest_value() -> None:
    rows = [proto(count=[value]) for value in (2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**31) - 1, -(2**32), -(2**63))]
    parsed = from_examples(tf.constant(rows), SPECS)["count"].numpy().tolist()
    assert parsed == [2**31 - 1] * 4 + [-(2**31)] * 3


def of_kind(kind: str, size: int) -> tf.train.Feature:
    """Return a list with `size` values."""
    if kind == "string":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"] * size))
    if kind == "float":
        return tf.train.Feature(float_list=tf.train.FloatList(value=[0.5] * size))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[2] * size))


def test_inputs_of_another_type_are_missing_and_change_nothing_else() -> None:
    """The sizes are those of which a length in the proto looks like the byte of a type."""
    own = {"name": "string", "count": "integer", "age": "float", "ids": "integer", "vector": "float"}
    good = proto(count=[7], age=[0.5], ids=[4, 5], vector=[1.5, 2.5])
    rows, without = [], []
    for size in (0, 1, 2, 4, 6, 8, 16, 24, 30, 124, 125, 126, 127, 300, 500, 1200, 2400, 3400):
        right = {name: of_kind(kind, size) for name, kind in own.items()}
        for name, kind in own.items():
            for other in {"string", "float", "integer"} - {kind} - ({"integer"} if kind == "float" else set()):
                feature = {n: of_kind(other, size) if n == name else f for n, f in right.items()}
                rows += [tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(), good]
                del feature[name]
                without += [tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(), good]
    parsed, expected = (from_examples(tf.constant(protos), SPECS) for protos in (rows, without))
    for name in SPECS:
        np.testing.assert_array_equal(parsed[name], expected[name], err_msg=name)
    assert parsed["age"][1::2].numpy().tolist() == [0.5] * (len(rows) // 2)
    assert parsed["ids"][1, :3].numpy().tolist() == [4, 5, -1]


def test_long_names_may_have_integers_for_numbers() -> None:
    name = "a" * 300
    specs = {name: tf.TensorSpec([None], tf.float32), "count": tf.TensorSpec([None], tf.int32)}
    parsed = from_examples(tf.constant([proto(**{name: [3]}), proto(count=[0.5])]), specs)
    np.testing.assert_array_equal(parsed[name], [3, np.nan])
    np.testing.assert_array_equal(parsed["count"], [-1, -1])


def test_names_without_an_input_are_ignored() -> None:
    parsed = from_examples(tf.constant([proto(age=[0.5], aeg=[7], nmae=[1.5])]), SPECS)
    assert parsed["age"].numpy().tolist() == [0.5]
    assert set(parsed) == set(SPECS)


def test_only_rows_of_other_types_take_the_slow_parser() -> None:
    expression = _of_other_types({name: tf.int64 if s.dtype.is_integer else s.dtype for name, s in SPECS.items()})
    own = {"name": "string", "count": "integer", "age": "float", "ids": "integer", "vector": "float"}
    rows = []
    for size in [*range(140), 400, 500, 1200, 2400, 3400, 20_000]:
        feature = {name: of_kind(kind, size) for name, kind in own.items()}
        rows.append(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    assert not tf.strings.regex_full_match(rows, expression).numpy().any()


@pytest.mark.parametrize("text", [b"", b"soon", b"1e", b"0x1F", b"nan", b"inf", b"1_000", "\u0663".encode(), b"\xff"])
def test_text_that_is_no_exact_number_is_missing(text: bytes) -> None:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    row = tf.train.Example(features=tf.train.Features(feature={"time": feature})).SerializeToString()
    specs = {"time": tf.TensorSpec([None], tf.float64)}
    parsed = from_examples(tf.constant([row, proto(time=[1_700_000_001])]), specs)
    np.testing.assert_array_equal(parsed["time"], [np.nan, 1_700_000_001.0])


def test_a_string_that_is_no_proto_is_an_error() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse example input"):
        from_examples(tf.constant([b"no proto"]), SPECS)
