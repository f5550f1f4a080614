"""Schedules of tasks at a share of the time of training everything always, on joint models of retrieval and ranking.

    PYTHONPATH=.:examples python benchmarks/schedules.py [--movielens FOLDER] [--grocery] [--share 0.5] [--seeds 3]

Plans use the measured seconds of a step and the validation losses of a probe, a tenth of the steps. All schedules have
the same share of the time of everything always, by these seconds; the learning rate falls along a cosine over the steps
of each. For each task: the share of the margin of everything always over trivial predictions (popularity, the mean)
that a schedule keeps on the test rows, with 95 % intervals over the seeds; and its measured time beside the expected.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import grocery_models
import movielens_data
import numpy as np
import pandas as pd
from paired import interval

from tfmtl import allocation, data, evaluation, keras, layers, models, tasks
from tfmtl.allocation import Schedule

PHASES, PROBES, PROBE_SHARE = 20, 8, 0.1


class Problem(NamedTuple):
    """Tables, a model and its metrics.

    Attributes:
        build: (steps of the cosine, seed) -> compiled model.
        train, validation, test: encoded training rows; tables.
        seen: rows to leave out of the lists, or None.
        metrics: metric by task; a smaller RMSE is better, a larger value of the others.
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

    def run(self, schedule: Schedule, seed: int) -> tuple[np.ndarray, float, models.MultiTaskModel]:
        """Train by a schedule; return the test metrics, the seconds after the first call, and the model."""
        model, clock = self.build(schedule.steps, seed), _Clock()
        options = {"batch_size": self.batch_size, "steps_per_epoch": schedule.steps, "verbose": 0}
        model.fit(self.train, callbacks=[allocation.ScheduledTraining(schedule), clock], **options)
        return self.values(evaluation.evaluate(model, self.test, seen=self.seen)), clock.seconds, model


class _Clock(keras.callbacks.Callback):
    """Measures the seconds after the first call of up to 32 steps, which traces."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep the time of the first call and of the last one."""
        self.last = time.perf_counter()
        if batch < 32:
            self.first, self.steps = self.last, batch + 1

    @property
    def seconds(self) -> float:
        """The seconds from the end of the first call."""
        return self.last - self.first


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


def probe(problem: Problem) -> tuple[allocation.StepCosts, dict[str, allocation.LearningCurve]]:
    """Return the costs of a step and the learning curves of the tasks."""
    model = problem.build(problem.steps, 1000)
    costs = allocation.measure_step_costs(model, problem.train, batch_size=problem.batch_size)
    each = max(int(PROBE_SHARE * problem.steps / PROBES), 1)
    model = problem.build(problem.steps, 1000)
    history = model.fit(problem.train, batch_size=problem.batch_size, epochs=PROBES, steps_per_epoch=each,
                        validation_data=problem.validation, verbose=0).history  # fmt: skip
    return costs, allocation.fit_learning_curves(history, each, list(problem.metrics))


def schedules(problem: Problem, costs: allocation.StepCosts, curves: Any, share: float) -> dict[str, Schedule]:
    """Return the schedules to compare, each at the same expected time."""
    names, length = list(problem.metrics), max(problem.steps // PHASES, 1)
    budget = share * problem.steps * costs.seconds(names)
    mean_alone = costs.base + np.mean([costs.by_task[name] for name in names])
    half = costs.base + 0.5 * sum(costs.by_task.values())
    plans = {
        f"plan, {solver}": allocation.plan_schedule(
            costs, curves, problem.steps, share=share, num_phases=PHASES, solver=solver
        )
        for solver in ("exact", "greedy")
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
    print("gain within the steps: " + ", ".join(f"{n} tau {c.tau:.0f} gain {c.gain:.4f}" for n, c in curves.items()))
    compared = schedules(problem, costs, curves, share)
    print(f"\n```text\n{compared['plan, exact']}\n```\n")
    names = list(problem.metrics)
    print(f"| schedule | steps | {' | '.join(names)} | least share | measured / expected time |")
    print("|---" * (len(names) + 4) + "|")
    always = Schedule.everything(names, problem.steps)
    whole, trivial = [], []
    for seed in range(seeds):
        values, _, model = problem.run(always, seed)
        whole.append(values)
        trivial.append(
            problem.values(evaluation.trivial_baseline(model, problem.known, problem.test, seen=problem.seen))
        )
    print(
        f"| everything always | {always.steps} | {' | '.join(interval(column) for column in np.transpose(whole))} | | |"
    )
    print(f"| trivial | | {' | '.join(f'{value:.4f}' for value in trivial[0])} | | |", flush=True)
    for name, schedule in compared.items():
        kept, ratios = [], []
        for seed in range(seeds):
            values, seconds, _ = problem.run(schedule, seed)
            kept.append((values - trivial[seed]) / (whole[seed] - trivial[seed]))
            ratios.append(seconds / sum(costs.of(_after(schedule, 32))))
        cells = [*(interval(column, ".3f") for column in np.transpose(kept)), interval(np.min(kept, axis=1), ".3f")]
        print(f"| {name} | {schedule.steps} | {' | '.join(cells)} | {np.mean(ratios):.2f} |", flush=True)
    print()


def _after(schedule: Schedule, steps: int) -> Schedule:
    """Return a schedule without its first steps."""
    left, phases = steps, []
    for phase in schedule.phases:
        skipped = min(left, phase.steps)
        left -= skipped
        phases += [allocation.Phase(phase.steps - skipped, phase.tasks)] if phase.steps > skipped else []
    return Schedule(schedule.tasks, phases)


def main() -> None:
    """Parse the arguments and print a table for each problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with MovieLens-100K or MovieLens-1M")
    parser.add_argument("--grocery", action="store_true")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=40_000, help="purchases of the grocery data")
    options = parser.parse_args()
    if options.movielens:
        report("MovieLens", movielens(options.movielens, options.epochs), options.share, options.seeds)
    if options.grocery:
        report("Grocery", grocery(options.rows, options.epochs), options.share, options.seeds)


if __name__ == "__main__":
    main()
