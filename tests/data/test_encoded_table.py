from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data import tables
from tests.data.every_kind import SCHEMA, indices, table, vocabulary
from tfmtl._keras import tf
from tfmtl.data import encoded_table as module
from tfmtl.data.columns import to_columns
from tfmtl.data.encoded_table import EncodedTable, cache
from tfmtl.data.features import Categorical, Numeric
from tfmtl.data.files import open_files
from tfmtl.data.frames import Batch, to_batch
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Label, Schema
from tfmtl.data.streams import from_files
from tfmtl.data.tfrecord_writer import write_tfrecords

ROWS = 500
SMALL = Schema([Categorical("user"), Numeric("row", transform="none")], labels=[Label("y")])


def numbered(rows: int = ROWS) -> pd.DataFrame:
    return pd.DataFrame({"user": "u", "row": np.arange(rows), "y": np.arange(rows) * 10.0})


@pytest.fixture(scope="module")
def small() -> Preprocessor:
    return Preprocessor.fit(SMALL, numbered())


@pytest.fixture(scope="module")
def every_kind() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


def stored(source: Any, preprocessor: Preprocessor, path: pathlib.Path, **options: Any) -> EncodedTable:
    found = cache(source, preprocessor, path, **options)
    assert isinstance(found, EncodedTable)
    return found


def epoch(dataset: tf.data.Dataset) -> list[int]:
    return [int(row) for batch in dataset.as_numpy_iterator() for row in batch.features["row"][:, 0]]


def collect(dataset: tf.data.Dataset) -> Batch:
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *dataset.as_numpy_iterator())


def check_equal(found: Any, expected: Any) -> None:
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def check_ids(batch: Batch, frame: pd.DataFrame) -> None:
    """Compare with the definition in plain Python: missing, unknown and known values of every kind."""
    training = table()
    for name, feature in SCHEMA.features.items():
        if feature.vocabulary is not None:
            owner = SCHEMA.features[feature.vocabulary]
            values = vocabulary(owner, training[owner.name].tolist())
            expected = [indices(feature, values, value) for value in frame[name]]
            np.testing.assert_array_equal(batch.features[name], expected, err_msg=name)


def unseen() -> pd.DataFrame:
    """Return rows of which every second has values that training has not seen."""
    new = table().assign(user="stranger", city="nowhere", item=12345, genres="new|a", title="never seen toy")
    new["tags"], new["recent"] = [[77, 1]] * 8, [[12345, 7]] * 8
    return pd.concat([table(), new], ignore_index=True)


def test_ids_of_every_kind_are_those_of_the_in_model_lookup(every_kind: Preprocessor, tmp_path: pathlib.Path) -> None:
    frame = unseen()
    on_disk = stored(frame, every_kind, tmp_path / "a.cache").to_batch()
    in_memory = cache(frame, every_kind)
    check_ids(on_disk, frame)
    raw = to_columns(frame, SCHEMA.features.values())
    asked = every_kind({name: tf.constant(values) for name, values in raw.items()})  # as serving runs it
    for batch in (on_disk, in_memory):
        check_equal(batch.features, asked)
        check_equal(batch, to_batch(frame, every_kind))
        assert {name: value.dtype for name, value in batch.features.items()} == {
            name: value.dtype for name, value in asked.items()
        }


def test_texts_that_repeat_are_encoded_as_each_alone(every_kind: Preprocessor) -> None:
    """Ten copies go by way of the distinct values, one row at a time does not."""
    frame = pd.concat([unseen()] * 10, ignore_index=True)
    once = [to_batch(frame.iloc[i : i + 1], every_kind).features for i in range(16)]
    together = to_batch(frame, every_kind).features
    for name, values in together.items():
        expected = np.tile(np.concatenate([row[name] for row in once]), [10] + [1] * (len(values.shape) - 1))
        np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=name)


