from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.every_kind import SCHEMA, table
from tfmtl._keras import tf
from tfmtl.data import frames
from tfmtl.data.columns import to_columns
from tfmtl.data.features import Categorical, Numeric
from tfmtl.data.frames import Batch, encode, encode_dataset, from_frame, to_batch
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Label, Schema

ROWS = 23
SMALL = Schema([Categorical("user"), Numeric("row", transform="none")], labels=[Label("y")])


@pytest.fixture(scope="module")
def every_kind() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


@pytest.fixture(scope="module")
def small() -> Preprocessor:
    return Preprocessor.fit(SMALL, numbered())


def numbered() -> pd.DataFrame:
    return pd.DataFrame({"user": "u", "row": np.arange(ROWS), "y": np.arange(ROWS) * 10.0})


def epoch(dataset: tf.data.Dataset) -> list[int]:
    return [int(row) for batch in dataset.as_numpy_iterator() for row in batch.features["row"][:, 0]]


def raw(frame: pd.DataFrame) -> dict[str, Any]:
    """Return every column as a client would send it; labels and weights as they are in the table."""
    columns: dict[str, Any] = dict(to_columns(frame, SCHEMA.features.values()))
    for name in ("click", "stars", "trust"):
        columns[name] = frame[name].to_numpy(np.float64, na_value=np.nan)
    columns["slot"] = frame["slot"].fillna("").to_numpy(object)
    return columns


def check_equal(found: tf.data.Dataset, expected: tf.data.Dataset) -> None:
    assert found.element_spec == expected.element_spec
    for left, right in zip(found, expected, strict=True):
        for value, other in zip(tf.nest.flatten(left), tf.nest.flatten(right), strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-6)  # the last bit depends on the rows of a call


def test_batches_hold_the_rows_in_order(small: Preprocessor) -> None:
    dataset = from_frame(numbered(), small, 10)
    batches = list(dataset)
    assert [len(batch.labels["y"]) for batch in batches] == [10, 10, 3]
    assert int(dataset.cardinality()) == 3
    assert epoch(dataset) == epoch(dataset) == list(range(ROWS))
    assert batches[2].labels["y"].numpy().tolist() == [200, 210, 220]
    assert batches[0].features["user"].dtype == tf.int32
    assert batches[0].labels["y"].dtype == batches[0].weights["y"].dtype == tf.float32


def test_every_row_comes_once_an_epoch_with_its_label(small: Preprocessor) -> None:
    for batch in from_frame(numbered(), small, 10, shuffle_seed=3):
        np.testing.assert_array_equal(batch.labels["y"], 10 * batch.features["row"][:, 0])
    dataset = from_frame(numbered(), small, 10, shuffle_seed=3)
    first, second, third = epoch(dataset), epoch(dataset), epoch(dataset)
    assert sorted(first) == sorted(second) == sorted(third) == list(range(ROWS))
    assert len({tuple(first), tuple(second), tuple(third), tuple(range(ROWS))}) == 4


def test_the_seed_decides_the_order(small: Preprocessor) -> None:
    def orders(seed: int) -> list[list[int]]:
        dataset = from_frame(numbered(), small, 10, shuffle_seed=seed)
        return [epoch(dataset), epoch(dataset)]

    assert orders(3) == orders(3)
    assert orders(3)[0] not in orders(4)


def test_the_clock_decides_the_order_of_an_epoch(small: Preprocessor) -> None:
    clock = tf.Variable(5, dtype=tf.int64)
    dataset = from_frame(numbered(), small, 10, shuffle_seed=3, clock=clock)
    at_five = epoch(dataset)
    assert epoch(dataset) == at_five
    clock.assign(8)
    assert epoch(dataset) != at_five
    resumed = from_frame(numbered(), small, 10, shuffle_seed=3, clock=tf.Variable(5, dtype=tf.int64))
    assert epoch(resumed) == at_five
    assert int(clock) == 8


def test_the_clock_is_read_when_the_epoch_begins(small: Preprocessor) -> None:
    clock = tf.Variable(5, dtype=tf.int64)
    dataset = from_frame(numbered(), small, 1, shuffle_seed=3, clock=clock)
    rows = []
    for batch in dataset:
        rows.append(int(batch.features["row"][0, 0]))
        clock.assign_add(1)
    assert sorted(rows) == list(range(ROWS))
    clock.assign(5)
    assert rows == epoch(dataset)


