from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.models import FIT, TWO_CHOICES, Scored, functional, two_choices, values
from tfmtl import tuning
from tfmtl._keras import tf
from tfmtl.tuning.oracles import check_json, write_json

HERE = Path(__file__).parent


class Killed(BaseException):
    """What no library catches: the files are left as a kill leaves them."""


def _declare(hp: Any) -> None:
    two_choices(hp)
    hp.Float("c", 0.0, 1.0, step=0.5)


def _random(model: Any, **options: Any) -> tuning.Tuner:
    return tuning.RandomSearch(model, None, max_trials=6, seed=3, **options)


def _grid(model: Any, **options: Any) -> tuning.Tuner:
    return tuning.GridSearch(model, None, **options)


def _bayesian(model: Any, **options: Any) -> tuning.Tuner:
    return tuning.BayesianOptimization(model, None, max_trials=5, num_initial_points=4, seed=3, **options)


def _hyperband(model: Any, **options: Any) -> tuning.Tuner:
    # nothing is trained here, so that no trial can be continued: factor 3 and 2 epochs make brackets of one round
    return tuning.Hyperband(model, None, max_epochs=2, factor=3, hyperband_iterations=3, seed=3, **options)


@pytest.mark.parametrize(("make", "at"), [(_random, 4), (_grid, 1), (_grid, 4), (_hyperband, 4), (_bayesian, 4)])
def test_a_search_resumed_after_a_kill_runs_what_an_undisturbed_one_runs(
    make: Callable[..., tuning.Tuner], at: int, tmp_path: Path
) -> None:
    runs: list[tuple[Any, ...]] = []

    def score(drawn: Any) -> float:
        runs.append((drawn["a"], drawn["b"], drawn["c"]))
        if len(runs) == at and not resumed:
            raise Killed
        return float(drawn["a"] * drawn["b"] + drawn["c"])

    resumed = True
    undisturbed = make(Scored(_declare, score), directory=tmp_path, project_name="undisturbed")
    undisturbed.search(verbose=0)
    expected, runs[:] = runs.copy(), []
    resumed = False
    with pytest.raises(Killed):
        make(Scored(_declare, score), directory=tmp_path).search(verbose=0)
    resumed = True
    tuner = make(Scored(_declare, score), directory=tmp_path)
    assert len(tuning.trials_table(tuner)) == at - 1
    tuner.search(verbose=0)
    assert runs == [*expected[:at], expected[at - 1], *expected[at:]]
    assert tuning.trials_table(tuner) == tuning.trials_table(undisturbed)


def test_a_finished_search_runs_nothing_when_made_again(tmp_path: Path) -> None:
    runs = []

    def score(drawn: Any) -> float:
        runs.append(drawn)
        return float(drawn["a"])

    for _ in range(2):
        tuner = _grid(Scored(two_choices, score), directory=tmp_path)
        tuner.search(verbose=0)
    assert len(runs) == len(TWO_CHOICES)
    _grid(Scored(two_choices, score), directory=tmp_path, overwrite=True).search(verbose=0)
    assert len(runs) == 2 * len(TWO_CHOICES)


def test_a_search_made_again_with_more_trials_goes_on(tmp_path: Path) -> None:
    model = Scored(two_choices, lambda drawn: float(drawn["a"]))
    for trials in (2, 3, None):
        tuner = tuning.GridSearch(model, None, max_trials=trials, directory=tmp_path)
        tuner.search(verbose=0)
    assert [(drawn["a"], drawn["b"]) for drawn in values(tuner)] == TWO_CHOICES


def test_a_kill_in_the_first_trial_of_a_search_without_a_seed_keeps_its_values(tmp_path: Path) -> None:
    runs: list[float] = []

    def score(drawn: Any) -> float:
        runs.append(drawn["x"])
        if len(runs) == 1:
            raise Killed
        return 1.0

    model = Scored(lambda hp: hp.Float("x", 0.0, 1.0), score)
    with pytest.raises(Killed):
        tuning.RandomSearch(model, None, max_trials=1, directory=tmp_path).search(verbose=0)
    tuning.RandomSearch(model, None, max_trials=1, directory=tmp_path).search(verbose=0)
    assert runs == [runs[0]] * 2


def _interrupted(directory: Path, trial: int) -> None:
    def score(drawn: Any) -> float:
        if len(tuner.oracle.trials) == trial:
            raise Killed
        return float(drawn["a"])

    tuner = _grid(Scored(two_choices, score), directory=directory)
    with pytest.raises(Killed):
        tuner.search(verbose=0)


def _resumed(directory: Path) -> tuning.Tuner:
    tuner = _grid(Scored(two_choices, lambda drawn: float(drawn["a"])), directory=directory)
    tuner.search(verbose=0)
    return tuner


