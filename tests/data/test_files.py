from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.data.tables import SCHEMA, STRINGS, WRITERS, check_equal, read, shards, table, write_csv, write_parquet
from tfmtl.data import formats
from tfmtl.data.features import Categorical, IdSequence, MultiValued, Vector
from tfmtl.data.files import open_files
from tfmtl.data.schema import Label, Schema


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_hold_the_same_values_as_the_table(tmp_path: pathlib.Path, suffix: str) -> None:
    frame = table()
    source = open_files(shards(tmp_path, frame, suffix), SCHEMA)
    check_equal(read(source), frame)
    assert source.count_rows() == len(frame)
    assert source.columns == tuple(frame.columns)
    assert [path.name for path in source.paths] == [f"part-{i}{suffix}" for i in range(3)]


@pytest.mark.parametrize("suffix", WRITERS)
def test_parquet_and_csv_are_read_as_pandas_reads_them(tmp_path: pathlib.Path, suffix: str) -> None:
    shards(tmp_path, table(), suffix, count=1)
    path = tmp_path / f"part-0{suffix}"
    expected = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path, dtype=STRINGS)
    found = read(open_files(path, SCHEMA))
    check_equal(found, expected)
    assert found.dtypes.to_dict() == expected.dtypes.to_dict()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("rows", [1, 7, 20, 49, 50, 51])
