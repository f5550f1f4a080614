"""Files and folders that appear whole: owners that live, have died, or are on another machine."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tfmtl import _staging
from tfmtl._staging import is_running, locked, move, remove_abandoned, replace_file, staged

OWNER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("staging", sys.argv[1])
staging = importlib.util.module_from_spec(spec)
spec.loader.exec_module(staging)
with staging.staged(pathlib.Path(sys.argv[2])) as folder:
    (folder / "half").write_text("half")
    print(folder.name, flush=True)
    sys.stdin.readline()
"""
DAYS = 2 * 24 * 60 * 60


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def owner(folder: pathlib.Path) -> subprocess.Popen[str]:
    """Return a process that holds a staging folder and prints its name."""
    command = [sys.executable, "-c", OWNER, _staging.__file__, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def make_old(path: pathlib.Path) -> None:
    os.utime(path, (time.time() - DAYS,) * 2)


def test_a_folder_is_cleaned_when_its_owner_has_ended_and_not_before(tmp_path: pathlib.Path) -> None:
    with owner(tmp_path) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        make_old(tmp_path / name)
        remove_abandoned(tmp_path)
        assert names(tmp_path) == [name]
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not read its status
        with staged(tmp_path) as folder:
            assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []


def test_without_locks_the_living_owner_keeps_its_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_staging.fcntl, "flock", lambda *_: None)
    with staged(tmp_path) as folder:
        make_old(folder)
        remove_abandoned(tmp_path)
        assert folder.exists()


def test_a_later_process_with_the_same_id_is_no_owner() -> None:
    (start,) = (_staging._stat(os.getpid())[1],)
    assert start > 0
    assert is_running(os.getpid(), start)
    assert not is_running(os.getpid(), start - 1)
    assert not is_running(2**70, start)


def test_folders_of_other_machines_and_versions_are_cleaned_after_a_day(tmp_path: pathlib.Path) -> None:
    foreign, former = ".tmp-0123456789ab-1-1-0123456789ab", f".tmp-{'0' * 32}"
    kept = [".tmp-notes", ".tmp", "tmp-0", f".tmp-{'0' * 31}"]
    for name in (foreign, former, *kept):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted([foreign, former, *kept])
    for name in names(tmp_path):
        make_old(tmp_path / name)
    with locked(tmp_path / foreign):
        remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted([foreign, *kept])
    remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted(kept)  # files of the user stay at any age


def test_a_link_with_the_name_of_a_staged_folder_is_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f".tmp-{_staging._machine()}-{2**22 + 1}-1-0123456789ab").symlink_to(tmp_path / "precious")
    remove_abandoned(tmp_path / "models")
    assert names(tmp_path / "precious") == ["file"]


def test_an_absent_parent_is_made_and_removed_after_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), staged(tmp_path / "a" / "b"):
        raise RuntimeError("broken")
    assert names(tmp_path) == []
    with staged(tmp_path / "a" / "b") as folder:
        move(folder, tmp_path / "a" / "b" / "model")
    assert names(tmp_path / "a" / "b") == ["model"]


def test_a_parent_that_another_process_removes_is_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, calls = pathlib.Path.mkdir, [0]

    def race(self: pathlib.Path, *arguments: object, **options: object) -> None:
        calls[0] += 1
        if calls[0] == 2:  # of the staged folder: its parent has just been made
            self.parent.rmdir()
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pathlib.Path, "mkdir", race)
    with staged(tmp_path / "model") as folder:
        assert folder.is_dir()
    assert calls[0] == 4


def test_nothing_is_moved_over_an_empty_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="model exists already"), staged(tmp_path) as folder:
        move(folder, tmp_path / "model")
    assert names(tmp_path) == ["model"]


def test_the_new_name_is_flushed_after_the_contents(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []
    monkeypatch.setattr(_staging, "flush", lambda path: flushed.append((path.name, (tmp_path / "model").exists())))
    with staged(tmp_path) as folder:
        (folder / "file").write_text("contents")
        move(folder, tmp_path / "model")
    assert flushed == [("file", False), (folder.name, False), (tmp_path.name, True)]


def test_the_mode_is_that_of_the_umask(tmp_path: pathlib.Path) -> None:
    before = os.umask(0o027)
    try:
        with staged(tmp_path) as folder:
            move(folder, tmp_path / "model")
        replace_file(tmp_path / "file", lambda file: file.write(b"contents"))
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    replace_file(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(OSError, match=r"No space is left in .*, nothing was written; free some and try again"):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    replace_file(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
