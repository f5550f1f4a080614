"""Folders of online learners: damaged and missing files, and several learners of one folder."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from tests.adaptation import newcomers, online_run
from tfmtl._saved_files import DamagedFileError
from tfmtl.adaptation.folder_lock import FolderLock
from tfmtl.adaptation.journal import Journal
from tfmtl.adaptation.online import OnlineLearner

ROOT = pathlib.Path(__file__).parents[2]
HOLDER = """
import pathlib, sys, types
for name in ("tfmtl", "tfmtl.adaptation"):  # without TensorFlow
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [name.replace(".", "/")]
from tfmtl.adaptation.folder_lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def two_weeks(tmp_path_factory: pytest.TempPathFactory) -> OnlineLearner:
    learner = online_run.start(tmp_path_factory.mktemp("two_weeks"), publish=lambda model: "version")
    for week in (1, 2):
        learner.step(newcomers.week(week), name=f"week {week}")
    return learner


@pytest.fixture
def folder(two_weeks: OnlineLearner, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(two_weeks.folder, tmp_path / "learner", ignore=shutil.ignore_patterns(".lock"))
    return tmp_path / "learner"


def names(learner: OnlineLearner) -> list[str]:
    return [increment.name for increment in learner.increments]


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b""), pathlib.Path.unlink])
def test_a_damaged_state_is_named_and_the_preceding_one_is_used(
    two_weeks: OnlineLearner, folder: pathlib.Path, damage: object
) -> None:
    damage(folder / "state-000002.npz")  # type: ignore[operator]
    with pytest.raises(DamagedFileError, match=r"state-000002\.npz is damaged: it is .*; restore it from a backup"):
        OnlineLearner.resume(folder, fallback=False)
    with pytest.warns(
        UserWarning,
        match=r"state-000002\.npz is damaged: .* continues from .*state-000001\.npz; the increments \['week 2'\] must "
        r"be made again. Pass `fallback=False` to `resume` to refuse this\.",
    ):
        learner = OnlineLearner.resume(folder)
    assert names(learner) == ["week 1"]
    assert int(learner.model.optimizer.iterations) == 2
    learner.step(newcomers.week(2), name="week 2")
    for name, value in Journal(two_weeks.folder).read_state(2)[1].items():
        np.testing.assert_array_equal(Journal(folder).read_state(2)[1][name], value, err_msg=name)
    assert names(OnlineLearner.resume(folder)) == ["week 1", "week 2"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text[:-9], "it is no JSON"),
        (lambda text: text.replace(b'"units": ', b'"colour": 1, "units": '), "hold a wrong one .*'colour'"),
    ],
)
def test_a_state_of_which_no_model_can_be_made_is_damaged(folder: pathlib.Path, change: Any, fault: str) -> None:
    """Keras raises an error without the file for an unknown argument of a layer."""
    path = folder / "state-000002.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["config"] = np.frombuffer(change(arrays["config"].tobytes()), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(
        DamagedFileError, match=rf"state-000002\.npz is damaged: [^\n]*{fault}[^\n]*; restore it from a backup"
    ):
        OnlineLearner.resume(folder, fallback=False)
    with pytest.warns(UserWarning, match=r"state-000002\.npz is damaged: .* continues from .*state-000001\.npz"):
        assert names(OnlineLearner.resume(folder)) == ["week 1"]


def test_the_newest_whole_state_is_used_and_without_one_the_newest_is_named(folder: pathlib.Path) -> None:
    for number in (2, 1):
        cut(folder / f"state-00000{number}.npz")
    with pytest.warns(UserWarning, match=r"state-000002.* from .*state-000000.*\['week 1', 'week 2'\] must be made"):
        assert names(OnlineLearner.resume(folder)) == []
    cut(folder / "state-000000.npz")
    with pytest.raises(DamagedFileError, match=r"state-000002\.npz is damaged"):
        OnlineLearner.resume(folder)


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_text("{}"), pathlib.Path.unlink])
def test_a_lost_manifest_is_restored_from_the_newest_state(
    two_weeks: OnlineLearner, folder: pathlib.Path, damage: object
) -> None:
    damage(folder / "manifest.json")  # type: ignore[operator]
    with pytest.raises(DamagedFileError, match=r"manifest\.json is damaged: it"):
        OnlineLearner.resume(folder, fallback=False)
    published: list[int] = []
    with pytest.warns(UserWarning, match=r"manifest\.json is damaged: .* continues from .*state-000002\.npz\. Pass"):
        learner = OnlineLearner.resume(folder, publish=lambda model: published.append(1) or "again")  # type: ignore[func-returns-value]
    assert names(learner) == ["week 1", "week 2"]
    assert [increment.version for increment in learner.increments] == ["version", "again"]  # its record was lost
    assert Journal(folder).read()["increments"][1]["version"] == "again"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert OnlineLearner.resume(folder).increments == learner.increments