def test_chunks_have_the_number_of_rows_asked_for(tmp_path: pathlib.Path, suffix: str, rows: int) -> None:
    source = open_files(shards(tmp_path, table(50), suffix), SCHEMA)
    sizes = [len(chunk) for chunk in source.chunks(["row"], rows)]
    assert sizes == [rows] * (50 // rows) + [50 % rows] * (50 % rows > 0)


def test_only_the_columns_asked_for_are_read_in_the_order_asked_for(tmp_path: pathlib.Path) -> None:
    for suffix in (".csv", ".parquet"):
        source = open_files(shards(tmp_path / suffix, table(), suffix), SCHEMA)
        assert list(read(source, ["stars", "user_id", "stars"]).columns) == ["stars", "user_id"]


def test_integers_with_missing_values_stay_integers(tmp_path: pathlib.Path) -> None:
    large = 2**53 + 1  # the first integer that a float cannot hold
    values = pd.DataFrame(
        {"item": pd.array([large, None], dtype="Int64"), "yes": pd.array([True, None], dtype="boolean")}
    )
    write_parquet(values, tmp_path / "a.parquet")
    chunk = read(open_files(tmp_path))
    assert chunk["item"].tolist() == [large, pd.NA]
    assert chunk["yes"].tolist() == [True, pd.NA]


def test_lists_and_categories_come_out_of_parquet(tmp_path: pathlib.Path) -> None:
    frame = pd.DataFrame(
        {"vector": [[0.5, 1.0], [2.0, 3.0]], "brand": pd.Categorical(["x", None], categories=["y", "x"])}
    )
    write_parquet(frame, tmp_path / "a.parquet")
    write_parquet(frame.assign(brand=["z", "z"]), tmp_path / "b.parquet")  # plain strings in the next shard
    chunk = read(open_files(tmp_path))
    assert [list(v) for v in chunk["vector"]] == [[0.5, 1.0], [2.0, 3.0]] * 2
    assert chunk["brand"].fillna("?").tolist() == ["x", "?", "z", "z"]


def test_narrow_and_wide_numbers_of_two_shards_meet_in_the_wide_type(tmp_path: pathlib.Path) -> None:
    for name, values in [("a", np.int32([1])), ("b", np.int64([2**40])), ("c", np.array([np.nan]))]:
        write_parquet(pd.DataFrame({"x": values}), tmp_path / f"{name}.parquet")
    assert read(open_files(tmp_path))["x"].fillna(-1).tolist() == [1.0, 2.0**40, -1.0]


def test_a_shard_without_a_single_value_has_the_type_of_the_others(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("x,note\n,\n")
    (tmp_path / "b.csv").write_text("x,note\n7,\n")
    chunk = read(open_files(tmp_path))
    assert chunk["x"].fillna(-1).tolist() == [-1, 7]
    assert chunk["note"].isna().all()


def test_csv_is_read_across_blocks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break in quotes may meet the end of a block; a column may be empty until a later block."""
    monkeypatch.setattr(formats, "_BLOCK_BYTES", 100)
    frame = pd.DataFrame({"text": ['a\nb "c"\n\nd' * (1 + i % 3) for i in range(30)], "note": [None] * 29 + ["late"]})
    write_csv(frame, tmp_path / "a.csv")
    check_equal(read(open_files(tmp_path)), frame)


def test_the_spellings_of_missing_are_those_of_pandas(tmp_path: pathlib.Path) -> None:
    spellings = ["", "NA", "None", "<NA>", "null", "nan", "NULL", "n/a", "none", "-", "na", "x"]
    (tmp_path / "a.csv").write_text("\n".join(["row,x", *(f"{i},{text}" for i, text in enumerate(spellings))]) + "\n")
    check_equal(read(open_files(tmp_path)), pd.read_csv(tmp_path / "a.csv"))


def test_declared_types_give_way_to_what_pandas_writes(tmp_path: pathlib.Path) -> None:
    """An integer column with a missing value is written as "3.0", a truth value as "True"."""
    pd.DataFrame({"user_id": [3.0, None], "click": [True, False]}).to_csv(tmp_path / "a.csv", index=False)
    schema = Schema(query=[Categorical("user_id", dtype="int64")], labels=[Label("click")])
    chunk = read(open_files(tmp_path, schema))
    assert chunk["user_id"].fillna(-1).tolist() == [3, -1]
    assert chunk["click"].tolist() == [True, False]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_shuffled_chunks_hold_each_row_once_and_repeat_with_the_generator(tmp_path: pathlib.Path, suffix: str) -> None:
    frame = table(200)
    source = open_files(shards(tmp_path, frame, suffix, count=6), SCHEMA)

    def order(seed: int) -> list[int]:
        chunks = list(source.shuffled_chunks(None, 64, np.random.default_rng(seed)))
        assert [len(chunk) for chunk in chunks] == [64, 64, 64, 8]
        shuffled = pd.concat(chunks)
        restored = shuffled.sort_values("row", ignore_index=True)
        check_equal(restored, frame)  # rows stay whole
        return shuffled["row"].tolist()

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(4)}) == 4


def test_shuffled_chunks_mix_rows_of_different_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "READ_ROWS", 8)
    frame = pd.DataFrame({"row": np.arange(640), "file": np.arange(640) // 80})
    for number, part in frame.groupby("file"):
        write_csv(part, tmp_path / f"{number}.csv")
    source = open_files(tmp_path)
    epochs = [list(source.shuffled_chunks(None, 64, np.random.default_rng(seed))) for seed in range(4)]
    assert min(chunk["file"].nunique() for chunk in epochs[0][:-2]) >= 2
    assert (
        max(chunks[0]["file"].max() for chunks in epochs) > 3
    )  # in order, a first chunk has rows of files 0 to 3 only


def test_rows_of_one_file_are_permuted_inside_the_window(tmp_path: pathlib.Path) -> None:
    write_csv(pd.DataFrame({"row": np.arange(200)}), tmp_path / "a.csv")
    chunks = [c["row"] for c in open_files(tmp_path).shuffled_chunks(None, 100, np.random.default_rng(0))]
    assert [sorted(chunk) for chunk in chunks] == [list(range(100)), list(range(100, 200))]
    # the correlation of a random permutation of 100 with its positions has deviation 0.1
    assert max(abs(np.corrcoef(chunk, np.arange(100))[0, 1]) for chunk in chunks) < 0.5


def test_memory_does_not_grow_with_the_row_group(tmp_path: pathlib.Path) -> None:
    rows = 1_500_000
    values = np.random.default_rng(0).normal(size=rows)
    pyarrow.parquet.write_table(pa.table({"a": values, "b": values}), tmp_path / "a.parquet", row_group_size=rows)
    source = open_files(tmp_path)
    for chunks in (source.chunks(rows=8_192), source.shuffled_chunks(None, 8_192, np.random.default_rng(0))):
        before = pa.total_allocated_bytes()
        peak = max(pa.total_allocated_bytes() - before for _ in chunks)
        assert peak < values.nbytes  # half of the table; pyarrow's defaults reach 28 MB of 24


def test_paths_may_be_a_file_a_folder_a_pattern_or_several(tmp_path: pathlib.Path) -> None:
    shards(tmp_path / "data", table(30))
    shards(tmp_path / "data" / "more", table(20))
    (tmp_path / "data" / "_SUCCESS").write_text("")
    shards(tmp_path / "data" / "_temporary", table(10))
    (tmp_path / "data" / "README.md").write_text("no table")
    folder = tmp_path / "data"
    assert open_files(folder).count_rows() == 50
    assert open_files(str(folder / "*.parquet")).count_rows() == 30
    assert open_files(str(folder / "**" / "part-0.parquet")).count_rows() == 10 + 7 + 4
    two = open_files([folder / "part-1.parquet", str(folder / "part-0.parquet")])
    assert [path.name for path in two.paths] == ["part-1.parquet", "part-0.parquet"]


@pytest.mark.parametrize("name", ["a[1]", "*", "b?"])
def test_an_existing_folder_is_no_pattern(tmp_path: pathlib.Path, name: str) -> None:
    shards(tmp_path / name, table(30))
    shards(tmp_path / "ab", table(20))
    for path in (tmp_path / name, tmp_path / name / "*.parquet", tmp_path / name / "part-?.*"):
        assert open_files(path).count_rows() == 30


@pytest.mark.parametrize("path", ["absent", "absent.csv", "*.csv", ""])
def test_a_path_that_matches_nothing(tmp_path: pathlib.Path, path: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file matches `paths`; files end in .*Received: '.*'\.$"):
        open_files(tmp_path / path)


def test_an_unknown_suffix(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match=r"The suffix of file '.*a\.json' must be one of \['\.parquet', '\.csv'"):
        open_files(tmp_path / "a.json")


def test_formats_that_differ_and_files_given_twice(tmp_path: pathlib.Path) -> None:
    write_csv(table(3), tmp_path / "a.csv")
    write_parquet(table(3), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"All files must have one format.*\['\.csv', '\.parquet'\]"):
        open_files(tmp_path)
    with pytest.raises(ValueError, match=r"names the files \['.*a\.csv'\] more than once"):
        open_files([tmp_path / "a.csv", str(tmp_path / ".." / tmp_path.name / "*.csv")])
    with pytest.raises(ValueError, match="`paths` must name at least one file"):
        open_files([])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"File '.*a\.csv': Empty CSV file\.$"),
        ("a.csv", b"x,y\n", r"File '.*a\.csv' holds no rows; delete it or leave it out\.$"),
        ("a.csv", b"x,x\n1,2\n", r"File '.*a\.csv' has more than one column of the names \['x'\]"),
        ("a.csv", b"x,y\n1\n", r"File '.*a\.csv': CSV parse error: Expected 2 columns, got 1"),
        ("a.parquet", b"", r"File '.*a\.parquet': Parquet file size is 0 bytes"),
        ("a.parquet", b"no parquet at all", r"File '.*a\.parquet': Parquet magic bytes not found"),
    ],
)
def test_empty_and_broken_files_are_named(tmp_path: pathlib.Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_files(tmp_path)


def test_a_parquet_file_without_rows_is_named(tmp_path: pathlib.Path) -> None:
    write_parquet(table(3)[:0], tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet' holds no rows"):
        open_files(tmp_path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_to_predict_need_no_labels_and_no_weights(tmp_path: pathlib.Path, suffix: str) -> None:
    frame = table().drop(columns=["click", "stars", "trust", "shelf"])
    source = open_files(shards(tmp_path, frame, suffix), SCHEMA)
    check_equal(read(source, list(SCHEMA.features)), frame[list(SCHEMA.features)])
    with pytest.raises(ValueError, match=r"Unknown column \['click'\] in the files"):
        read(source, ["user_id", "click"])
    shards(tmp_path / "short", frame.drop(columns="age"), suffix)
    with pytest.raises(ValueError, match=r"Unknown column \['age'\] in the files"):
        open_files(tmp_path / "short", SCHEMA)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_one_shard_lacks(tmp_path: pathlib.Path, suffix: str) -> None:
    WRITERS[suffix](table(5), tmp_path / f"a{suffix}")
    WRITERS[suffix](table(5).drop(columns="age"), tmp_path / f"b{suffix}")
    with pytest.raises(ValueError, match=rf"File '.*b{suffix}' lacks the column 'age', which other files have\.$"):
        open_files(tmp_path, SCHEMA)
    source = open_files(tmp_path)
    with pytest.raises(ValueError, match=rf"b{suffix}' lacks the column 'age'"):
        source.chunks()
    assert len(read(source, ["row"])) == 10  # a column that is not read may be absent


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_no_file_has(tmp_path: pathlib.Path, suffix: str) -> None:
    WRITERS[suffix](table(5).rename(columns={"age": "ages"}), tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=r"Unknown column \['age'\] in the files .* Did you mean 'ages'\?"):
        open_files(tmp_path, SCHEMA)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_types_that_differ_between_shards(tmp_path: pathlib.Path, suffix: str) -> None:
    WRITERS[suffix](pd.DataFrame({"x": [1, 2]}), tmp_path / f"a{suffix}")
    WRITERS[suffix](pd.DataFrame({"x": ["one", "two"]}), tmp_path / f"b{suffix}")
    message = (
        rf"File '.*b{suffix}' holds (large_)?string in column 'x', where files before it hold int64; convert one\.$"
    )
    with pytest.raises(ValueError, match=message):
        open_files(tmp_path).chunks()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("item_id", "x", "column 'item_id' cannot be read as int64: invalid value 'x'"),
        ("age", "old", "column 'age' cannot be read as double: invalid value 'old'"),
    ],
)
def test_a_value_of_another_type_names_file_and_column(
    tmp_path: pathlib.Path, column: str, value: str, message: str
) -> None:
    frame = table(20_000).astype({column: object})
    frame.loc[len(frame) - 1, column] = value
    write_csv(frame, tmp_path / "a.csv")
    with pytest.raises(ValueError, match=rf"^File '.*a\.csv': {message}\.$"):
        read(open_files(tmp_path, SCHEMA), ["row", column])


def test_text_that_is_not_utf8_names_file_and_column(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"row,user_id\n1,M\xfcller\n")
    with pytest.raises(ValueError, match=r"a\.csv': column 'user_id' cannot be read as string: invalid UTF8 data"):
        read(open_files(tmp_path, Schema(query=[Categorical("user_id")])))


def test_an_integer_that_the_common_type_cannot_hold(tmp_path: pathlib.Path) -> None:
    write_parquet(pd.DataFrame({"x": [0.5]}), tmp_path / "a.parquet")
    write_parquet(pd.DataFrame({"x": [2**53 + 1]}), tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match=r"b\.parquet': column 'x' of type int64 cannot be read as double: Integer value"
    ):
        read(open_files(tmp_path))


@pytest.mark.parametrize(
    "feature",
    [Vector("v", size=2), MultiValued("v"), IdSequence("v", of="user_id")],
    ids=lambda feature: type(feature).__name__,
)
def test_csv_cannot_hold_lists(tmp_path: pathlib.Path, feature: Any) -> None:
    (tmp_path / "a.csv").write_text("user_id,v\nu,1\n")
    schema = Schema(query=[Categorical("user_id"), feature])
    with pytest.raises(ValueError, match=f"Column 'v' of kind {type(feature).__name__} holds lists, which CSV cannot"):
        open_files(tmp_path, schema)


@pytest.mark.parametrize("rows", [0, -1, 1.5])
def test_rows_must_be_positive(tmp_path: pathlib.Path, rows: Any) -> None:
    source = open_files(shards(tmp_path, table(5)))
    with pytest.raises(ValueError, match="`rows` must be a positive integer"):
        source.chunks(rows=rows)
