from __future__ import annotations

import pathlib
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.tables import SCHEMA, shards, table
from tfmtl._keras import tf
from tfmtl.data.features import Categorical, IdSequence, Numeric, Vector
from tfmtl.data.files import FileSource, open_files
from tfmtl.data.frames import Batch, from_frame
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Label, Schema
from tfmtl.data.statistics import fit_statistics
from tfmtl.data.streams import from_files

SMALL = Schema(  # quick to trace
    query=[Categorical("item_id", dtype="int64"), Numeric("age")], labels=[Label("stars", sample_weight="trust")]
)


def preprocessor_of(frame: pd.DataFrame, schema: Schema = SMALL) -> Preprocessor:
    return Preprocessor.fit(schema, frame)


def collect(dataset: tf.data.Dataset) -> Batch:
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *dataset.as_numpy_iterator())


def check_equal(found: tf.Tensor, expected: tf.Tensor) -> None:
    """Compare; the last bit of a float depends on how many rows TensorFlow standardises in one call."""
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def items(dataset: tf.data.Dataset) -> list[int]:
    """Return the encoded item of each row: every row of `table` has an item of its own."""
    return collect(dataset).features["item_id"].tolist()


def source_and_preprocessor(folder: pathlib.Path, rows: int = 100, suffix: str = ".parquet") -> tuple[FileSource, Any]:
    frame = table(rows)
    return open_files(shards(folder, frame, suffix, count=4), SMALL), preprocessor_of(frame)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_and_table_give_the_same_statistics_and_batches(tmp_path: pathlib.Path, suffix: str) -> None:
    frame = table()
    source = open_files(shards(tmp_path, frame, suffix), SCHEMA)
    from_table, of_files = fit_statistics(SCHEMA, frame), fit_statistics(SCHEMA, source)
    assert {k: v.tolist() for k, v in of_files.vocabularies.items()} == {
        k: v.tolist() for k, v in from_table.vocabularies.items()
    }
    assert of_files.rows == from_table.rows
    assert of_files.moments["age"].mean == pytest.approx(from_table.moments["age"].mean)
    preprocessor = Preprocessor(SCHEMA, from_table)
    expected = list(from_frame(frame, preprocessor, 8))
    found = list(from_files(source, preprocessor, 8, shuffle_rows=20))
    assert len(found) == len(expected) == 7
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Batch)
        tf.nest.map_structure(check_equal, one, other)


def test_lists_and_vectors_come_through(tmp_path: pathlib.Path) -> None:
    frame = pd.DataFrame({"item": ["a", "b", "c"], "seen": [["a", "b", "c"], [], ["b"]]})
    frame["picture"] = [[0.5, 1.0], [1.5, 3.0], [2.5, 2.0]]
    frame.to_parquet(tmp_path / "a.parquet")
    schema = Schema(query=[Categorical("item"), IdSequence("seen", of="item", max_length=2), Vector("picture", size=2)])
    preprocessor = preprocessor_of(frame, schema)
    found = collect(from_files(open_files(tmp_path, schema), preprocessor, 2))
    tf.nest.map_structure(np.testing.assert_array_equal, found, collect(from_frame(frame, preprocessor, 2)))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_each_row_comes_once_an_epoch_in_an_order_of_its_own(tmp_path: pathlib.Path, suffix: str) -> None:
    source, preprocessor = source_and_preprocessor(tmp_path, suffix=suffix)
    in_order = items(from_files(source, preprocessor, 16))
    dataset = from_files(source, preprocessor, 16, shuffle_seed=3, shuffle_rows=32)
    epochs = [items(dataset) for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(in_order)] * 3
    assert len({tuple(epoch) for epoch in [*epochs, in_order]}) == 4
    again = from_files(source, preprocessor, 16, shuffle_seed=3, shuffle_rows=32)
    assert [items(again) for _ in range(3)] == epochs
    assert items(from_files(source, preprocessor, 16, shuffle_seed=4, shuffle_rows=32)) != epochs[0]


