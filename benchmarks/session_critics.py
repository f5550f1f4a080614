"""Weights of rows by session critics (RMTL) beside controls: shuffled, constant, without a session, and focal loss.

    PYTHONPATH=.:examples python benchmarks/session_critics.py FOLDER/ml_100k FOLDER/tmall [--seeds 3] [--strength 1]

Two binary tasks of each set. The last fifth of the rows of each user tests, and the other rows train. MovieLens-100K: a
rating of 4 or more, and one of 5; a session is the ratings of a user without a gap of half an hour. Tmall: whether an
event is a purchase, and whether it puts an item in the cart; a session is a user.

Critics on held-out errors: a model of one half of the sessions, critics of its errors on the other half, and weights
for that other half, in both directions. Critics on training errors, as in the paper: a model of all rows, critics and
weights for the same rows. Every variant then trains a model from the same initial values on the same rows in the same
order. "Constant" has the mean weights of the tasks instead of the weights of the rows; "rows and tasks" has both, the
weights of the paper. Focal loss has the mean weight 1 on the held-out predictions. AUC and log loss are those of the
test rows; differences from the base are paired by seed. R2 is that of the critics for the discounted losses of the test
rows.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import movielens_data
import numpy as np
import paired
import pandas as pd
import tensorflow as tf

from tfmtl import balancing, data, layers, models, tasks
from tfmtl.allocation import SessionCritics
from tfmtl.evaluation import binary_metrics

BASE, FOCAL, DISCOUNT = "base", 2.0, 0.9


class Problem(NamedTuple):
    """Training and test rows with the columns `user_id`, `session` and `timestamp`, and the schema."""

    train: pd.DataFrame
    test: pd.DataFrame
    schema: data.Schema


def ml_100k(folder: pathlib.Path, rows: int) -> Problem:
    """Return liked and loved films."""
    table = movielens_data.load(folder)[["user_id", "movie_id", "rating", "genres", "timestamp"]]
    table = table.assign(**{name: (table["rating"] >= k).astype("float32") for name, k in (("liked", 4), ("loved", 5))})
    candidate = [data.Categorical("movie_id"), data.MultiValued("genres", separator="|")]
    return divided(table, candidate, ("liked", "loved"), gap=pd.Timedelta(minutes=30).total_seconds(), rows=rows)


def tmall(folder: pathlib.Path, rows: int) -> Problem:
    """Return purchases and items in the cart among the events of users."""
    table = pd.read_parquet(folder / "train.parquet")
    table = table.assign(user_id=table["user_id"].astype(str), item_id=table["item_id"].astype(str))
    table = table.assign(**{name: (table["behavior"] == name).astype("float32") for name in ("buy", "cart")})
    return divided(table, [data.Categorical("item_id")], ("buy", "cart"), gap=np.inf, rows=rows)


def divided(
    table: pd.DataFrame, candidate: Sequence[data.Feature], labels: Sequence[str], gap: float, rows: int
) -> Problem:
    """Return the rows of some users with sessions, the last fifth of each user as the test rows."""
    users = table["user_id"].drop_duplicates().sample(frac=1.0, random_state=0)
    counts = table["user_id"].value_counts()[users].cumsum()
    table = table[table["user_id"].isin(counts.index[counts <= rows])]
    seconds = pd.to_datetime(table["timestamp"], unit="s").astype("int64") // 10**9
    table = table.assign(timestamp=seconds).sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
    by_user = table.groupby("user_id")["timestamp"]
    first = by_user.diff().isna() | (by_user.diff() > gap)
    position, size = by_user.cumcount(), by_user.transform("size")
    tests = position >= 0.8 * size
    table = table.assign(session=first.cumsum())
    schema = data.Schema(
        query=[data.Categorical("user_id")], candidate=candidate, labels=[data.Label(name) for name in labels]
    )
    return Problem(table[~tests].reset_index(drop=True), table[tests].reset_index(drop=True), schema)


class Run:
    """The trainings of one seed."""

    def __init__(self, problem: Problem, seed: int, epochs: int, strength: float) -> None:
        self.problem, self.seed, self.epochs, self.strength = problem, seed, epochs, strength
        self.preprocessor = data.Preprocessor.fit(problem.schema, problem.train)
        self.names = list(problem.schema.tasks)
        sessions = problem.train["session"]
        chosen = np.random.default_rng(seed).permutation(sessions.unique())
        in_first = sessions.isin(chosen[: len(chosen) // 2])
        self.halves = [problem.train[in_first], problem.train[~in_first]]
        self.rows = data.to_batch(pd.concat(self.halves), self.preprocessor)

    def fit(self, rows: Any, weights: Mapping[str, float] | None = None, **focal: Any) -> models.MultiTaskModel:
        """Train a model on encoded rows, with fixed weights of the tasks or a focal loss by task."""
        heads = [tasks.BinaryClassification(name, **focal.get(name, {})) for name in self.names]
        trunk = layers.MMoE(num_experts=4, units=(64, 32), seed=self.seed)
        network = models.build_network(self.preprocessor, heads, trunk, seed=self.seed)
        balancer = None if weights is None else balancing.FixedWeights(weights)
        model = models.MultiTaskModel(network, heads, self.preprocessor, balancer, seed=self.seed)
        model.compile(tfmtl.LazyAdam(3e-3))
        model.fit(rows, batch_size=1024, epochs=self.epochs, verbose=0)
        return model

    def critics(self, model: models.MultiTaskModel, table: pd.DataFrame, discount: float) -> SessionCritics:
        """Return critics of a model's errors on a table."""
        made = SessionCritics(model, session="session", time="timestamp", discount=discount, seed=self.seed)
        return made.fit(table, epochs=5)

    def quality(self, model: models.MultiTaskModel) -> list[float]:
        """Return AUC and log loss of each task on the test rows."""
        found, test = model.predict(self.problem.test, verbose=0), self.problem.test
        metrics = [binary_metrics(test[name], found[name]) for name in self.names]
        return [each[metric] for metric in ("auc", "log_loss") for each in metrics]

    def measure(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Return the quality of each variant, and the R2 of the critics of each task."""
        probes = [self.fit(data.to_batch(half, self.preprocessor)) for half in self.halves]
        pairs = list(zip(probes, reversed(self.halves), strict=True))[::-1]  # in the order of the halves
        base = self.fit(self.rows)
        made = {
            "critics": [self.critics(*pair, DISCOUNT) for pair in pairs],
            "critics without the session, discount 0": [self.critics(*pair, 0.0) for pair in pairs],
            "critics on training errors": [self.critics(base, self.problem.train, DISCOUNT)],
        }
        found = {BASE: self.quality(base)}
        for name, critics in made.items():
            found[name] = self.quality(self.fit(self.weighed(critics)))
        critics = made["critics"]
        found["critics, shuffled"] = self.quality(self.fit(self.weighed(critics, shuffle_seed=self.seed)))
        values = [each.values(half) for each, half in zip(critics, self.halves, strict=True)]
        joined = {name: np.concatenate([each[name] for each in values]) for name in self.names}
        mean = {name: 1 + self.strength * float(joined[name].mean()) for name in self.names}
        found["constant: weights of tasks"] = self.quality(self.fit(self.rows, mean))
        found["critics, rows and tasks"] = self.quality(self.fit(self.weighed(critics), mean))
        found[f"focal loss, exponent {FOCAL:g}"] = self.quality(self.fit(self.rows, **self.focal(pairs)))
        scores = {name: [each.score(self.problem.test) for each in group] for name, group in made.items()}
        r2 = {k: [float(np.mean([s[name] for s in group])) for name in self.names] for k, group in scores.items()}
        return found, r2

    def weighed(self, critics: Sequence[SessionCritics], **options: Any) -> data.Batch:
        """Return the training rows with the weights of one critic, or of one for each half."""
        parts = self.halves if len(critics) > 1 else [pd.concat(self.halves)]
        batches = [each.weigh(part, self.strength, **options) for each, part in zip(critics, parts, strict=True)]
        return tf.nest.map_structure(lambda *columns: tf.concat(columns, axis=0), *batches)

    def focal(self, pairs: Sequence[tuple[models.MultiTaskModel, pd.DataFrame]]) -> dict[str, Any]:
        """Return the arguments of a focal loss with the mean weight 1 on held-out predictions."""
        right: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        for model, table in pairs:
            served = model.predict(table, verbose=0)
            for name in self.names:
                right[name].append(np.where(table[name] > 0, served[name], 1 - served[name]))
        mean = {name: float(np.mean((1 - np.concatenate(parts)) ** FOCAL)) for name, parts in right.items()}
        return {name: {"focal_gamma": FOCAL, "class_weights": (1 / m, 1 / m)} for name, m in mean.items()}


def main() -> None:
    """Parse the arguments, measure and print the tables of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--strength", type=float, default=1.0)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        problem = {"ml_100k": ml_100k, "tmall": tmall}[folder.name](folder, arguments.rows)
        per_session = len(problem.train) / problem.train["session"].nunique()
        print(f"{folder.name}: {len(problem.train)} training rows, {per_session:.1f} per session", flush=True)
        seeds = range(arguments.seeds)
        runs = [Run(problem, seed, arguments.epochs, arguments.strength).measure() for seed in seeds]
        names = list(problem.schema.tasks)
        columns = [f"{metric} of {name}" for metric in ("AUC", "log loss") for name in names]
        print(f"\n| variant | {' | '.join(columns)} | {' | '.join(f'{name}, difference' for name in columns)} |")
        print("|---" * (2 * len(columns) + 1) + "|")
        for variant in runs[0][0]:
            values = np.array([found[variant] for found, _ in runs])
            gains = values - np.array([found[BASE] for found, _ in runs])
            cells = [f"{mean:.4f}" for mean in values.mean(axis=0)] + [paired.interval(g, "+.4f") for g in gains.T]
            print(f"| {variant} | {' | '.join(cells)} |")
        print(f"\n| R2 on test rows | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        for variant in runs[0][1]:
            values = np.array([r2[variant] for _, r2 in runs])
            print(f"| {variant} | {' | '.join(paired.interval(column, '.3f') for column in values.T)} |")
        print(flush=True)


if __name__ == "__main__":
    main()
