"""An online learner that is killed with -9 at two points; as a script, the processes that die."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from typing import Any

from tests.adaptation import newcomers
from tests.models import small
from tests.tracing import trace_quickly
from tfmtl._keras import keras
from tfmtl.adaptation import DriftMonitor, OnlineLearner, PageHinkley, Replay
from tfmtl.adaptation.journal import Journal
from tfmtl.balancing import Uncertainty
from tfmtl.data import to_batch
from tfmtl.models import Regularization
from tfmtl.training import GroupedOptimizer, LazyAdam, RowWiseAdagrad

WEEKS = (1, 2, 3)


class Kill(keras.callbacks.Callback):
    """Ends the process as a lost machine would, at a step of the optimiser."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def start(folder: str | pathlib.Path, **options: Any) -> OnlineLearner:
    """Return a learner with everything that has a state: noise, draws, counts, balancer, optimisers, replay, drift."""
    optimizer = GroupedOptimizer(RowWiseAdagrad(0.05), LazyAdam(0.01))
    heads, noise = small.tasks(num_uniform_negatives=4)[:2], Regularization(dropout=0.2, unknown_rate=0.1)
    model = small.model(heads=heads, balancer=Uncertainty(), trunk=None, tower_units=[4], regularization=noise)
    model.compile(optimizer, run_eagerly=True, steps_per_execution=1)
    replay = Replay(20, share=0.5)
    replay.add(to_batch(small.table(), model.preprocessor))
    drift = DriftMonitor(metrics={"loss": PageHinkley(0.5)})
    arguments = {"replay": replay, "drift": drift, "batch_size": 23, "keep": 4, **options}
    return OnlineLearner(model, folder, **arguments)  # 45 rows of an increment: 2 steps


def go_on(learner: OnlineLearner) -> OnlineLearner:
    """Make all increments, those that have been made included: they are not made again."""
    for week in WEEKS:
        learner.step(newcomers.week(week), name=f"week {week}")
    return learner


def _die_between_state_and_manifest() -> None:
    write = Journal.write

    def write_or_die(journal: Journal, manifest: Any) -> None:
        if len(manifest["increments"]) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(journal, manifest)

    Journal.write = write_or_die  # type: ignore[method-assign]


def _in_child(work: Any) -> int:
    """Return how a process ends that does some work; forked before TensorFlow has started any thread."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    trace_quickly()  # as the process that compares, bit by bit
    path = sys.argv[1]
    ends = [_in_child(lambda: go_on(start(path, callbacks=[Kill(3)])))]  # in the middle of the second increment
    ends.append(_in_child(lambda: (_die_between_state_and_manifest(), go_on(OnlineLearner.resume(path)))))
    sys.exit(0 if ends == [-signal.SIGKILL] * 2 else f"The processes ended with {ends}.")
