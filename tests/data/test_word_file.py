"""Files that appear whole or not at all: killed writers, several writers at once, damaged files."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from tfmtl._staging import remove_abandoned
from tfmtl.data import word_file

WRITER = """
import pathlib, sys, time
import numpy as np
from tfmtl.data.word_file import write_words

def windows():
    for _ in range(3):
        yield np.ones([1000, 4], np.int32)
    print("half", flush=True)
    time.sleep(60)

write_words(pathlib.Path(sys.argv[1]), "key", 4, windows())
"""


def test_of_a_writer_that_was_killed_nothing_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.cache"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"half\n"
        (left,) = tmp_path.iterdir()
        remove_abandoned(tmp_path)
        assert left.exists()  # its writer lives
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert word_file.read_words(path, "key", 4) is None
    word_file.write_words(path, "key", 4, [np.zeros([2, 4], np.int32)])
    assert list(tmp_path.iterdir()) == [path]  # the file of the dead writer is gone


def table(rows: int = 10_000, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**31), 2**31, [rows, width], np.int32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "a.cache"
    word_file.write_words(path, "key", 7, np.array_split(table(), 13))
    return path.read_bytes()


@pytest.mark.parametrize("width", [1, 7, 5000])
def test_any_rows_are_read(tmp_path: pathlib.Path, width: int) -> None:
    rows = table(2000 if width > 7 else 20_000, width)
    word_file.write_words(tmp_path / "a.cache", "key", width, [rows[:1], rows[1:900], rows[900:]])
    found = word_file.read_words(tmp_path / "a.cache", "key", width)
    assert found is not None
    rng = np.random.default_rng(1)
    for start, end in [(0, len(rows)), (0, 0), (5, 5), *np.sort(rng.integers(0, len(rows) + 1, [50, 2]), axis=1)]:
        np.testing.assert_array_equal(found.read(start, end), rows[start:end])


def test_a_changed_or_cut_file_is_no_cache_and_never_gives_other_rows(tmp_path: pathlib.Path, written: bytes) -> None:
    path, rng = tmp_path / "a.cache", np.random.default_rng(2)
    ends = [*range(60), *range(len(written) - 300, len(written))]
    for position in [*ends, *rng.integers(0, len(written), 300)]:
        data = bytearray(written)
        data[position] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        found = word_file.read_words(path, "key", 7)
        assert found is None or position < 21  # the first line, of which one bit may differ
        if found is not None:
            np.testing.assert_array_equal(found.read(0, 10_000), table())
        path.write_bytes(written[:position])
        assert word_file.read_words(path, "key", 7) is None
    path.write_bytes(written)
    assert word_file.read_words(path, "key", 7) is not None


@pytest.mark.parametrize("position", [0, 3000, 150_000, 279_999])
def test_rows_that_change_while_the_file_is_open_are_refused(
    tmp_path: pathlib.Path, written: bytes, position: int
) -> None:
    path = tmp_path / "a.cache"
    path.write_bytes(written)
    found = word_file.read_words(path, "key", 7)
    assert found is not None
    with path.open("r+b") as file:
        file.seek(21 + position)
        (byte,) = file.read(1)
        file.seek(21 + position)
        file.write(bytes([byte ^ 4]))
    row = position // 28
    start = row // 585 * 585  # rows in 16 kB
    with pytest.raises(ValueError, match=rf"a\.cache' is damaged from row {start} on; call `cache` again"):
        found.read(row, row + 1)
    with pytest.raises(ValueError, match=rf"a\.cache' is damaged from row {start} on; call `cache` again"):
        found.read(0, 10_000)
    for good in (slice(0, start), slice(start + 585, 10_000)):
        np.testing.assert_array_equal(found.read(good.start, max(good.start, good.stop)), table()[good])


def test_several_writers_at_once_leave_one_whole_file(tmp_path: pathlib.Path) -> None:
    path, together = tmp_path / "a.cache", threading.Barrier(8)

    def write(value: int) -> None:
        def windows() -> Any:
            for _ in range(4):
                together.wait()
                yield np.full([100, 3], value, np.int32)

        word_file.write_words(path, "key", 3, windows())

    threads = [threading.Thread(target=write, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = word_file.read_words(path, "key", 3)
    assert found is not None
    assert len(np.unique(found.read(0, 400))) == 1
    assert list(tmp_path.iterdir()) == [path]