def test_a_new_learner_deletes_no_states(two_weeks: OnlineLearner, folder: pathlib.Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"learner holds states of a learner but no manifest\.json, which a new"):
        OnlineLearner(two_weeks.model, folder, replay=None)
    assert Journal(folder).states == [0, 1, 2]


def test_files_with_other_names_stay(folder: pathlib.Path) -> None:
    (folder / "state-best.npz").touch()
    Journal(folder).forget(range(1, 3))
    assert Journal(folder).states == [1, 2]
    assert (folder / "state-best.npz").exists()


def test_flips_and_cuts_never_give_another_state(folder: pathlib.Path) -> None:
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".npz")}
    manifest, states = Journal(folder).read(), {i: Journal(folder).read_state(i) for i in range(3)}
    rng, refused = np.random.default_rng(3), 0
    for i in range(150):
        name = sorted(whole)[i % 4]
        data, position = bytearray(whole[name]), int(rng.integers(len(whole[name])))
        data[position] ^= 1 << int(rng.integers(8))
        (folder / name).write_bytes(data if i % 3 else data[:position])
        try:
            assert Journal(folder).read().items() >= manifest.items()
            for number, (config, arrays) in states.items():
                found = Journal(folder).read_state(number)
                assert found[0] == config
                np.testing.assert_equal(found[1], arrays)
        except DamagedFileError as error:
            refused += name in str(error)
        (folder / name).write_bytes(whole[name])
    assert refused > 130


def test_one_process_at_a_time(two_weeks: OnlineLearner, folder: pathlib.Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        message = rf"learner is in use by the learner of process {process.pid} on \S+, and two .* end that process"
        with pytest.raises(RuntimeError, match=message):
            OnlineLearner.resume(folder)
        (folder / "manifest.json").rename(folder / "away")
        for path in folder.glob("state-*"):
            path.unlink()
        with pytest.raises(RuntimeError, match=message):
            OnlineLearner(two_weeks.model, folder, replay=None)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(OnlineLearner(two_weeks.model, folder, replay=None)) == []


def test_a_learner_that_was_resumed_again_writes_no_more(folder: pathlib.Path) -> None:
    first = OnlineLearner.resume(folder)
    second = OnlineLearner.resume(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for write in (lambda: first.step(newcomers.week(3), name="week 3"), first.rollback):
        with pytest.raises(RuntimeError, match=r"Another learner of this process has continued .*learner; use"):
            write()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    second.step(newcomers.week(3), name="week 3")
    assert names(second) == ["week 1", "week 2", "week 3"]


def test_a_lock_is_free_without_its_object_and_in_a_new_folder(tmp_path: pathlib.Path) -> None:
    lock = FolderLock(tmp_path)
    pid = os.fork()
    if not pid:
        try:
            lock.check()
        except RuntimeError:
            try:
                FolderLock(tmp_path)
            except RuntimeError:
                os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7  # a forked process has no lock and gets none
    lock.check()
    (tmp_path / ".lock").unlink()
    again = FolderLock(tmp_path)
    again.check()
    del again
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"


@pytest.mark.parametrize("written", [b"", b"[]", b'{"process": "x"}', b'{"process": 1, "start": 1, "host": "\\u001b"}'])
def test_an_unreadable_owner_is_another_process(tmp_path: pathlib.Path, written: bytes) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / ".lock").write_bytes(written)
        with pytest.raises(RuntimeError, match="in use by the learner of another process, and"):
            FolderLock(tmp_path)
