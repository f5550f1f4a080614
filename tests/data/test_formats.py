from __future__ import annotations

import dataclasses
import gzip
import pathlib

import pyarrow as pa
import pytest

from tfmtl.data import formats
from tfmtl.data.formats import _explained, csv_parts, spread


@dataclasses.dataclass(frozen=True)
class Part:
    """Stands for a part of so many rows."""

    name: str
    rows: int

    def count_rows(self) -> int:
        return self.rows


@pytest.mark.parametrize(
    ("rows", "count", "groups"),
    [
        ([7, 3, 5, 2, 4], 2, [[7, 3], [5, 2, 4]]),  # 7 | 5, then 4 to the second, 3 to the first, 2 to the second
        ([7, 3, 5, 2, 4], 3, [[7], [5, 2], [3, 4]]),
        ([4, 4], 2, [[4], [4]]),
        ([1, 9], 1, [[1, 9]]),
    ],
)
def test_the_largest_part_goes_to_the_group_with_the_fewest_rows(
    rows: list[int], count: int, groups: list[list[int]]
) -> None:
    parts = [Part(str(number), n) for number, n in enumerate(rows)]
    assert [[part.rows for part in group] for group in spread(parts, count)] == groups  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_csv_file_has_the_missing_values_of_pandas_and_text_over_several_lines(
    suffix: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    text = 'name,n\n"two\nlines",1\n,NA\nnull,2\nNA,\n'
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    (part,) = csv_parts(path)
    assert part.count_rows() == 4
    (batch,) = part.batches(pa.schema([("n", pa.float32()), ("name", pa.string())]))
    assert batch.to_pydict() == {"n": [1, None, 2, None], "name": ["two\nlines", None, None, None]}


def test_a_text_of_several_lines_may_cross_a_block(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 bytes hold at most two of these rows, of 15 bytes each."""
    monkeypatch.setattr(formats, "_BLOCK_BYTES", 32)
    path = tmp_path / "a.csv"
    path.write_text("name,n\n" + "".join(f'"two\nlines {i}",{i}\n' for i in range(9)))
    (part,) = csv_parts(path)
    batches = list(part.batches(pa.schema([("n", pa.int64())])))
    assert len(batches) > 1
    assert [n for batch in batches for n in batch.to_pydict()["n"]] == list(range(9))


@pytest.mark.parametrize(
    ("message", "names", "sentence"),
    [
        (
            "In CSV column #1: CSV conversion error to float: invalid value 'x'",
            ("a", "b"),
            "File 'f.csv': column 'b' cannot be read as float: invalid value 'x'.",
        ),
        (
            "In CSV column #2: CSV conversion error to float: invalid value 'x'",
            ("a", "b"),
            "File 'f.csv': In CSV column #2: CSV conversion error to float: invalid value 'x'.",
        ),
        ("Something\n  else.", (), "File 'f.csv': Something else."),
    ],
)
def test_errors_name_the_file_and_the_column(message: str, names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^File") as found, _explained(pathlib.Path("f.csv"), names):
        raise pa.ArrowInvalid(message)
    assert str(found.value) == sentence
