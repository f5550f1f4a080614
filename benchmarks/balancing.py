"""Every balancer against single-task models and tuned fixed weights: test metrics, Delta-m, intervals over seeds.

    python benchmarks/balancing.py --census FOLDER --tasks 2 4 8     # census income, MMoE, AUC of each task
    python benchmarks/balancing.py --movielens FOLDER                # MovieLens-100K, retrieval and rating
    python benchmarks/balancing.py --census FOLDER --tasks 8 --plain --only RLW Exp3S    # against the plain sum alone

Delta-m is the mean over the tasks of the relative change to the single-task model of the same seed, in percent; a
positive value is better. Fixed weights are tuned by Delta-m on validation rows with the first seed, among the plain
sum, weights with one task three times as heavy as the others, and random weights. Other methods have their defaults.
Methods that learn from held-out rows get the validation rows. With `--plain` Delta-m is the change to the plain sum of
the same seed, and neither single-task models nor tuned weights are trained.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import census
import numpy as np
import pandas as pd
from paired import interval

from tfmtl import balancing, data, evaluation, keras, layers, models, tasks, training

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "examples"))
import movielens_data

Make = Callable[[], balancing.Balancer]
Scores = dict[str, float]

LOSS_WEIGHTING = ("EqualWeights", "Uncertainty", "DWA", "RLW", "GLS", "IMTLL", "FAMO", "STCH")
LEARNED = ("Exp3S", "ThompsonSampling", "AutoLambda", "MultiDDS")
AT_REPRESENTATION = (
    "MGDA", "PCGrad", "GradVac", "CAGrad", "IMTLG", "NashMTL", "FairGrad", "AlignedMTL", "UPGrad", "DualProj", "PELTR",
    "GradNorm", "GradCraft",
)  # fmt: skip
BY_VARIABLE = ("GradDrop", "MoCo", "DBMTL", "ExcessMTL")


def methods(names: Sequence[str]) -> dict[str, Make]:
    """Return a factory for every balancer, with its defaults."""
    made: dict[str, Make] = {
        name: getattr(balancing, name) for name in LOSS_WEIGHTING + LEARNED + AT_REPRESENTATION + BY_VARIABLE
    }
    made["CRMOGM(MGDA)"] = lambda: balancing.CRMOGM(balancing.MGDA())
    made["MetaBalance"] = lambda: balancing.MetaBalance(names[0])
    for name in ("PCGrad", "UPGrad"):
        made[f"{name} at shared"] = lambda name=name: getattr(balancing, name)(at="shared")
    return made


@dataclasses.dataclass
class Problem:
    """A data set, and the training on it.

    Attributes:
        title: heading of the printed table.
        names: the tasks.
        build: (balancer, tasks, seed) -> compiled model.
        train, validation, test: encoded training rows; raw tables.
        judged_by: metric by task; a lower RMSE is better, a higher value of every other metric.
        epochs, batch_size: arguments of `fit`.
    """

    title: str
    names: list[str]
    build: Callable[[balancing.Balancer, Sequence[str], int], models.MultiTaskModel]
    train: data.Batch
    validation: pd.DataFrame
    test: pd.DataFrame
    judged_by: Mapping[str, str]
    epochs: int
    batch_size: int

    def scores(
        self, balancer: balancing.Balancer, seed: int, names: Sequence[str], tables: Sequence[pd.DataFrame]
    ) -> list[Scores]:
        """Train a model and return the metric of each task for each of the tables."""
        model = self.build(balancer, names, seed)
        callbacks = self.callbacks(balancer)
        model.fit(self.train, batch_size=self.batch_size, epochs=self.epochs, verbose=0, callbacks=callbacks)
        reports = [evaluation.evaluate(model, table, tasks=list(names)) for table in tables]
        keras.backend.clear_session()
        return [{name: float(report[name, self.judged_by[name]]) for name in names} for report in reports]

    def callbacks(self, balancer: balancing.Balancer) -> list[keras.callbacks.Callback]:
        """Return the callbacks of a balancer that learns from held-out rows."""
        if isinstance(balancer, balancing.MetaWeights):
            return [training.MetaGradients(self.validation)]
        return [training.HeldOutLosses(self.validation)] if isinstance(balancer, balancing.ThompsonSampling) else []

    def delta(self, scores: Scores, single: Scores) -> float:
        """Return Delta-m in percent."""
        signs = {name: -1.0 if self.judged_by[name] == "rmse" else 1.0 for name in self.names}
        return float(np.mean([100 * signs[n] * (scores[n] - single[n]) / abs(single[n]) for n in self.names]))


def census_problem(folder: pathlib.Path, count: int, rows: int, epochs: int) -> Problem:
    """Return the first `count` questions of the census data; validation and test are halves of the official test."""
    train, test = census.load(folder)
    train, names = train.iloc[:rows], list(census.QUESTIONS)[:count]
    order = np.random.default_rng(0).permutation(len(test))
    halves = [test.iloc[order[: len(test) // 2]], test.iloc[order[len(test) // 2 :]]]
    preprocessor = data.Preprocessor.fit(census.schema(train, names), train)

    def build(balancer: balancing.Balancer, chosen: Sequence[str], seed: int) -> models.MultiTaskModel:
        trunk = layers.MMoE(num_experts=8, units=(16,), seed=seed)
        model = census.model(preprocessor, chosen, trunk, seed, balancer=balancer)
        model.compile(tfmtl.LazyAdam(3e-3))
        return model

    encoded = data.to_batch(train, preprocessor)
    title = f"census income, {count} tasks, {len(train):,} rows, {epochs} epochs"
    return Problem(title, names, build, encoded, *halves, dict.fromkeys(names, "auc"), epochs, 1024)


def movielens_problem(folder: pathlib.Path, epochs: int) -> Problem:
    """Return retrieval and rating on shuffled ratings: 80 % train, a tenth each validates and tests."""
    table = movielens_data.load(folder)[["user_id", "movie_id", "rating", "genres"]].assign(watched=1.0)
    table = table.iloc[np.random.default_rng(0).permutation(len(table))]
    cuts = [int(0.8 * len(table)), int(0.9 * len(table))]
    train, validation, test = table.iloc[: cuts[0]], table.iloc[cuts[0] : cuts[1]], table.iloc[cuts[1] :]
    schema = data.Schema(
        query=[data.Categorical("user_id")],
        candidate=[data.Categorical("movie_id"), data.MultiValued("genres", separator="|")],
        labels=[data.Label("watched"), data.Label("rating")],
    )
    preprocessor = data.Preprocessor.fit(schema, train)
    candidates = models.Candidates.from_frame(train, preprocessor)

    judged_by = {"watched": "ndcg@100", "rating": "rmse"}

    def build(balancer: balancing.Balancer, chosen: Sequence[str], seed: int) -> models.MultiTaskModel:
        everything = [
            tasks.Retrieval("watched"),
            tasks.Regression.from_statistics("rating", preprocessor.statistics),
        ]
        heads = [task for task in everything if task.name in chosen]
        network = models.build_network(preprocessor, heads, embedding_dim=32, tower_units=(64, 32), seed=seed)
        model = models.MultiTaskModel(network, heads, preprocessor, balancer, candidates, seed=seed)
        model.compile(tfmtl.LazyAdam(3e-3))
        return model

    title = f"MovieLens-100K, retrieval and rating, {epochs} epochs"
    encoded = data.to_batch(train, preprocessor)
    return Problem(title, ["watched", "rating"], build, encoded, validation, test, judged_by, epochs, 1024)


def tuned_weights(problem: Problem, single: Scores, trials: int) -> dict[str, float]:
    """Return the fixed weights with the best Delta-m on the validation rows."""
    rng, names = np.random.default_rng(0), problem.names
    candidates = [dict.fromkeys(names, 1.0)]
    candidates += [{**candidates[0], name: 3.0} for name in names]
    candidates += [
        dict(zip(names, np.exp(rng.uniform(-1.5, 1.5, len(names))).tolist(), strict=True)) for _ in range(trials)
    ]
    tables = [problem.validation]
    found = [problem.scores(balancing.FixedWeights(weights), 0, names, tables)[0] for weights in candidates]
    best = int(np.argmax([problem.delta(scores, single) for scores in found]))
    print(
        f"tuned weights, of {len(candidates)}: { {n: round(w, 2) for n, w in candidates[best].items()} }",
        flush=True,
    )
    return candidates[best]


def run(problem: Problem, seeds: int, trials: int, only: Sequence[str]) -> None:
    """Print one line per method, against single-task models."""
    print(f"\n## {problem.title}, {seeds} seeds\n", flush=True)
    alone: list[tuple[Scores, Scores]] = []
    both = [problem.validation, problem.test]
    for seed in range(seeds):
        parts = [problem.scores(balancing.FixedWeights(), seed, (name,), both) for name in problem.names]
        alone.append(tuple({n: s for part in parts for n, s in part[side].items()} for side in (0, 1)))  # type: ignore[arg-type]
    weights = tuned_weights(problem, alone[0][0], trials)
    entries: dict[str, Make] = {"plain sum": balancing.FixedWeights}
    entries["tuned fixed weights"] = lambda: balancing.FixedWeights(weights)
    heading(problem)
    show("single-task", [0.0] * seeds, [scores for _, scores in alone])
    compare(problem, entries | chosen(problem, only), [scores for _, scores in alone])


def run_plain(problem: Problem, seeds: int, only: Sequence[str]) -> None:
    """Print one line per method, against the plain sum."""
    print(f"\n## {problem.title}, {seeds} seeds, against the plain sum\n", flush=True)
    sums = [problem.scores(balancing.FixedWeights(), seed, problem.names, [problem.test])[0] for seed in range(seeds)]
    heading(problem)
    show("plain sum", [0.0] * seeds, sums)
    compare(problem, chosen(problem, only), sums)


def chosen(problem: Problem, only: Sequence[str]) -> dict[str, Make]:
    """Return the factories of some methods, of all if none is named."""
    return {name: make for name, make in methods(problem.names).items() if not only or name in only}


def heading(problem: Problem) -> None:
    """Print the head of a table."""
    print(f"\n| method | Delta-m % | {' | '.join(f'{n} {problem.judged_by[n]}' for n in problem.names)} |")
    print("|---" * (2 + len(problem.names)) + "|", flush=True)


def compare(problem: Problem, entries: Mapping[str, Make], references: Sequence[Scores]) -> None:
    """Train every method with the seeds of the references, and print its line."""
    for name, make in entries.items():
        found = [problem.scores(make(), s, problem.names, [problem.test])[0] for s in range(len(references))]
        show(name, [problem.delta(s, other) for s, other in zip(found, references, strict=True)], found)


def show(name: str, deltas: Sequence[float], scores: Sequence[Scores]) -> None:
    """Print a line: Delta-m with its interval, and the mean metric of each task."""
    cells = [f"{np.mean([s[task] for s in scores]):.4f}" for task in scores[0]]
    print(f"| {name} | {interval(deltas, '+.2f')} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Parse the arguments and run the benchmarks that they name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, help="folder with the census-income files")
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with MovieLens-100K")
    parser.add_argument("--tasks", type=int, nargs="*", default=[2, 4, 8], help="numbers of census tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=100_000, help="census rows to train on")
    parser.add_argument("--trials", type=int, default=6, help="random weights tried for the tuned fixed weights")
    parser.add_argument("--only", nargs="*", default=[], help="names of methods")
    parser.add_argument("--plain", action="store_true", help="compare with the plain sum instead of single tasks")
    arguments = parser.parse_args()
    problems: list[Any] = []
    if arguments.census:
        problems += [
            lambda count=count: census_problem(arguments.census, count, arguments.rows, arguments.epochs)
            for count in arguments.tasks
        ]
    if arguments.movielens:
        problems.append(lambda: movielens_problem(arguments.movielens, 4 * arguments.epochs))
    for make in problems:
        if arguments.plain:
            run_plain(make(), arguments.seeds, arguments.only)
        else:
            run(make(), arguments.seeds, arguments.trials, arguments.only)


if __name__ == "__main__":
    main()
