"""Writers of files that are killed with -9 at random moments, and checks of the remaining files by the next process.

A writer is a function of a folder, a function that reports the number of a complete state, and the last number to
write. It first reports the state that it finds, checks it, and then reports every state after the write has returned.
Processes are forked from one that has imported the package and has not run TensorFlow.
"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import random
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import keras_tuner
import numpy as np
import pandas as pd
import tensorflow as tf

from servers.models import ITEMS, MAX_K, build, identifier, queries
from tfmtl import data, keras, models, serving, tuning
from tfmtl.adaptation import OnlineLearner
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.versions import versions_in
from tfmtl.training import LazyAdam

Report = Callable[[int], None]
Arrays = dict[str, np.ndarray]
BATCH = 100


def _filled(number: int) -> models.MultiTaskModel:
    """Return the model with a number in all of its weights."""
    model = build()[0]
    for variable in model.network.trainable_variables:
        variable.assign(tf.fill(variable.shape, number / 100.0))
    return model


def _number_of(model: models.MultiTaskModel) -> int:
    """Return the number in all of a model's weights."""
    values = np.unique(np.concatenate([v.numpy().ravel() for v in model.network.trainable_variables]))
    assert len(values) == 1, f"The weights of two states are mixed: {values}"
    return round(100 * float(values[0]))


def _only(folder: pathlib.Path, names: set[str]) -> None:
    found = {path.name for path in folder.iterdir()} - {".lock"}
    assert found == names, f"{folder} holds {sorted(found)} instead of {sorted(names)}"


def save(folder: pathlib.Path, report: Report, last: int) -> None:
    """`save_model` to new folders."""
    folder.mkdir(exist_ok=True)
    number = len(versions_in(folder))
    if number:
        assert _number_of(models.load_model(folder / str(number))) == number
    report(number)
    for state in range(number + 1, last + 1):
        models.save_model(_filled(state), folder / str(state))
        _only(folder, {str(i) for i in range(1, state + 1)})
        report(state)


def export(folder: pathlib.Path, report: Report, last: int) -> None:
    """`export` of new versions."""
    number = _newest(folder)
    if number:
        model = _filled(number)  # the weights of a version are its number
        request = queries(model, build()[1])
        served = tf.saved_model.load(str(folder / str(number))).signatures["embed_query"](**request)
        expected = Recommender(model, MAX_K).embed_query(**request)
        np.testing.assert_allclose(served["embedding"], expected["embedding"], rtol=1e-5)
    report(number)
    for state in range(number + 1, last + 1):
        serving.export(_filled(state), folder, max_k=MAX_K)
        _only(folder, {str(i) for i in range(1, state + 1)})
        report(state)


def replace(folder: pathlib.Path, report: Report, last: int) -> None:
    """`replace_candidates`, with the number of the version in the number of candidates."""
    model, table = build()
    if not folder.exists():
        serving.export(model, folder, max_k=MAX_K, rerank_depth=MAX_K)
    number = _newest(folder)
    if number > 1:
        served = tf.saved_model.load(str(folder / str(number))).signatures["retrieve"]
        found = np.unique(served(**queries(model, table))["ids"])
        assert set(found.astype(str)) <= {identifier("string", "i", i) for i in range(_kept(number))} | {""}
    report(number)
    for state in range(number + 1, last + 1):
        kept = {identifier("string", "i", i) for i in range(_kept(state))}
        serving.replace_candidates(folder, table[table["item_id"].isin(kept)])
        _only(folder, {str(i) for i in range(1, state + 1)})
        report(state)


def _newest(folder: pathlib.Path) -> int:
    """Return the newest version, each of which has the files of the first."""
    versions = versions_in(folder) if folder.exists() else {}
    shapes = {tuple(sorted(str(p.relative_to(path)) for p in path.rglob("*"))) for path in versions.values()}
    assert len(shapes) <= 1
    assert sorted(versions) == list(range(1, len(versions) + 1))
    return len(versions)


def _kept(version: int) -> int:
    return MAX_K + version % (ITEMS - MAX_K)


def cache(folder: pathlib.Path, report: Report, last: int) -> None:
    """`cache` of tables that differ in one column."""
    folder.mkdir(exist_ok=True)
    model, table = build()
    table = pd.concat([table] * 60, ignore_index=True)
    done = folder.with_suffix(".txt")
    number = int(done.read_text()) if done.exists() else 0
    report(number)
    for state in range(number, last + 1):  # the one that was written at the time of the kill is read again
        changed = table.assign(price=table["price"] + state)
        found = data.cache(changed, model.preprocessor, folder / "train.cache").to_batch()
        expected = data.to_batch(changed, model.preprocessor)
        for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(one, other)
        _only(folder, {"train.cache"})
        done.write_text(str(state))
        report(state)


