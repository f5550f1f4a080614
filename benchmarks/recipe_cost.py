"""The time that `recipes.fit` adds to the training of the same model with its settings given.

    python benchmarks/recipe_cost.py FOLDER/ml_100k FOLDER/steam_reviews ... [--rows 50000] [--epochs 12] [--repeats 2]

All tasks of a set of `transfer.py`. "Training" is the time of the training steps, with that of their first trace;
"parts" that of the network's layers, of one fit of EASE, ALS and trees with chosen settings, and of joining them. Both
together are the cost of the same model with its settings given. "Judging" is the time of the losses and ranks of the
held-out rows after each epoch, with that of their first trace; "choices" all the rest. Times are those of the CPU of
one process.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import time
from typing import Any

import transfer

from tfmtl import recipes

_FIT: Any = sys.modules["tfmtl.recipes.fit"]
_TREES: Any = sys.modules["tfmtl.recipes.join_boosting"]
_PARTS = (
    (_FIT, "_network"), (_TREES, "joined"), (_TREES._Rows, "refitted"), (recipes.EaseParts, "fit"),
    (recipes.EasePart, "join"),
)  # fmt: skip


class Timed(recipes.BestEpoch):
    """Adds up the time of training steps and that of judging them."""

    training = judging = parts = 0.0

    @staticmethod
    def part(owner: Any, name: str) -> None:
        """Replace a function by one that adds its time to that of the parts."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                Timed.parts += time.process_time() - start

        setattr(owner, name, timed)

    def _now(self, kind: str, start: float) -> float:
        now = time.process_time()
        setattr(Timed, kind, getattr(Timed, kind) + now - start)
        return now

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock of the steps."""
        self._start = time.process_time()

    def on_test_begin(self, logs: Any = None) -> None:
        """Stop the clock of the steps, and start that of judging."""
        self._start = self._now("training", self._start)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge, and stop the clock."""
        super().on_epoch_end(epoch, logs)
        self._now("judging", self._start)


def measure(folder: pathlib.Path, rows: int, epochs: int, seed: int) -> list[float]:
    """Return the seconds of training, parts, judging and choices, and the number of epochs."""
    rest, _, names, known = transfer.parts(folder, rows, seed)
    tasks = [transfer.task_of(name, known.statistics) for name in names]
    Timed.training = Timed.judging = Timed.parts = 0.0
    _FIT.BestEpoch = Timed
    start = time.process_time()
    found = recipes.fit(known, tasks, rest, epochs=epochs, seed=seed, verbose=0)
    choices = time.process_time() - start - Timed.training - Timed.judging - Timed.parts
    return [Timed.training, Timed.parts, Timed.judging, choices, len(found.history["loss"])]


def main() -> None:
    """Parse the arguments, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    for owner, name in _PARTS:
        Timed.part(owner, name)
    print("| set | epochs | training, s | parts, s | judging, s | choices, s | all / (training + parts) |")
    print("|---|---|---|---|---|---|---|")
    for folder in arguments.folders:
        for repeat in range(arguments.repeats):
            *seconds, count = measure(folder, arguments.rows, arguments.epochs, repeat)
            cells = " | ".join(f"{value:.1f}" for value in seconds)
            ratio = sum(seconds) / sum(seconds[:2])
            print(f"| {folder.name} | {count} | {cells} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
