from __future__ import annotations

import errno
import gzip
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest
from servers.publisher import publish_in_parallel

from tfmtl._keras import tf
from tfmtl.serving.publishing import compressed_size, publish

ROOT = pathlib.Path(__file__).parents[2]


def write(folder: pathlib.Path) -> None:
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_text("model")


def names(directory: pathlib.Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_versions_count_up_and_are_complete(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "new" / "model"
    assert publish(directory, write) == directory / "1"
    assert publish(directory, write) == directory / "2"
    assert publish(directory, write, version=40) == directory / "40"
    assert publish(directory, write) == directory / "41"
    assert names(directory) == ["1", "2", "40", "41"]
    assert names(directory / "41") == ["saved_model.pb", "variables"]


def test_other_files_are_no_versions(tmp_path: pathlib.Path) -> None:
    for name in ("v9", "0.1", "answers.json"):
        (tmp_path / name).touch()
    assert publish(tmp_path, write).name == "1"


@pytest.mark.parametrize("taken", ["7", "007"])
def test_version_that_a_server_would_confuse_is_refused(tmp_path: pathlib.Path, taken: str) -> None:
    (tmp_path / taken).mkdir()
    with pytest.raises(
        FileExistsError, match=rf"Version 7 exists as .*{taken}; give another `version`, or none to publish 8"
    ):
        publish(tmp_path, write, version=7)
    assert names(tmp_path) == [taken]


@pytest.mark.parametrize("version", [0, -1, 1.0, "3", True, 2**63])
def test_version_is_a_positive_integer_of_64_bits(tmp_path: pathlib.Path, version: int) -> None:
    with pytest.raises(ValueError, match=r"`version` must be an integer from 1 to 2\*\*63 - 1"):
        publish(tmp_path / "model", write, version=version)
    assert names(tmp_path) == []


def test_after_the_greatest_version_nothing_is_written(tmp_path: pathlib.Path) -> None:
    assert publish(tmp_path, write, version=2**63 - 1).name == str(2**63 - 1)

    def fail(folder: pathlib.Path) -> None:
        raise AssertionError("The refusal comes before the work.")

    with pytest.raises(ValueError, match="after which servers read none; remove it, or give a `version`"):
        publish(tmp_path, fail)
    with pytest.raises(FileExistsError, match=r"Version 9223372036854775807 exists as .*; give another `version`\.$"):
        publish(tmp_path, fail, version=2**63 - 1)
    assert publish(tmp_path, write, version=5).name == "5"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_any_error_leaves_nothing(tmp_path: pathlib.Path, error: BaseException) -> None:
    def fail(folder: pathlib.Path) -> None:
        write(folder)
        raise error

    publish(tmp_path / "old", write)
    for directory, left in ((tmp_path / "old", ["1"]), (tmp_path / "new", None)):
        with pytest.raises(type(error)):
            publish(directory, fail)
        assert (names(directory) if left else directory.exists()) == (left or False)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        tf.errors.UnknownError(None, None, "/model/variables; Disk quota exceeded"),
        tf.errors.ResourceExhaustedError(None, None, "/model/variables; No space left on device"),
    ],
)
def test_full_disk_is_one_sentence(tmp_path: pathlib.Path, error: Exception) -> None:
    def fail(folder: pathlib.Path) -> None:
        write(folder)
        raise error

    with pytest.raises(
        OSError, match=r"No space is left in .*, nothing was written; free some and try again"
    ) as caught:
        publish(tmp_path, fail)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__cause__ is error
    assert names(tmp_path) == []


def test_number_taken_meanwhile_is_skipped(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = pathlib.Path.rename

    def race(self: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        monkeypatch.setattr(pathlib.Path, "rename", rename)
        target.mkdir()
        (target / "saved_model.pb").write_text("the other's")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", race)
    assert publish(tmp_path, write) == tmp_path / "2"
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "the other's"
    assert (tmp_path / "2" / "saved_model.pb").read_text() == "model"


def test_processes_that_publish_at_once_lose_no_version(tmp_path: pathlib.Path) -> None:
    assert publish_in_parallel(tmp_path / "model", processes=6, versions=12) == 72


def test_killed_process_leaves_no_version_and_the_next_export_cleans_up(tmp_path: pathlib.Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from tfmtl.serving.publishing import publish\n"
        "def write(folder):\n"
        "    (folder / 'saved_model.pb').write_text('half')\n"
        "    os._exit(9)\n"
        "publish(pathlib.Path(sys.argv[1]), write)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, timeout=120)
    assert done.returncode == 9
    (left,) = names(tmp_path)
    assert left.startswith(".tmp-")
    assert publish(tmp_path, write).name == "1"
    assert names(tmp_path) == ["1"]


def test_export_under_way_is_not_cleaned_up(tmp_path: pathlib.Path) -> None:
    def nested(folder: pathlib.Path) -> None:
        publish(tmp_path, write)
        write(folder)

    assert publish(tmp_path, nested).name == "2"
    assert names(tmp_path) == ["1", "2"]


def test_compressed_size_is_that_of_the_archive(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "random").write_bytes(os.urandom(100_000))
    (tmp_path / "folder" / "zeros").write_bytes(bytes(100_000))
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "folder", arcname=".")
    expected = len(gzip.compress(archive.read_bytes()))
    assert compressed_size(tmp_path / "folder") == pytest.approx(expected, abs=100)