class _Epochs(keras.callbacks.Callback):
    """Reports the number of complete epochs."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def _now(self) -> None:
        self.report(int(self.model.optimizer.iterations) // 3)  # 300 rows in batches of 100

    def on_train_begin(self, logs: Any = None) -> None:
        self._now()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._now()


def fit(folder: pathlib.Path, report: Report, last: int) -> Arrays:
    """`fit` with `BackupAndRestore`."""
    model, table = build()
    model.compile(LazyAdam(0.01), run_eagerly=True)
    backup = keras.callbacks.BackupAndRestore(str(folder), delete_checkpoint=False)
    model.fit(table, batch_size=BATCH, epochs=last, verbose=0, callbacks=[backup, _Epochs(report)])
    return _weights(model)


def learn(folder: pathlib.Path, report: Report, last: int) -> Arrays:
    """`OnlineLearner.step`, one increment per state."""
    model, table = build()
    if folder.exists():
        learner = OnlineLearner.resume(folder)
    else:
        model.compile(LazyAdam(0.01), run_eagerly=True)
        learner = OnlineLearner(model, folder, batch_size=BATCH, replay=None)
    names = [increment.name for increment in learner.increments]
    assert names == [str(i) for i in range(1, len(names) + 1)], names
    report(len(names))
    for state in range(len(names) + 1, last + 1):
        learner.step(table.assign(user_id=table["user_id"] + "new" * (state % 7 == 0)), name=str(state))
        report(state)
    return _weights(learner.model)


def tune(folder: pathlib.Path, report: Report, last: int) -> Arrays:
    """A grid search of keras-tuner with the checkpoints of its trials."""

    def build_model(hp: keras_tuner.HyperParameters) -> keras.Model:
        keras.utils.set_random_seed(0)
        units = hp.Choice("units", list(range(1, last + 1)))
        model = keras.Sequential([keras.layers.Dense(units, activation="relu"), keras.layers.Dense(1)])
        model.compile("adam", "mse", run_eagerly=True)
        return model

    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    tuner = tuning.GridSearch(build_model, "val_loss", directory=folder, project_name="grid")

    def completed() -> int:
        return sum(row["status"] == "COMPLETED" for row in tuning.trials_table(tuner, failed=True))

    class Trials(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            report(completed())

    report(completed())
    tuner.search(x, x[:, 0], validation_data=(x, x[:, 0]), epochs=2, batch_size=50, verbose=0, callbacks=[Trials()])
    report(completed())
    trials = pd.DataFrame(tuning.trials_table(tuner, failed=True))
    assert (trials["status"] == "COMPLETED").all()
    units = [values["units"] for values in trials["hyperparameters"]]
    assert sorted(units) == list(range(1, last + 1))  # each combination once
    return {"scores": trials["score"].to_numpy()[np.argsort(units)]}


def _weights(model: models.MultiTaskModel) -> Arrays:
    return {f"{i}": v.numpy() for i, v in enumerate((*model.variables, *model.optimizer.variables))}


WRITERS: dict[str, Callable[[pathlib.Path, Report, int], Arrays | None]] = {
    "save": save, "export": export, "replace": replace, "cache": cache, "fit": fit, "learner": learn, "tuner": tune,
}  # fmt: skip


def _run(kind: str, folder: str, pipe: Connection, last: int, result: str) -> None:
    """Run a writer, send its reports, and write its arrays to a file."""
    try:
        arrays = WRITERS[kind](pathlib.Path(folder), pipe.send, last)
        np.savez(result, **(arrays or {}))
    except BaseException:  # noqa: BLE001 - the parent raises it
        pipe.send(traceback.format_exc())
        sys.exit(1)


class Killed:
    """A writer in processes that can be killed, and its last report.

    Args:
        kind: key of `WRITERS`.
        folder: an absent folder.
        last: the last state to write.
    """

    def __init__(self, kind: str, folder: pathlib.Path, last: int) -> None:
        self.kind, self.folder, self.last, self.seen = kind, folder, last, 0
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the process that forks has no other way
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["servers.kills"])

    def run(self, seconds: float = float("inf"), reports: float = float("inf")) -> list[float]:
        """Run a process, kill it some time or reports after its first report, and return the times of its reports."""
        pipe, own = self._context.Pipe(duplex=False)
        arguments = (self.kind, str(self.folder), own, self.last, f"{self.folder}.npz")
        process = self._context.Process(target=_run, args=arguments)
        process.start()
        own.close()
        before, times = self.seen, []
        while not times or (time.perf_counter() < times[0] + seconds and len(times) <= reports):
            left = times[0] + seconds - time.perf_counter() if times and seconds < float("inf") else None
            if pipe.poll(left) and not self._receive(pipe, times):
                break
        process.kill()
        process.join()
        while pipe.poll() and self._receive(pipe, times):
            pass
        assert self.found in (before, before + 1), f"{self.kind} found state {self.found} after {before}"
        return times

    def _receive(self, pipe: Connection, times: list[float]) -> bool:
        """Read a report; return whether the process had written one."""
        try:
            value: int | str = pipe.recv()
        except EOFError:
            return False
        if isinstance(value, str):
            raise RuntimeError(value)
        if not times:
            self.found = value
        self.seen = value
        times.append(time.perf_counter())
        return True


COMPARED = ("fit", "learner", "tuner")
"""Writers with an end, which is compared with that of a run without kills."""


def kill(kind: str, folder: pathlib.Path, kills: int, seed: int = 0) -> str:
    """Kill a writer at random moments; check every state that is found, and the end by a run without kills.

    Args:
        kind: key of `WRITERS`.
        folder: a folder for the files.
        kills: number of processes to kill.
        seed: seed of the moments.
    """
    rng, compared = random.Random(seed), kind in COMPARED
    killed = Killed(kind, folder / kind, kills + kills // 2 + 5 if compared else 10_000)
    times = killed.run(reports=2)
    each = (times[-1] - times[0]) / (len(times) - 1)
    done = 0
    while done < kills and killed.seen < killed.last - 1:
        killed.run(rng.uniform(0, 2 * each))
        done += 1
    after = killed.seen
    killed.last = killed.last if compared else after + 2
    killed.run()
    assert killed.seen == killed.last, f"{kind} ended at state {killed.seen} of {killed.last}"
    if compared:
        Killed(kind, folder / f"{kind}-whole", killed.last).run()
        with np.load(f"{killed.folder}.npz") as found, np.load(folder / f"{kind}-whole.npz") as expected:
            assert sorted(found) == sorted(expected)
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name])
    return f"{kind}: {done} kills, {after} states by then; each found state whole, none lost or doubled, no litter"
