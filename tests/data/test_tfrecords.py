from __future__ import annotations

import dataclasses
import math
import pathlib
import tempfile
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies

from tests.data.every_kind import SCHEMA, table
from tfmtl._keras import tf
from tfmtl.data import formats, tfrecords
from tfmtl.data.columns import to_columns, to_labels
from tfmtl.data.examples import to_examples
from tfmtl.data.features import Categorical, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.files import open_files
from tfmtl.data.frames import to_batch
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Label, Schema
from tfmtl.data.statistics import fit_statistics
from tfmtl.data.streams import from_files
from tfmtl.data.tfrecord_writer import write_tfrecords

LISTS = Schema(
    query=[
        Categorical("user"),
        Categorical("item", dtype="int64"),
        IdSequence("recent", of="item", max_length=2, dtype="int64"),
        MultiValued("tags", max_length=3),
        Numeric("age"),
        Text("title"),
        Vector("image", size=2),
    ],
    labels=[
        Label("click"),
        Label("shelf", classes=(-1, 0, 7)),
        Label("mood", sample_weight="trust", classes=("", "b")),
    ],
)


def batches_equal(found: Any, expected: Any) -> None:
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def write(path: pathlib.Path, rows: list[dict[str, Any]]) -> pathlib.Path:
    """Write records by hand: each row's lists of bytes, integers or floats."""
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for row in rows:
            writer.write(example(row))
    return path


def example(row: dict[str, Any]) -> bytes:
    kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    lists = {bytes: tf.train.BytesList, int: tf.train.Int64List, float: tf.train.FloatList}
    features = {
        name: tf.train.Feature(**{kinds[type(values[0])]: lists[type(values[0])](value=values)})
        for name, values in row.items()
    }
    proto: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return proto


def column(path: pathlib.Path, name: str, schema: Schema | None = None) -> list[Any]:
    return pd.concat(open_files(path, schema).chunks([name]), ignore_index=True)[name].tolist()


@pytest.mark.parametrize("suffix", [".tfrecord", ".tfrecord.gz"])
def test_every_kind_comes_back(tmp_path: pathlib.Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecords, "READ_ROWS", 3)
    frame = table()
    for number, rows in enumerate(np.array_split(np.arange(len(frame)), 2)):
        write_tfrecords(frame.iloc[rows], SCHEMA, tmp_path / f"part-{number}{suffix}")
    source = open_files(tmp_path, SCHEMA)
    assert source.count_rows() == len(frame)
    statistics = fit_statistics(SCHEMA, frame)
    of_files = fit_statistics(SCHEMA, source)
    assert {n: v.tolist() for n, v in of_files.vocabularies.items()} == {
        n: v.tolist() for n, v in statistics.vocabularies.items()
    }
    preprocessor = Preprocessor(SCHEMA, statistics)
    (batch,) = from_files(source, preprocessor, 100)
    batches_equal(batch, to_batch(frame, preprocessor))


TEXT = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=5)
INTEGERS = strategies.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1, 0, -1, 5])
NUMBERS = (
    strategies.none() | strategies.sampled_from([math.nan, 0.0, -0.0, 1e-45, 3e38]) | strategies.floats(-9, 9, width=32)
)
ROWS = strategies.fixed_dictionaries(
    {
        "user": strategies.none() | TEXT,
        "item": strategies.none() | INTEGERS,
        "recent": strategies.none() | strategies.lists(INTEGERS, max_size=4),
        "tags": strategies.none() | strategies.lists(TEXT, max_size=4),
        "age": NUMBERS,
        "title": strategies.none() | TEXT,
        "image": strategies.none() | strategies.lists(strategies.sampled_from([math.nan, 1.5]), min_size=2, max_size=2),
        "click": NUMBERS,
        "shelf": strategies.sampled_from([None, -1, 0, 7]),
        "mood": strategies.sampled_from([None, "b"]),
        "trust": strategies.floats(0, 9),
    }
)


KNOWN = {
    "user": "u", "item": 1, "recent": [1], "tags": ["t"], "age": 1.0, "title": "t", "image": [1.0, 2.0],
    "click": 1.0, "shelf": 0, "mood": "b", "trust": 1.0,
}  # fmt: skip