def test_a_whole_table_is_one_batch(every_kind: Preprocessor) -> None:
    batch = to_batch(table(), every_kind)
    (only,) = from_frame(table(), every_kind, 100)
    tf.nest.map_structure(np.testing.assert_array_equal, batch, only)
    np.testing.assert_array_equal(batch.labels["shelf"], [0, 1, np.nan, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(batch.weights["stars"], [1, 0, 0, 2, 1, 1, 0.5, 1])


def test_features_alone_need_no_labels(every_kind: Preprocessor) -> None:
    frame = table().drop(columns=["click", "stars", "trust", "slot"])
    batch = to_batch(frame, every_kind, labels=False)
    assert (batch.labels, batch.weights) == ({}, {})
    with pytest.raises(ValueError, match=re.escape("lacks the columns ['click', 'stars', 'trust', 'slot']")):
        to_batch(frame, every_kind)


def test_encoding_in_pieces_is_encoding_at_once(every_kind: Preprocessor, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = to_columns(table(), SCHEMA.features.values())
    expected = encode(every_kind, columns)
    monkeypatch.setattr(frames, "_ENCODE_ROWS", 3)
    for name, value in encode(every_kind, columns).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)


def test_dicts_give_the_batches_of_the_table(every_kind: Preprocessor) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(raw(table())).batch(3)
    check_equal(encode_dataset(dataset, every_kind), from_frame(table(), every_kind, 3))


def test_tuples_give_the_batches_of_the_table(every_kind: Preprocessor) -> None:
    columns = raw(table())
    features = {name: columns[name] for name in SCHEMA.features}
    labels = {label.task: columns[label.column] for label in SCHEMA.labels}
    weights = {"stars": columns["trust"]}
    dataset = tf.data.Dataset.from_tensor_slices((features, labels, weights)).batch(3)
    check_equal(encode_dataset(dataset, every_kind), from_frame(table(), every_kind, 3))
    unweighted = tf.data.Dataset.from_tensor_slices((features, labels)).batch(8)
    (batch,) = encode_dataset(unweighted, every_kind)
    assert batch.weights["stars"].numpy().tolist() == [1, 0, 1, 1, 1, 1, 1, 1]


def test_batches_pass_through(every_kind: Preprocessor) -> None:
    dataset = from_frame(table(), every_kind, 3)
    assert encode_dataset(dataset, every_kind) is dataset


def test_a_data_set_without_labels_can_be_encoded_for_prediction(every_kind: Preprocessor) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(dict(to_columns(table(), SCHEMA.features.values()))).batch(8)
    (batch,) = encode_dataset(dataset, every_kind, labels=False)
    assert (batch.labels, batch.weights) == ({}, {})
    with pytest.raises(ValueError, match=re.escape("Unknown label ['click'] in the data set (task 'click')")):
        encode_dataset(dataset, every_kind)


def elements(**changed: Any) -> tf.data.Dataset:
    frame = numbered()
    columns = {name: frame[name].to_numpy() for name in ("user", "row", "y")}
    return tf.data.Dataset.from_tensor_slices({**columns, **changed}).batch(10)


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (
            lambda: elements().map(lambda row: row["y"]),
            "A data set must yield dicts of columns or (features, labels, weights)",
        ),
        (
            lambda: elements().map(lambda row: (row, row, row, row)),
            "A data set must yield dicts of columns or (features, labels, weights)",
        ),
        (
            lambda: elements().map(lambda row: ({"user": row["user"]}, row)),
            "The data set lacks the features ['row']; it has ['user'].",
        ),
        (
            lambda: elements().map(lambda row: (row, {"z": row["y"]})),
            "Unknown label ['y'] in the data set (task 'y'); known: ['z']",
        ),
        (
            lambda: elements(user=np.arange(ROWS)),
            "Feature 'user' must be a string tensor of shape (None,). Received: dtype='int64'",
        ),
    ],
)
def test_wrong_data_sets_are_named(small: Preprocessor, dataset: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        encode_dataset(dataset(), small)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_labels_of_a_data_set_are_refused_as_those_of_a_table(small: Preprocessor, value: float) -> None:
    labels = np.where(np.arange(ROWS) == 1, value, 2.0)
    sentence = "The labels of task `y` must be finite; a missing label is NaN"
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        next(iter(encode_dataset(elements(y=labels), small)))


def test_missing_labels_of_a_data_set_weigh_nothing(small: Preprocessor) -> None:
    batch: Batch = next(iter(encode_dataset(elements(y=np.where(np.arange(ROWS) == 1, np.nan, 2.0)), small)))
    np.testing.assert_array_equal(batch.labels["y"][:3], [2, np.nan, 2])
    assert batch.weights["y"].numpy()[:3].tolist() == [1, 0, 1]


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_wrong_weights_of_a_data_set_name_the_task(small: Preprocessor, weight: float) -> None:
    dataset = elements().map(lambda row: (row, {"y": row["y"]}, {"y": tf.fill(tf.shape(row["y"]), weight)}))
    with pytest.raises(tf.errors.InvalidArgumentError, match="The weights of task `y` must be zero or positive"):
        list(encode_dataset(dataset, small))


def test_text_labels_of_a_data_set_need_classes(small: Preprocessor) -> None:
    dataset = elements().map(lambda row: (row, {"y": tf.fill(tf.shape(row["y"]), "good")}))
    sentence = r"^The label of task 'y' must be numbers; the data set holds strings; name the classes of text in `Label"
    with pytest.raises(ValueError, match=sentence):
        encode_dataset(dataset, small)


def test_an_unknown_class_of_a_data_set_names_the_task(every_kind: Preprocessor) -> None:
    columns = {**raw(table()), "slot": np.array(["top"] * 7 + ["middle"], object)}
    dataset = encode_dataset(tf.data.Dataset.from_tensor_slices(columns).batch(8), every_kind)
    with pytest.raises(tf.errors.InvalidArgumentError, match="A label of task `shelf` is not among its classes"):
        list(dataset)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_batch_size_is_checked(small: Preprocessor, size: Any) -> None:
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        from_frame(numbered(), small, size)


def test_an_empty_table_is_refused(small: Preprocessor) -> None:
    with pytest.raises(ValueError, match="The table is empty; at least one row is needed"):
        from_frame(numbered()[:0], small, 5)


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [({}, 8192), ({"history": [32]}, 8192), ({"history": [1000]}, 262), ({"baskets": [100, 20]}, 131),
     ({"history": [10], "longer": [2**19]}, 1), ({"vector": [2**19], "none": [0]}, 8192)],
)  # fmt: skip
def test_a_pass_reads_fewer_rows_of_longer_lists(shapes: dict[str, list[int]], rows: int) -> None:
    """Rows times positions of the longest list are at most 2^18; the numbers of a vector are no positions."""
    features = {
        name: np.zeros([1, *shape], "float32" if name == "vector" else "int32") for name, shape in shapes.items()
    }
    assert frames.rows_of_pass({"user": np.zeros(1, "int32"), **features}) == rows