def test_a_table_gives_the_same_batches_from_every_place(tmp_path: pathlib.Path) -> None:
    frame, schema = tables.table(50), tables.SCHEMA
    preprocessor = Preprocessor.fit(schema, frame)
    for suffix in (".csv", ".parquet"):
        tables.shards(tmp_path / suffix, frame, suffix)
    (tmp_path / ".tfrecord").mkdir()
    write_tfrecords(frame[:20], schema, tmp_path / ".tfrecord" / "a.tfrecord")
    write_tfrecords(frame[20:], schema, tmp_path / ".tfrecord" / "b.tfrecord")
    sources = {suffix: open_files(tmp_path / suffix, schema) for suffix in (".csv", ".parquet", ".tfrecord")}
    expected = to_batch(frame, preprocessor)
    for suffix, source in sources.items():
        check_equal(collect(from_files(source, preprocessor, 8, shuffle_rows=20)), expected)
        check_equal(cache(source, preprocessor), expected)
        check_equal(collect(stored(source, preprocessor, tmp_path / f"{suffix[1:]}.cache").batches(8)), expected)
    check_equal(stored(frame, preprocessor, tmp_path / "frame.cache").to_batch(), expected)


def test_batches_in_order(small: Preprocessor, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 64)
    found = stored(numbered(), small, tmp_path / "a.cache")
    dataset = found.batches(30, shuffle_rows=60)
    assert len(found) == ROWS
    assert int(dataset.cardinality()) == 17
    assert [len(batch.labels["y"]) for batch in dataset] == [30] * 16 + [20]
    assert epoch(dataset) == epoch(dataset) == list(range(ROWS))