@hypothesis.settings(deadline=None, max_examples=30, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
@hypothesis.given(strategies.lists(ROWS, min_size=1, max_size=6))
def test_hostile_rows_come_back(rows: list[dict[str, Any]]) -> None:
    """Whatever a table holds, the model's raw inputs and labels are the same from its file."""
    frame = pd.DataFrame([*rows, KNOWN], dtype=object)
    frame = frame.astype({"item": "Int64", "shelf": "Int64", "age": float, "click": float, "trust": float})
    with tempfile.TemporaryDirectory() as folder:
        write_tfrecords(frame, LISTS, pathlib.Path(folder) / "a.tfrecord")
        found = next(open_files(folder, LISTS).chunks())
    features = LISTS.features.values()
    tf.nest.map_structure(np.testing.assert_array_equal, to_columns(found, features), to_columns(frame, features))
    tf.nest.map_structure(np.testing.assert_array_equal, to_labels(found, LISTS), to_labels(frame, LISTS))


def test_lists_are_written_whole(tmp_path: pathlib.Path) -> None:
    schema = Schema([Categorical("a"), IdSequence("recent", of="a", max_length=1)])
    frame = pd.DataFrame({"a": ["x", "y"], "recent": [["1", "2", "3"], []]})
    write_tfrecords(frame, schema, tmp_path / "a.tfrecord")
    longer = dataclasses.replace(schema.features["recent"], max_length=5)  # type: ignore[call-arg]
    first, second = column(tmp_path, "recent", Schema([Categorical("a"), longer]))
    assert list(first) == ["1", "2", "3"]
    assert second is pd.NA  # a record cannot tell an empty list from none


def test_without_a_schema_records_say_what_they_hold(tmp_path: pathlib.Path) -> None:
    rows = [{"a": [b"x"], "n": [1, 2]}, {"n": [2**63 - 1]}, {"a": ["Ü".encode()], "f": [0.5], "n": [3]}]
    source = open_files(write(tmp_path / "a.tfrecord", rows))
    assert source.columns == ("a", "f", "n")
    frame = next(source.chunks())
    assert frame["a"].fillna("?").tolist() == ["x", "?", "Ü"]
    assert [list(n) for n in frame["n"]] == [[1, 2], [2**63 - 1], [3]]
    assert frame["f"].fillna(-1).tolist() == [-1, -1, 0.5]


def test_a_schema_decides_between_kinds_of_numbers(tmp_path: pathlib.Path) -> None:
    schema = Schema([Categorical("a"), Categorical("b", dtype="int64"), Numeric("c")], labels=[Label("y")])
    write(tmp_path / "a.tfrecord", [{"a": [7], "b": [8.0], "c": [3], "y": [1]}, {"c": [4], "y": [0]}])
    write(tmp_path / "b.tfrecord", [{"a": [b"x"], "b": [9], "c": [0.5], "y": [1.0]}])
    frame = pd.concat(open_files(tmp_path, schema).chunks(), ignore_index=True)
    assert frame["a"].fillna("?").tolist() == ["7", "?", "x"]
    assert frame["b"].fillna(-1).tolist() == [8, -1, 9]
    assert frame["c"].tolist() == [3, 4, 0.5]
    assert frame["y"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("value", [[1], [1.0]])
def test_a_column_that_only_a_late_record_has(
    tmp_path: pathlib.Path, value: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecords, "_SAMPLE", 2)
    monkeypatch.setattr(tfrecords, "READ_ROWS", 2)
    schema = Schema([Categorical("a")], labels=[Label("rare")])
    write(tmp_path / "a.tfrecord", [{"a": [b"x"]}] * 5)
    write(tmp_path / "b.tfrecord", [*[{"a": [b"x"]}] * 4, {"rare": value}])
    assert np.isnan(column(tmp_path, "rare", schema)[:9]).all()
    assert column(tmp_path, "rare", schema)[9] == 1.0


def test_a_column_that_no_record_has(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a.tfrecord", [{"user_id": [b"x"]}] * 3)
    with pytest.raises(ValueError, match=r"Unknown column \['user'\] in the files .* Did you mean 'user_id'\?"):
        open_files(tmp_path, Schema([Categorical("user")]))


@pytest.mark.parametrize(
    ("feature", "value", "message"),
    [
        (Categorical("a", dtype="int64"), [b"7"], "column 'a' holds string values and cannot be read as int64"),
        (
            Categorical("a", dtype="int64"),
            [0.5],
            "column 'a' cannot be read as int64: Float value 0.500000 was",
        ),
        (Categorical("a"), [0.5], "column 'a' holds float values and cannot be read as string"),
        (Categorical("a"), [b"\xff"], "column 'a' cannot be read as string: Invalid UTF8"),
        (Categorical("a"), [b"x", b"y"], "column 'a' holds 2 values in record 1, where one was expected"),
        (Numeric("a"), [b"1"], "column 'a' holds string values and cannot be read as double"),
    ],
)
def test_wrong_values_name_file_and_column(tmp_path: pathlib.Path, feature: Any, value: Any, message: str) -> None:
    path = write(tmp_path / "a.tfrecord", [{"u": [b"x"]}, {"u": [b"x"], "a": value}])
    source = open_files(path, Schema([Categorical("u"), feature]))
    with pytest.raises(ValueError, match=rf"^File '.*a\.tfrecord': {message}.*\.$"):
        list(source.chunks())


def test_kinds_that_differ_within_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tfrecord", [{"a": [1]}, {"a": [1.5]}])
    with pytest.raises(ValueError, match=r"column 'a' holds int64 and, in record 1, float; give all records of a file"):
        open_files(path)
    monkeypatch.setattr(tfrecords, "_SAMPLE", 1)
    with pytest.raises(ValueError, match=r"a\.tfrecord': column 'a' holds int64 and float values; give all records"):
        column(path, "a")
    late = write(tmp_path / "b.tfrecord", [{"b": [1]}, {"a": [1.5]}, {"a": [2]}])
    with pytest.raises(ValueError, match=r"b\.tfrecord': column 'a' holds int64 and float values; give all records"):
        list(open_files(late, Schema([Categorical("b"), Numeric("a")])).chunks())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", r"holds no rows; delete it or leave it out\.$"),
        (lambda data: b"no record file at all", r"is damaged: corrupted record at 0 .*\.$"),
        (lambda data: data[:-7], r"is damaged: truncated record at \d+' failed.*\.$"),
        (lambda data: data[:-30] + b"?" + data[-29:], r"is damaged: corrupted record at \d+\.$"),
    ],
    ids=["empty", "foreign", "truncated", "flipped"],
)
def test_damaged_files_are_named(tmp_path: pathlib.Path, damage: Any, message: str) -> None:
    path = write(tmp_path / "a.tfrecord", [{"a": [i]} for i in range(20)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"^File '.*a\.tfrecord' {message}"):
        column(path, "a")


def test_a_truncated_compressed_file_is_named(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.tfrecord.gz", [{"a": [i * 2**40 + i**3]} for i in range(2000)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"a\.tfrecord\.gz' is damaged: "):
        open_files(path).count_rows()


def test_records_that_are_no_examples(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in (example({"a": [1]}), b"garbage!!"):
            writer.write(record)
    with pytest.raises(ValueError, match=r"a\.tfrecord': record 1 is no tf\.Example\.$"):
        open_files(path)
    monkeypatch.setattr(tfrecords, "_SAMPLE", 1)
    with pytest.raises(ValueError, match=r"a\.tfrecord' holds a record that is no tf\.Example\.$"):
        column(path, "a")


def test_a_file_appears_when_it_is_whole(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = Schema([Categorical("a")])
    monkeypatch.setattr("tfmtl.data.tfrecord_writer._WRITE_ROWS", 1)
    with pytest.raises(ValueError, match="must hold strings"):
        write_tfrecords(pd.DataFrame({"a": ["x", 0.5]}, dtype=object), schema, tmp_path / "a.tfrecord")
    assert list(tmp_path.iterdir()) == []


def test_what_the_writer_refuses(tmp_path: pathlib.Path) -> None:
    frame = pd.DataFrame({"a": ["x"], "y": [2**24 + 1]})
    with pytest.raises(ValueError, match=r"`path` must end in one of \['\.tfrecord', '\.tfrecord\.gz'\]"):
        write_tfrecords(frame, Schema([Categorical("a")]), tmp_path / "a.record")
    schema = Schema([Categorical("a")], labels=[Label("y", classes=(0, 2**24 + 1))])
    with pytest.raises(ValueError, match=r"The classes \[16777217\] of task 'y' have no float32"):
        write_tfrecords(frame, schema, tmp_path / "a.tfrecord")


def test_formats_know_the_suffixes() -> None:
    assert formats.FORMATS[".tfrecord"] is formats.FORMATS[".tfrecord.gz"] is tfrecords.tfrecord_parts


def test_requests_and_files_share_one_encoding(tmp_path: pathlib.Path) -> None:
    write_tfrecords(pd.DataFrame({"a": ["x", None]}), Schema([Categorical("a")]), tmp_path / "a.tfrecord")
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord"))]
    assert records == to_examples({"a": ["x", ""]}).numpy().tolist()
