"""Which tasks of census income share a network: affinities, their cost, and the AUC of the groups that they give.

    python benchmarks/task_groups.py --census FOLDER [--seeds 3] [--rows 60000] [--epochs 6]

Eight questions are the tasks. First the affinities of one network by a step ahead and to first order: how alike they
order the pairs of tasks (Spearman), beside the agreement of two seeds, and the time of a step in which every tenth is
measured, in turns with plain steps. Then the mean test AUC of one network, of groups by affinity in 2 to 4 networks, of
random groups in 3, and of a network for each task, with differences from one network that are paired by seed.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Sequence

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import census
import numpy as np
from paired import interval, spread
from scipy.stats import spearmanr

from tfmtl import allocation, data, evaluation, keras, layers, models, tasks
from tfmtl.allocation import TaskAffinity

NAMES = list(census.QUESTIONS)
BATCH_SIZE = 1024
FORMS = {
    "a step ahead": {"form": "lookahead"},
    "first order, shared variables": {"at": "shared"},
    "first order, representation": {},
}
NETWORKS = (2, 3, 4)


class Census:
    """The encoded tables."""

    def __init__(self, folder: pathlib.Path, rows: int) -> None:
        train, self.test = census.load(folder)
        train = train.sample(rows, random_state=0) if rows < len(train) else train
        self.preprocessor = data.Preprocessor.fit(census.schema(train, NAMES), train)
        self.train, self.rows = data.to_batch(train, self.preprocessor), len(train)

    def model(self, isolate: Sequence[Sequence[str]], seed: int, epochs: int) -> models.MultiTaskModel:
        """Return a compiled model; each isolated group has tables, towers and a trunk of its own."""
        heads = [tasks.BinaryClassification(name, units=(8,)) for name in NAMES]
        network = models.build_network(
            self.preprocessor, heads, layers.SharedBottom(units=[64], seed=seed), embedding_dim=4,
            regularization=models.Regularization(unknown_rate=0.0), isolate=isolate, seed=seed,
        )  # fmt: skip
        model = models.MultiTaskModel(network, heads, self.preprocessor, seed=seed)
        steps = epochs * -(-self.rows // BATCH_SIZE)
        model.compile(tfmtl.LazyAdam(keras.optimizers.schedules.CosineDecay(3e-3, steps, alpha=0.01)))
        return model

    def fit(self, model: models.MultiTaskModel, epochs: int, *callbacks: keras.callbacks.Callback) -> float:
        """Train and return the seconds."""
        start = time.perf_counter()
        model.fit(self.train, batch_size=BATCH_SIZE, epochs=epochs, callbacks=list(callbacks), verbose=0)
        return time.perf_counter() - start


def affinities(problem: Census, epochs: int) -> allocation.Affinity:
    """Print the agreement and the cost of the forms of affinity; return that by a step ahead."""
    found, off = {}, ~np.eye(len(NAMES), dtype=bool)
    for name, arguments in FORMS.items():
        monitors = [TaskAffinity(2, **arguments) for _ in range(2)]
        for seed, monitor in enumerate(monitors):
            problem.fit(problem.model([], seed, epochs), 3, monitor)
        found[name] = [monitor.affinity for monitor in monitors]
    ahead = found["a step ahead"][0]
    print("| affinity | Spearman with a step ahead, same seed | of two seeds | time of a step, every tenth measured |")
    print("|---|---|---|---|")
    for name, (first, second) in found.items():
        alike = spearmanr(first.values[off], ahead.values[off])[0]
        again = spearmanr(first.values[off], second.values[off])[0]
        print(f"| {name} | {alike:.3f} | {again:.3f} | {cost(problem, FORMS[name], epochs)} |", flush=True)
    print()
    return ahead


def cost(problem: Census, arguments: dict, epochs: int, rounds: int = 5) -> str:
    """Return the time of three epochs with measurements relative to three without, in turns, after one to trace."""
    plain, watched = (problem.model([], 0, epochs) for _ in range(2))
    monitor = TaskAffinity(10, **arguments)

    def seconds(model: models.MultiTaskModel, *callbacks: keras.callbacks.Callback) -> float:
        clock = _Clock()
        problem.fit(model, 4, *callbacks, clock)
        return clock.ends[-1] - clock.ends[0]

    return spread(seconds(watched, monitor) / seconds(plain) for _ in range(rounds))


class _Clock(keras.callbacks.Callback):
    """Keeps the time of the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the time."""
        self.ends.append(time.perf_counter())


def groups(problem: Census, affinity: allocation.Affinity, seeds: int, epochs: int) -> None:
    """Print the mean AUC of the divisions into networks."""
    rng = np.random.default_rng(0)
    divisions = {"one network": [], "a network for each task": [[name] for name in NAMES]}
    for number in NETWORKS:
        chosen = allocation.group_tasks(affinity, number)
        print(f"{number} networks:\n\n```text\n{chosen}\n```\n")
        divisions[f"{number} networks by affinity"] = chosen.isolate
    for draw in range(2):
        parts = np.array_split(rng.permutation(NAMES), 3)
        divisions[f"3 random networks, draw {draw}"] = [list(part) for part in parts]
    print("| networks | mean AUC | against one network | seconds |\n|---|---|---|---|")
    reference: np.ndarray | None = None
    for name, isolate in divisions.items():
        runs = []
        for seed in range(seeds):
            model = problem.model(isolate, seed, epochs)
            seconds = problem.fit(model, epochs)
            report = evaluation.evaluate(model, problem.test)
            runs.append([np.mean([report[task, "auc"] for task in NAMES]), seconds])
            keras.backend.clear_session()
        means, seconds = np.array(runs).T
        reference = means if reference is None else reference
        print(
            f"| {name} | {interval(means)} | {interval(means - reference, '+.4f')} | {seconds.mean():.0f} |", flush=True
        )


def main() -> None:
    """Parse the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, required=True, help="folder with census income")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    problem = Census(options.census, options.rows)
    groups(problem, affinities(problem, options.epochs), options.seeds, options.epochs)


if __name__ == "__main__":
    main()
