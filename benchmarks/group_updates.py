"""Plain sum against selective group updates on census income, at equal numbers of updates and at equal CPU time.

    python benchmarks/group_updates.py --census FOLDER [--seeds 3] [--rows 60000] [--epochs 10] [--every 40]

One network answers eight questions. Steps on the sum of all losses, steps of groups of tasks that follow the tracked
affinities, and steps of one task after the other make equal numbers of updates: those of the epochs of the plain sum.
The plain sum also trains for the CPU time of the groups. The learning rate falls along a cosine over the updates of
each training. CPU time is that of the process without tracing: a call that traces
counts as much as the median of the others, and the rest is the time of tracing. Differences are paired by seed.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections import defaultdict
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
from paired import interval
from task_groups import BATCH_SIZE, NAMES, Census

from tfmtl import evaluation, keras
from tfmtl.allocation import SelectiveGroupUpdates

NEVER = 10**9
GROUPS, EQUAL_TIME = "groups by affinity", "plain sum, CPU time of the groups"


class Meter(keras.callbacks.Callback):
    """Ends a training after some updates and measures the CPU time of each batch; add it after `groups`."""

    def __init__(self, updates: int, groups: SelectiveGroupUpdates | None) -> None:
        super().__init__()
        self.updates, self.groups = updates, groups
        self.seconds: list[float] = []
        self.traced: list[bool] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self._traces, self._changes, self._before = True, self._number(), time.process_time()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep the CPU time of the batch, and whether it was traced."""
        now, changes = time.process_time(), self._number()
        self.seconds.append(now - self._before)
        self.traced.append(self._traces)
        self._traces, self._changes, self._before = changes != self._changes, changes, now
        if int(self.model.optimizer.iterations) >= self.updates:
            self.model.stop_training = True

    def _number(self) -> int:
        return 0 if self.groups is None else len(self.groups.history)

    @property
    def training(self) -> float:
        """The CPU time without tracing."""
        seconds, traced = np.array(self.seconds), np.array(self.traced)
        return float(seconds[~traced].sum() + traced.sum() * np.median(seconds[~traced]))

    @property
    def tracing(self) -> float:
        """The CPU time of tracing."""
        return float(np.sum(self.seconds)) - self.training


def run(problem: Census, groups: SelectiveGroupUpdates | None, updates: int, seed: int) -> np.ndarray:
    """Train a model; return its mean test AUC, updates, batches, and CPU seconds of training and tracing."""
    model, meter = problem.model([], seed, 1), Meter(updates, groups)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, updates, alpha=0.01)
    model.compile(tfmtl.LazyAdam(rate), steps_per_execution=1)
    problem.fit(model, updates, *([meter] if groups is None else [groups, meter]))
    report = evaluation.evaluate(model, problem.test)
    auc = np.mean([report[task, "auc"] for task in NAMES])
    found = [auc, int(model.optimizer.iterations), len(meter.seconds), meter.training, meter.tracing]
    keras.backend.clear_session()
    return np.array(found)


def compare(problem: Census, updates: int, seed: int, every: int) -> dict[str, np.ndarray]:
    """Return the results of a seed by training."""
    found = {}
    found["plain sum"] = run(problem, None, updates, seed)
    for name, n in {GROUPS: every, "one task after the other": NEVER}.items():
        groups = SelectiveGroupUpdates(n, decay=0.05, seed=seed)
        found[name] = run(problem, groups, updates, seed)
        changes = "; ".join(f"{batches}: {' | '.join(map(' '.join, parts))}" for batches, parts in groups.history)
        print(f"<!-- seed {seed}, {updates} updates, {name}: {changes} -->", flush=True)
    same = round(found[GROUPS][3] * found["plain sum"][1] / found["plain sum"][3])
    found[EQUAL_TIME] = run(problem, None, same, seed)
    for name, values in found.items():
        print(f"<!-- seed {seed}, {name}: {np.round(values, 4).tolist()} -->", flush=True)
    return found


def table(problem: Census, updates: int, seeds: int, every: int) -> None:
    """Print the results of some updates."""
    results: dict[str, list[np.ndarray]] = defaultdict(list)
    for seed in range(seeds):
        for name, values in compare(problem, updates, seed, every).items():
            results[name].append(values)
    against = "against the plain sum, equal updates | against the plain sum, CPU time of the groups"
    print(f"| training | updates | batches | CPU s | tracing, CPU s | mean AUC | {against} |\n{'|---' * 8}|")
    for name, runs in results.items():
        auc, *counts = np.array(runs).T
        means = [f"{np.mean(values):.{digits}f}" for values, digits in zip(counts, (0, 0, 1, 1), strict=True)]
        cells = [*means, interval(auc)]
        for other in ("plain sum", EQUAL_TIME):
            cells.append(interval(auc - np.array(results[other])[:, 0], "+.4f"))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, required=True, help="folder with census income")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=10, help="of the plain sum")
    parser.add_argument("--every", type=int, default=40, help="batches between two changes of the groups")
    options = parser.parse_args()
    problem = Census(options.census, options.rows)
    updates = options.epochs * -(-problem.rows // BATCH_SIZE)
    table(problem, updates, options.seeds, options.every)


if __name__ == "__main__":
    main()