def test_a_kill_between_the_end_of_a_trial_and_the_search_file_keeps_the_trial(tmp_path: Path) -> None:
    _interrupted(tmp_path, trial=3)
    path = tmp_path / "untitled_project" / "trial_0002" / "trial.json"
    state = check_json(str(path))
    write_json(str(path), state | {"status": "COMPLETED", "score": -7.0})
    tuner = _resumed(tmp_path)
    assert tuning.trials_table(tuner)[0]["score"] == -7.0
    assert sorted((drawn["a"], drawn["b"]) for drawn in values(tuner)) == TWO_CHOICES


def test_a_kill_between_the_start_of_a_trial_and_the_search_file_starts_it_again(tmp_path: Path) -> None:
    _interrupted(tmp_path, trial=3)
    project = tmp_path / "untitled_project"
    (project / "trial_0003").mkdir()
    state = check_json(str(project / "trial_0002" / "trial.json"))
    write_json(str(project / "trial_0003" / "trial.json"), state | {"trial_id": "0003"})
    tuner = _resumed(tmp_path)
    assert sorted((drawn["a"], drawn["b"]) for drawn in values(tuner)) == TWO_CHOICES


def test_values_of_the_interrupted_run_are_forgotten(tmp_path: Path) -> None:
    _interrupted(tmp_path, trial=1)
    path = tmp_path / "untitled_project" / "trial_0000" / "trial.json"
    state = check_json(str(path))
    metric = {"direction": "min", "observations": [{"value": [-7.0], "step": 0}]}
    write_json(str(path), state | {"metrics": {"metrics": {"default_objective": metric}}})
    assert min(row["score"] for row in tuning.trials_table(_resumed(tmp_path))) == 1.0


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*args: Any, **kwargs: Any) -> None:
        raise Killed

    path = tmp_path / "state.json"
    write_json(str(path), {"trial": 1})
    write_json(str(path), {"trial": 2})
    monkeypatch.setattr(tf.io.gfile, "rename", kill)
    with pytest.raises(Killed):
        write_json(str(path), {"trial": 3})
    assert check_json(str(path)) == {"trial": 2}


def test_a_kill_while_a_tuner_is_saved_leaves_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(path: str, *args: Any, **kwargs: Any) -> None:
        if "tuner0.json" in path:
            raise Killed

    tuner = tuning.GridSearch(functional, "val_loss", max_trials=2, directory=tmp_path)
    tuner.save()
    path = tmp_path / "untitled_project" / "tuner0.json"
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(tf.io.gfile, "rename", kill)
        with pytest.raises(Killed):
            tuner.save()
    assert path.read_bytes() == before
    tuning.GridSearch(functional, "val_loss", max_trials=2, directory=tmp_path)  # reloads


@pytest.mark.parametrize("name", ["oracle.json", "trial_0/trial.json", "tuner0.json"])
def test_a_damaged_file_of_a_search_is_named(tmp_path: Path, name: str) -> None:
    project = tmp_path / "shop[1]" / "untitled_project"  # no pattern
    tuner = tuning.GridSearch(functional, "val_loss", max_trials=2, directory=tmp_path / "shop[1]")
    tuner.search(**FIT, epochs=1)
    whole = (project / name).read_bytes()
    resumed = tuning.GridSearch(functional, "val_loss", max_trials=2, directory=tmp_path / "shop[1]")
    assert tuning.trials_table(resumed) == tuning.trials_table(tuner)
    half = len(whole) // 2
    for damaged in (b"", whole[:half], whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]):
        (project / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name} is damaged: .*; restore it from a backup, or search in another"):
            tuning.GridSearch(functional, "val_loss", max_trials=2, directory=tmp_path / "shop[1]")


CHILD = """
import os, signal, sys
from models import FIT, functional
from tfmtl import tuning
from tfmtl._keras import keras

class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if len(tuner.oracle.trials) == 2 and epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

tuner = tuning.GridSearch(functional, "val_loss", max_trials=4, directory=sys.argv[1])
tuner.search(**FIT, epochs=2, callbacks=[Kill()])
"""


def test_a_search_killed_with_signal_9_resumes(tmp_path: Path) -> None:
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    tuner = tuning.GridSearch(functional, "val_loss", max_trials=4, directory=tmp_path)
    before = tuning.trials_table(tuner, failed=True)
    assert [row["status"] for row in before] == ["COMPLETED", "RUNNING"]
    checkpoint = tmp_path / "untitled_project" / "trial_0" / "checkpoint" / "weights.index"
    written = checkpoint.stat().st_mtime_ns
    tuner.search(**FIT, epochs=2)
    after = {row["trial"]: row for row in tuning.trials_table(tuner)}
    assert len(after) == 4
    assert after["0"] == before[0]
    assert after["1"]["hyperparameters"] == before[1]["hyperparameters"]
    assert checkpoint.stat().st_mtime_ns == written
    loss = tuner.get_best_models()[0].evaluate(*FIT["validation_data"], verbose=0)
    assert loss == pytest.approx(tuning.trials_table(tuner)[0]["score"], rel=1e-5)
