"""Files that appear whole or not at all: killed writers, young and old remains, several writers at once."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

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


def test_of_a_writer_that_was_killed_nothing_is_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.cache"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"half\n"
        (left,) = tmp_path.iterdir()
        monkeypatch.setattr(word_file, "_YOUNG", -1)
        word_file._remove_abandoned(path)
        assert left.exists()  # its writer lives
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert word_file.read_words(path, "key", 4) is None
    word_file.write_words(path, "key", 4, [np.zeros([2, 4], np.int32)])
    assert list(tmp_path.iterdir()) == [path]  # the file of the dead writer is gone


def test_a_young_unfinished_file_is_left_alone(tmp_path: pathlib.Path) -> None:
    other = tmp_path / ".a.cache.0.unfinished"
    other.write_bytes(b"")
    word_file._remove_abandoned(tmp_path / "a.cache")
    assert other.exists()
    old = time.time() - 100
    os.utime(other, (old, old))
    word_file._remove_abandoned(tmp_path / "a.cache")
    assert not other.exists()


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