@pytest.mark.parametrize("shuffle_rows", [1, 64, 100, ROWS, 10_000])
@pytest.mark.parametrize("block_bytes", [16, 1 << 16])
def test_every_row_comes_once_an_epoch_with_its_label(
    small: Preprocessor, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, shuffle_rows: int, block_bytes: int
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    dataset = stored(numbered(), small, tmp_path / "a.cache").batches(32, shuffle_seed=3, shuffle_rows=shuffle_rows)
    for batch in dataset:
        np.testing.assert_array_equal(batch.labels["y"], 10 * batch.features["row"][:, 0])
    epochs = [epoch(dataset) for _ in range(3)]
    assert [sorted(rows) for rows in epochs] == [list(range(ROWS))] * 3
    assert len({tuple(rows) for rows in [*epochs, range(ROWS)]}) == 4


def test_seed_and_clock_decide_the_order(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    found = stored(numbered(), small, tmp_path / "a.cache")

    def orders(seed: int) -> list[list[int]]:
        dataset = found.batches(32, shuffle_seed=seed, shuffle_rows=128)
        return [epoch(dataset), epoch(dataset)]

    assert orders(3) == orders(3)
    assert orders(3)[0] not in orders(4)
    clock = tf.Variable(5, dtype=tf.int64)
    dataset = found.batches(32, shuffle_seed=3, clock=clock)
    at_five = epoch(dataset)
    assert epoch(dataset) == at_five
    clock.assign(8)
    assert epoch(dataset) != at_five
    assert epoch(found.batches(32, shuffle_seed=3, clock=tf.Variable(5, dtype=tf.int64))) == at_five


def test_a_window_mixes_rows_of_the_whole_table(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    dataset = stored(numbered(4096), small, tmp_path / "a.cache").batches(128, shuffle_seed=0, shuffle_rows=1024)
    window = np.array(epoch(dataset)[:1024])
    assert len(np.unique(window // 512)) == 8  # every eighth of the table
    batches = window.reshape(8, 128)
    assert batches.std(axis=1).min() > 1000  # uniform numbers below 4096 have deviation 1182


def test_without_labels(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    frame = numbered()
    found = stored(frame.drop(columns="y"), small, tmp_path / "a.cache", labels=False)
    assert found.to_batch().labels == {}
    with pytest.raises(ValueError, match=r"lacks the columns \['y'\]"):
        cache(frame.drop(columns="y"), small, tmp_path / "b.cache")


def made(path: pathlib.Path) -> int:
    return path.stat().st_ino


def test_a_cache_is_read_again_until_something_changes(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    tables.shards(tmp_path / "data", numbered())
    path = tmp_path / "a.cache"

    def used(preprocessor: Preprocessor = small, **options: Any) -> tuple[int, EncodedTable]:
        found = stored(open_files(tmp_path / "data"), preprocessor, path, **options)
        return made(path), found

    first, old = used()
    assert used()[0] == first
    seen = [first]
    later = numbered().assign(y=1.0)
    for change in (
        lambda: os.utime(tmp_path / "data" / "part-0.parquet", ns=(1, 1)),
        lambda: tables.shards(tmp_path / "data", later),
        lambda: later[:7].to_parquet(tmp_path / "data" / "part-3.parquet"),
    ):
        change()
        number, found = used()
        assert number != seen[-1]
        assert used()[0] == number
        seen.append(number)
    assert len(found) == ROWS + 7
    other = Preprocessor.fit(SMALL, pd.concat([numbered(), numbered().assign(user="a")]))
    assert used(other)[0] != seen[-1]
    assert old.to_batch().labels["y"][-1] == 10.0 * (ROWS - 1)  # readers of the old file are not disturbed


def test_a_cache_of_a_table_knows_its_contents(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.cache"
    stored(numbered(), small, path)
    first = made(path)
    stored(numbered().assign(other=1), small, path)  # a column that the schema does not name
    assert made(path) == first
    assert stored(numbered()[::-1], small, path).to_batch().labels["y"][0] == 10.0 * (ROWS - 1)


@pytest.mark.parametrize("keep", [0.0, 1e-3, 0.3, 0.99])
def test_a_cut_cache_is_written_again(small: Preprocessor, tmp_path: pathlib.Path, keep: float) -> None:
    path = tmp_path / "a.cache"
    stored(numbered(), small, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    assert epoch(stored(numbered(), small, path).batches(64)) == list(range(ROWS))
    assert path.read_bytes() == data


def test_a_cache_with_a_changed_bit_is_written_again(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.cache"
    stored(numbered(), small, path)
    data = path.read_bytes()
    path.write_bytes(data[:500] + bytes([data[500] ^ 16]) + data[501:])
    assert epoch(stored(numbered(), small, path).batches(64)) == list(range(ROWS))
    assert path.read_bytes() == data


def test_a_file_cut_while_it_is_read(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    found = stored(numbered(), small, tmp_path / "a.cache")
    os.truncate(tmp_path / "a.cache", 1000)
    with pytest.raises(ValueError, match=r"a\.cache' has been cut while it is read; delete it"):
        found.to_batch()


def test_what_is_no_cache_is_left_alone(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").write_text("no cache")
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(ValueError, match="is there and is no cache of encoded rows; choose another path"):
            cache(numbered(), small, path)
    with pytest.raises(TypeError, match="`source` must be DataFrame or FileSource"):
        cache([1], small)  # type: ignore[arg-type]
    assert (tmp_path / "notes.txt").read_text() == "no cache"


def test_an_error_while_encoding_leaves_nothing(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    stored(numbered(), small, tmp_path / "a.cache")
    before = made(tmp_path / "a.cache")
    with pytest.raises(ValueError, match="infinite"):
        cache(numbered().assign(row=np.inf), small, tmp_path / "a.cache")
    assert [path.name for path in tmp_path.iterdir()] == ["a.cache"]
    assert made(tmp_path / "a.cache") == before


def test_arguments_are_checked(small: Preprocessor, tmp_path: pathlib.Path) -> None:
    found = stored(numbered(), small, tmp_path / "a.cache")
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        found.batches(0)
    with pytest.raises(ValueError, match="`shuffle_rows` must be a positive integer"):
        found.batches(8, shuffle_rows=0)
    with pytest.raises(ValueError, match="`shuffle_seed` must be None or an integer of at least 0"):
        found.batches(8, shuffle_seed=-1)
