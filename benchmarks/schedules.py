"""Schedules of tasks at a share of the time of training everything always, on joint models of retrieval and ranking.

    PYTHONPATH=.:examples python benchmarks/schedules.py [--movielens FOLDER] [--grocery] [--seeds 3] [--simulated 120]

Plans use the measured seconds of a step and the validation measures of a probe, a tenth of the steps: losses, and for
the plan by ranks NDCG@100 of retrieval above that of popularity. All schedules have the same share of the time of
everything always, by these seconds; the learning rate falls along a cosine over the steps of each. For each task: the
share of the margin of everything always over trivial predictions (popularity, the mean) that a schedule keeps on the
test rows, with 95 % intervals over the seeds; and its measured time beside the expected. All times are CPU times of one
thread; the time of the probe is not in them.

Without data, `--simulated` plans trainings of four tasks with known curves: a hyperbola, a power, an exponential, and a
plateau after a first small gain.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")  # CPU time is that of the work alone

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import grocery_models
import movielens_data
import numpy as np
import pandas as pd
from paired import interval

from tfmtl import allocation, data, evaluation, keras, layers, models, tasks
from tfmtl.allocation import Schedule

PHASES, PROBES, PROBE_SHARE, TURN = 20, 8, 0.1, 16


class Problem(NamedTuple):
    """Tables, a model and its metrics.

    Attributes:
        build: (steps of the cosine, seed) -> compiled model.
        train, validation, test: encoded training rows; tables.
        seen: rows to leave out of the lists, or None.
        metrics: metric by task, retrieval first; a smaller RMSE is better, a larger value of the others.
        known: table of the trivial predictions.
        steps, batch_size: steps of everything always, and rows of a step.
    """

    build: Callable[[int, int], models.MultiTaskModel]
    train: data.Batch
    validation: pd.DataFrame
    test: pd.DataFrame
    seen: pd.DataFrame | None
    metrics: dict[str, str]
    known: pd.DataFrame
    steps: int
    batch_size: int

    def values(self, report: pd.Series) -> np.ndarray:
        """Return the metric of each task, errors below 0."""
        return np.array(
            [(-1) ** (metric == "rmse") * float(report[task, metric]) for task, metric in self.metrics.items()]
        )

    def run(self, schedule: Schedule, seed: int) -> tuple[np.ndarray, models.MultiTaskModel]:
        """Train by a schedule; return the test metrics and the model."""
        model, _ = self.trained(schedule, seed)
        return self.values(evaluation.evaluate(model, self.test, seen=self.seen)), model

    def trained(self, schedule: Schedule, seed: int) -> tuple[models.MultiTaskModel, np.ndarray]:
        """Train by a schedule; return the model and the CPU seconds of a step [steps], equal within a phase."""
        model, callback = self.build(schedule.steps, seed), allocation.ScheduledTraining(schedule, time.process_time)
        options = {"batch_size": self.batch_size, "steps_per_epoch": schedule.steps, "verbose": 0}
        model.fit(self.train, callbacks=[callback], **options)
        lengths = [phase.steps for phase in schedule.phases]
        return model, np.repeat(np.divide(callback.seconds, lengths), lengths)

    def time_ratio(self, schedule: Schedule) -> float:
        """Return the measured CPU time of a schedule relative to that by the costs of a step, in one training.

        Every fourth of its steps, in pieces between turns of all tasks and of each alone, which give the costs: so a
        load that slows all of them does not change the ratio.
        """
        names = list(self.metrics)
        turn = [tasks for tasks in [tuple(names), *((name,) for name in names)] for _ in range(TURN)]
        sets = [phase.tasks for phase in schedule.phases for _ in range(phase.steps)][::4]
        pieces = [sets[i : i + 2 * TURN] for i in range(0, len(sets), 2 * TURN)]
        parts = [turn, turn, *(part for piece in pieces for part in (piece, turn))]  # the first turns trace
        steps = [tasks for part in parts for tasks in part]
        measured = np.split(
            self.trained(Schedule(names, [allocation.Phase(1, tasks) for tasks in steps]), 0)[1],
            np.cumsum([len(part) for part in parts])[:-1],
        )
        together, *alone = np.mean([measured[1], *measured[3::2]], axis=0).reshape(-1, TURN).mean(axis=1)
        costs = allocation.StepCosts.from_turns(together, dict(zip(names, alone, strict=True)))
        return float(np.concatenate(measured[2::2]).sum() / sum(costs.seconds(tasks) for tasks in sets))


def movielens(folder: pathlib.Path, epochs: int) -> Problem:
    """Return watched, liked and rating: 80 % of the shuffled ratings train, a tenth each validates and tests."""
    table = movielens_data.load(folder)[["user_id", "movie_id", "rating", "genres"]]
    table = table.assign(watched=1.0, liked=(table["rating"] >= 4).astype("float32"))
    table = table.iloc[np.random.default_rng(0).permutation(len(table))]
    cuts = [int(0.8 * len(table)), int(0.9 * len(table))]
    train, validation, test = table.iloc[: cuts[0]], table.iloc[cuts[0] : cuts[1]], table.iloc[cuts[1] :]
    schema = data.Schema(
        query=[data.Categorical("user_id")],
        candidate=[data.Categorical("movie_id"), data.MultiValued("genres", separator="|")],
        labels=[data.Label("watched"), data.Label("liked"), data.Label("rating")],
    )
    preprocessor = data.Preprocessor.fit(schema, train)

    def build(steps: int, seed: int) -> models.MultiTaskModel:
        heads = [
            tasks.Retrieval("watched", full_softmax=True),
            tasks.BinaryClassification("liked"),
            tasks.Regression.from_statistics("rating", preprocessor.statistics),
        ]
        trunk = layers.MMoE(num_experts=4, units=(64, 32), seed=seed)
        network = models.build_network(preprocessor, heads, trunk, seed=seed)
        model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
        model.compile(tfmtl.LazyAdam(keras.optimizers.schedules.CosineDecay(3e-3, steps)))
        return model

    metrics = {"watched": "ndcg@100", "liked": "auc", "rating": "rmse"}
    steps = epochs * -(-len(train) // 1024)
    return Problem(build, data.to_batch(train, preprocessor), validation, test, train, metrics, train, steps, 1024)


def grocery(rows: int, epochs: int) -> Problem:
    """Return the six tasks of the grocery example with fewer purchases."""
    folder = pathlib.Path(tempfile.mkdtemp())
    shop = grocery_models.Workshop(False, folder, folder, purchase_rows=rows)
    recipe = grocery_models.Recipe(
        embedding_dim={"": 32, "product_id": 64},
        tower_units=(128, 64),
        trunk=layers.MMoE(num_experts=4, units=(64, 32)),
    )

    size = grocery_models.BATCH_SIZE

    def build(steps: int, seed: int) -> models.MultiTaskModel:
        return shop.model(recipe, 1, steps * size, seed=seed)

    metrics = {
        "purchase": "ndcg@100",
        "spend": "rmse",
        "coupon": "auc",
        **dict.fromkeys(grocery_models.PROFILE, "macro_auc"),
    }
    steps = epochs * -(-shop.rows // size)
    test = grocery_models.bought(shop.data.test)
    validation = grocery_models.bought(shop.data.validation)
    return Problem(
        build, shop.train, validation, test, None, metrics, shop.data.train, steps, grocery_models.BATCH_SIZE
    )


def probe(problem: Problem) -> tuple[allocation.StepCosts, dict[str, dict[str, allocation.LearningCurve]]]:
    """Return the costs of a step, and the learning curves of the tasks by losses and by ranks of retrieval."""
    model = problem.build(problem.steps, 1000)
    size = problem.batch_size
    costs = allocation.measure_step_costs(model, problem.train, batch_size=size, clock=time.process_time)
    each = max(int(PROBE_SHARE * problem.steps / PROBES), 1)
    model = problem.build(problem.steps, 1000)
    ranks = evaluation.RetrievalEvaluation(problem.validation, problem.seen)
    history = model.fit(problem.train, batch_size=size, epochs=PROBES, steps_per_epoch=each, callbacks=[ranks],
                        validation_data=problem.validation, verbose=0).history  # fmt: skip
    names, (retrieval, metric) = list(problem.metrics), next(iter(problem.metrics.items()))
    trivial = evaluation.trivial_baseline(model, problem.known, problem.validation, seen=problem.seen)
    key, popular = f"val_{retrieval}_{metric}", float(trivial[retrieval, metric])
    print(f"{key} of the probe: {np.round(history[key], 4).tolist()}; of popularity: {popular:.4f}\n")
    measures = {retrieval: (key, "max")}
    return costs, {
        "losses": allocation.fit_learning_curves(history, each, names),
        "ranks": allocation.fit_learning_curves(history, each, names, measures, {retrieval: popular}),
    }


def schedules(problem: Problem, costs: allocation.StepCosts, curves: Any, share: float) -> dict[str, Schedule]:
    """Return the schedules to compare, each at the same expected time."""
    names, length = list(problem.metrics), max(problem.steps // PHASES, 1)
    budget = share * problem.steps * costs.seconds(names)
    mean_alone = costs.base + np.mean([costs.by_task[name] for name in names])
    half = costs.base + 0.5 * sum(costs.by_task.values())
    plans = {
        f"plan by {kind}": allocation.plan_schedule(costs, found, problem.steps, share=share, num_phases=PHASES)
        for kind, found in curves.items()
    }
    return {
        "everything, fewer steps": Schedule.everything(names, int(share * problem.steps)),
        **plans,
        "round robin": Schedule.round_robin(names, int(budget / mean_alone), length),
        "random half": Schedule.random(names, int(budget / half), length, seed=0),
    }


def report(title: str, problem: Problem, share: float, seeds: int) -> None:
    """Print the costs, the plan and a table of all schedules."""
    costs, curves = probe(problem)
    milliseconds = {name: round(1e3 * value, 2) for name, value in costs.by_task.items()}
    print(f"{title}: {problem.steps} steps; ms of a step: base {1e3 * costs.base:.2f}, {milliseconds}\n")
    for kind, found in curves.items():
        taus = [f"{name} {curve.tau:.0f}, at most {curve.upper_tau:.0f}" for name, curve in found.items()]
        print(f"tau by {kind}: {'; '.join(taus)}\n")
    compared = schedules(problem, costs, curves, share)
    for kind in curves:
        print(f"```text\nplan by {kind}\n{compared[f'plan by {kind}']}\n```\n")
    names = list(problem.metrics)
    print(f"| schedule | steps | {' | '.join(names)} | least share | measured / expected time |")
    print("|---" * (len(names) + 4) + "|")
    always = Schedule.everything(names, problem.steps)
    whole, trivial = [], []
    for seed in range(seeds):
        values, model = problem.run(always, seed)
        whole.append(values)
        trivial.append(
            problem.values(evaluation.trivial_baseline(model, problem.known, problem.test, seen=problem.seen))
        )
    print(
        f"| everything always | {always.steps} | {' | '.join(interval(column) for column in np.transpose(whole))} | | |"
    )
    print(f"| trivial | | {' | '.join(f'{value:.4f}' for value in trivial[0])} | | |", flush=True)
    for name, schedule in compared.items():
        same = next(other for other, earlier in compared.items() if earlier.phases == schedule.phases)
        if same != name:
            print(f"| {name} | {schedule.steps} | {' | ' * len(names)} | as {same} |", flush=True)
            continue
        kept = []
        for seed in range(seeds):
            values, _ = problem.run(schedule, seed)
            kept.append((values - trivial[seed]) / (whole[seed] - trivial[seed]))
        cells = [*(interval(column, ".3f") for column in np.transpose(kept)), interval(np.min(kept, axis=1), ".3f")]
        print(f"| {name} | {schedule.steps} | {' | '.join(cells)} | {problem.time_ratio(schedule):.2f} |", flush=True)
    print()


def simulate(number: int) -> None:
    """Print by how much plans beat everything with fewer steps, for random curves, costs and noise of the probe."""
    print("| curves | by | mean share | worst | least share | worst |\n|---|---|---|---|---|---|")
    for kinds in (["hyperbola", "power", "exponential"], ["hyperbola", "power", "exponential", "late"]):
        found: dict[str, list[tuple[float, float]]] = {"best tau": [], "upper tau": [], "upper tau, trivial": []}
        for seed in range(number):
            for name, gains in _simulated(kinds, np.random.default_rng(seed)).items():
                found[name].append(gains)
        for name, gains in found.items():
            mean, least = np.transpose(gains)
            cells = [f"{mean.mean():+.3f}", f"{mean.min():+.3f}", f"{least.mean():+.3f}", f"{least.min():+.3f}"]
            print(f"| {', '.join(kinds)} | {name} | {' | '.join(cells)} |", flush=True)


def _simulated(kinds: list[str], rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Return by how much the mean and the least share of a plan exceed those of everything, at half of the time."""
    steps, names = 1000, ["a", "b", "c", "d"]
    drawn = dict(zip(names, rng.choice(kinds, len(names)), strict=True))
    curves = {name: _true_curve(kind, rng) for name, kind in drawn.items()}
    costs = allocation.StepCosts(rng.exponential(), {name: rng.exponential() for name in names})
    each = int(PROBE_SHARE * steps / PROBES)
    probed = each * np.arange(1, PROBES + 1)
    history = {f"val_{n}_loss": list(curve(probed) + rng.normal(0, 0.01, PROBES)) for n, curve in curves.items()}
    trivial = {name: 0.82 for name, kind in drawn.items() if kind == "late"}
    upper = allocation.fit_learning_curves(history, each, names)
    fitted = {
        "best tau": {name: dataclasses.replace(curve, upper_tau=None) for name, curve in upper.items()},
        "upper tau": upper,
        "upper tau, trivial": allocation.fit_learning_curves(history, each, names, trivial=trivial),
    }

    def shares(given: Schedule) -> np.ndarray:
        ends = {name: curve(np.array([0, given.steps_by_task[name], steps])) for name, curve in curves.items()}
        return np.array([(first - reached) / (first - last) for first, reached, last in ends.values()])

    base, found = shares(Schedule.everything(names, steps // 2)), {}
    for name, given in fitted.items():
        plan = shares(allocation.plan_schedule(costs, given, steps, share=0.5))
        found[name] = (float(plan.mean() - base.mean()), float(plan.min() - base.min()))
    return found


def _true_curve(kind: str, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return a loss by the number of steps, which falls from 1 towards 0."""
    tau, power, delay = 10 ** rng.uniform(0.7, 3), rng.uniform(0.3, 1.5), rng.uniform(50, 300)
    if kind == "power":
        return lambda n: (1 + n / tau) ** -power
    if kind == "exponential":
        return lambda n: np.exp(-n / tau)
    if kind == "late":
        return lambda n: 0.2 * np.exp(-n / 10) + 0.8 * tau / (np.maximum(n - delay, 0) + tau)
    return lambda n: tau / (n + tau)


def main() -> None:
    """Parse the arguments and print a table for each problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with MovieLens-100K or MovieLens-1M")
    parser.add_argument("--grocery", action="store_true")
    parser.add_argument("--simulated", type=int, default=0, help="number of simulated trainings")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=40_000, help="purchases of the grocery data")
    options = parser.parse_args()
    if options.simulated:
        simulate(options.simulated)
    if options.movielens:
        report("MovieLens", movielens(options.movielens, options.epochs), options.share, options.seeds)
    if options.grocery:
        report("Grocery", grocery(options.rows, options.epochs), options.share, options.seeds)


if __name__ == "__main__":
    main()