def test_rows_stay_whole_when_shuffled(tmp_path: pathlib.Path) -> None:
    source, preprocessor = source_and_preprocessor(tmp_path)
    plain, shuffled = (collect(from_files(source, preprocessor, 16, shuffle_seed=seed)) for seed in (None, 1))
    order, places = (np.argsort(batch.features["item_id"]) for batch in (plain, shuffled))
    tf.nest.map_structure(lambda a, b: np.testing.assert_array_equal(a[order], b[places]), plain, shuffled)


def test_a_clock_decides_the_order_as_a_resumed_training_needs(tmp_path: pathlib.Path) -> None:
    source, preprocessor = source_and_preprocessor(tmp_path)
    clock = tf.Variable(0, dtype=tf.int64)
    dataset = from_files(source, preprocessor, 16, shuffle_seed=3, clock=clock)
    first = items(dataset)
    assert items(dataset) == first  # the clock stood still
    clock.assign(7)
    second = items(dataset)
    assert second != first
    resumed = from_files(source, preprocessor, 16, shuffle_seed=3, clock=tf.Variable(7, dtype=tf.int64))
    assert items(resumed) == second


def test_without_labels_only_features_are_needed(tmp_path: pathlib.Path) -> None:
    frame = table(20)
    preprocessor = preprocessor_of(frame)
    source = open_files(shards(tmp_path, frame.drop(columns=["stars", "trust"])))
    batch = collect(from_files(source, preprocessor, 8, labels=False))
    assert batch.labels == batch.weights == {}
    assert len(batch.features["item_id"]) == 20


@pytest.mark.parametrize(("suffix", "steps"), [(".parquet", 7), (".csv", tf.data.UNKNOWN_CARDINALITY)])
def test_the_steps_of_an_epoch_are_known_where_they_are_free(tmp_path: pathlib.Path, suffix: str, steps: int) -> None:
    source, preprocessor = source_and_preprocessor(tmp_path, rows=50, suffix=suffix)
    assert int(from_files(source, preprocessor, 8).cardinality()) == steps


def test_an_abandoned_epoch_leaves_no_thread_and_the_next_one_is_whole(tmp_path: pathlib.Path) -> None:
    source, preprocessor = source_and_preprocessor(tmp_path)
    dataset = from_files(source, preprocessor, 4, shuffle_seed=0, shuffle_rows=8)
    before = threading.active_count()
    for _ in dataset.take(2):
        pass
    assert sorted(items(dataset)) == sorted(items(from_files(source, preprocessor, 16)))
    assert threading.active_count() == before


def test_a_column_that_the_files_lack_fails_at_the_call(tmp_path: pathlib.Path) -> None:
    frame = table(20)
    source = open_files(shards(tmp_path, frame.drop(columns="stars")))
    with pytest.raises(ValueError, match=r"Unknown column \['stars'\] in the files"):
        from_files(source, preprocessor_of(frame), 8)


def test_a_bad_value_ends_the_iteration_with_a_sentence(tmp_path: pathlib.Path) -> None:
    schema = Schema(query=[Categorical("user_id"), Numeric("age")], labels=[Label("click")])
    good = pd.DataFrame({"user_id": ["a", "b"], "age": [1.0, 2.0], "click": [0, 1]})
    preprocessor = preprocessor_of(good, schema)
    good.assign(age=[1.0, np.inf]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Column 'age' holds 1 infinite values"):
        list(from_files(open_files(tmp_path, schema), preprocessor, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"shuffle_rows": 0}, "`shuffle_rows` must be a positive integer"),
        ({"shuffle_seed": -1}, "`shuffle_seed` must be None or an integer of at least 0"),
        ({"shuffle_seed": 0.5}, "`shuffle_seed` must be None or an integer of at least 0"),
    ],
)
def test_arguments_are_checked(tmp_path: pathlib.Path, options: dict[str, Any], message: str) -> None:
    source, preprocessor = source_and_preprocessor(tmp_path, rows=8)
    with pytest.raises(ValueError, match=message):
        from_files(source, preprocessor, **{"batch_size": 4, **options})
