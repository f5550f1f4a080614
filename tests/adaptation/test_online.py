from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.adaptation import newcomers, online_run
from tests.models import small
from tfmtl import adaptation, serving
from tfmtl._keras import keras, tf
from tfmtl.adaptation import Replay
from tfmtl.adaptation.journal import Journal
from tfmtl.adaptation.online import OnlineLearner
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.models.as_arrays import from_arrays, to_arrays

RUN = """
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # some distributions install a package of this name
sys.modules["tests"].__path__ = ["tests"]
runpy.run_module("tests.adaptation.online_run", run_name="__main__")
"""


def same_state(learner: OnlineLearner, other: OnlineLearner, increments: int) -> None:
    """Compare everything that training goes on with after so many increments, bit by bit."""
    states = [Journal(x.folder).read_state(increments) for x in (learner, other)]
    (config, arrays), (expected_config, expected) = states
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)
    for part in ("replay", "drift"):
        np.testing.assert_equal(config[part], expected_config[part])
    ours, theirs = (each["model"] for each in (config, expected_config))
    assert ours["preprocessor"]["statistics"] == theirs["preprocessor"]["statistics"]
    assert (ours["ids"], ours["optimizer"]) == (theirs["ids"], theirs["optimizer"])
    np.testing.assert_equal(learner.increments[:increments], other.increments[:increments])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> OnlineLearner:
    return online_run.go_on(online_run.start(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.slow
def test_killed_twice_it_ends_bit_by_bit_as_undisturbed(undisturbed: OnlineLearner, tmp_path: pathlib.Path) -> None:
    """Killed in the middle of an increment's training, and after its state was written but not its manifest."""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(Journal(tmp_path).read()["increments"]) == 2
    assert Journal(tmp_path).has_state(3)
    learner = online_run.go_on(OnlineLearner.resume(tmp_path))
    assert int(learner.model.optimizer.iterations) == 2 * len(online_run.WEEKS)
    same_state(learner, undisturbed, 3)
    assert not list(tmp_path.glob(".tmp-*"))


def test_an_increment_is_made_once(undisturbed: OnlineLearner) -> None:
    before = int(undisturbed.model.optimizer.iterations), len(undisturbed.replay)
    again = undisturbed.step(newcomers.week(1), name="week 1")
    assert again == undisturbed.increments[0]
    assert (int(undisturbed.model.optimizer.iterations), len(undisturbed.replay)) == before


def test_records_say_what_happened(undisturbed: OnlineLearner) -> None:
    first, second, _ = undisturbed.increments
    assert [record.name for record in undisturbed.increments] == ["week 1", "week 2", "week 3"]
    assert first.rows == 30
    assert first.alarms == ()  # nothing to compare with
    assert set(second.grown) <= {"user", "item"}
    vocabulary = undisturbed.model.preprocessor.vocabulary("user")
    assert sum(record.grown.get("user", 0) for record in undisturbed.increments) == len(vocabulary) - small.USERS
    assert {"loss", "seen_loss", "rating_loss"} <= set(first.metrics)


def test_it_tests_before_it_trains_and_may_fail_to_publish(tmp_path: pathlib.Path) -> None:
    def refuse(model: MultiTaskModel) -> str:
        raise OSError("no space")

    learner = online_run.start(tmp_path, publish=refuse, evaluate=lambda model, table: {("seen", "rows"): len(table)})
    expected = learner.evaluate(newcomers.week(1))
    with pytest.raises(OSError, match="no space"):
        learner.step(newcomers.week(1), "first")
    (record,) = learner.increments
    assert record.version is None
    assert record.metrics == expected
    assert record.metrics["seen_rows"] == 30
    assert learner.evaluate(newcomers.week(1)) != expected


def test_a_failed_increment_leaves_no_trace(undisturbed: OnlineLearner, tmp_path: pathlib.Path) -> None:
    class Fail(keras.callbacks.Callback):
        broken = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.broken:
                raise RuntimeError("the data base went away")

    fail = Fail()
    learner = online_run.start(tmp_path, callbacks=[fail])
    with pytest.raises(RuntimeError, match="went away"):
        learner.step(newcomers.week(1), "week 1")
    assert learner.increments == []
    assert int(learner.model.optimizer.iterations) == 1
    fail.broken = False
    learner.step(newcomers.week(1), "week 1")
    same_state(learner, undisturbed, 1)


def test_rollback_gives_the_state_of_before(undisturbed: OnlineLearner, tmp_path: pathlib.Path) -> None:
    published: list[int] = []

    def publish(model: MultiTaskModel) -> str:
        published.append(int(model.optimizer.iterations))
        return f"version {len(published)}"

    learner = online_run.start(tmp_path, publish=publish, keep=2)
    learner.step(newcomers.week(1), "week 1")
    learner.step(newcomers.week(7), "spoilt")
    back = learner.rollback()
    assert back is not None
    assert (back.name, back.version) == ("week 1", "version 3")
    assert published == [2, 4, 2]
    with pytest.raises(ValueError, match="The state before 'week 1' is gone"):
        learner.rollback()
    resumed = OnlineLearner.resume(tmp_path)
    assert resumed.increments == learner.increments
    resumed.step(newcomers.week(2), "week 2")
    resumed.increments[0] = dataclasses.replace(back, version=None)  # without a publisher there is none
    same_state(resumed, undisturbed, 2)


def test_a_version_that_is_still_due_is_published_on_resuming_and_serves(
    undisturbed: OnlineLearner, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(undisturbed.folder, tmp_path / "learner")
    publish = functools.partial(serving.export, directory=tmp_path / "shop")
    learner = OnlineLearner.resume(tmp_path / "learner", publish=publish)
    version = tmp_path / "shop" / "1"
    assert Journal(learner.folder).read()["increments"][-1]["version"] == str(version)
    assert learner.increments[-1].version == str(version)
    assert tf.saved_model.load(str(version)).signatures
    assert set(newcomers.week(3)["item"]) <= set(learner.model.candidates.ids.tolist())


def test_folders_and_arguments_are_checked(tmp_path: pathlib.Path, worker: MultiTaskModel) -> None:
    with pytest.raises(ValueError, match="holds no online learner"):
        OnlineLearner.resume(tmp_path)
    learner = OnlineLearner(worker, tmp_path / "a", replay=None)
    with pytest.raises(ValueError, match="no increment to undo"):
        learner.rollback()
    with pytest.raises(ValueError, match="has a learner already"):
        OnlineLearner(worker, tmp_path / "a", replay=None)
    with pytest.raises(ValueError, match="no optimizer; compile it"):
        OnlineLearner(small.model().with_network(small.network()), tmp_path / "b", replay=None)
    for wrong in ({"epochs": 0}, {"batch_size": 0}, {"headroom": -1.0}, {"memory": 0.0}, {"keep": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OnlineLearner(worker, tmp_path / "b", replay=None, **wrong)  # type: ignore[arg-type]


def test_the_table_of_the_first_training_is_replayed(tmp_path: pathlib.Path, worker: MultiTaskModel) -> None:
    table = small.table()
    with pytest.raises(TypeError, match="'replay'"):
        OnlineLearner(worker, tmp_path / "a")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="`replay` holds no rows, and a sample of increments alone ranks badly; give"):
        OnlineLearner(worker, tmp_path / "a", replay=Replay(10))
    learner = OnlineLearner(worker, tmp_path / "a", replay=table)
    assert learner.replay is not None
    assert (learner.replay.capacity, learner.replay.share, learner.replay.seen) == (100_000, 1.0, small.ROWS)
    drawn, rows = learner.replay.draw(small.ROWS), to_batch(table, worker.preprocessor)
    assert drawn is not None
    for name, column in rows.features.items():
        if name in ("user", "item"):
            np.testing.assert_array_equal(np.sort(drawn.features[name]), np.sort(column))
    learner.step(table.iloc[:4], "next")
    assert learner.replay.seen == small.ROWS + 4


def test_a_model_comes_back_with_settings_that_no_configuration_holds() -> None:
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["embedding"])
    model = small.model(optimizer, eager=True)
    config, arrays = to_arrays(model)
    back = from_arrays(config, arrays)
    assert back.optimizer._exclude_from_weight_decay_names == ["embedding"]
    assert back.run_eagerly
    assert adaptation.extend_vocabularies(back, newcomers.week(1)).run_eagerly
