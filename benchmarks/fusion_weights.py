"""NDCG of a main event in served lists: default weights, weights of `recipes.fusion_weights`, and retrieval alone.

    python benchmarks/fusion_weights.py FOLDER/ml_100k FOLDER/tmall_brands [--seeds 3]

Each pair of a user and a candidate counts once, with the largest value of each label. A tenth of the pairs, drawn at
random, chooses the weights and a tenth tests; `recipes.fit` has the others, of which it holds out its own rows. The
retrieval learns all pairs, the ranking tasks the main event and the other labels. Seeds are those of split, recipe and
search. Intervals are those of a bootstrap over users of the test rows of all seeds.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd

import tfmtl
from tfmtl import evaluation, recipes
from tfmtl.recipes.judged_lists import JudgedLists
from tfmtl.serving.recommender import Recommender
from tfmtl.tasks import Task

K = 10


def movies(folder: pathlib.Path) -> pd.DataFrame:
    """Return rated films; the main event is a rating of 5."""
    table = pd.read_parquet(folder / "ratings.parquet")
    pairs = pd.DataFrame({"user": table["user_id"].astype(str), "item": table["movie_id"].astype(str)})
    return pairs.assign(seen=1.0, main=(table["rating"] == 5).astype(float), rating=table["rating"].astype(float))


def brands(folder: pathlib.Path) -> pd.DataFrame:
    """Return brands with any event; the main event is a purchase, the other label a favourite or a cart."""
    table = pd.read_parquet(folder / "events.parquet")
    pairs = pd.DataFrame({"user": table["user_id"].astype(str), "item": table["brand_id"].astype(str), "seen": 1.0})
    action = table["action"]
    pairs = pairs.assign(main=(action == "buy").astype(float), saved=action.isin(["favourite", "cart"]).astype(float))
    return pairs.groupby(["user", "item"], as_index=False).max()


SETS: dict[str, tuple[Callable[[pathlib.Path], pd.DataFrame], Callable[[tfmtl.Preprocessor], list[Task]]]] = {
    "ml_100k": (
        movies,
        lambda fitted: [
            tfmtl.Retrieval("seen"),
            tfmtl.BinaryClassification("main"),
            tfmtl.Regression.from_statistics("rating", fitted.statistics),
        ],
    ),
    "tmall_brands": (
        brands,
        lambda fitted: [
            tfmtl.Retrieval("seen"), tfmtl.BinaryClassification("main"), tfmtl.BinaryClassification("saved"),
        ],
    ),
}  # fmt: skip
"""Reader and tasks of each set."""


def measure(name: str, pairs: pd.DataFrame, seed: int, epochs: int) -> dict[str, pd.Series]:
    """Return the NDCG of each test user by method."""
    part = np.random.default_rng(seed).choice(3, len(pairs), p=[0.8, 0.1, 0.1])
    train, validation, test = (pairs[part == number] for number in range(3))
    labels = [tfmtl.Label(column) for column in pairs.columns[2:]]
    schema = tfmtl.Schema([tfmtl.Categorical("user")], [tfmtl.Categorical("item")], labels=labels)
    preprocessor = tfmtl.Preprocessor.fit(schema, train)
    tasks = SETS[name][1](preprocessor)
    model = recipes.fit(preprocessor, tasks, train, epochs=epochs, boosting=False, seed=seed, verbose=0).model
    found = recipes.fusion_weights(model, validation, main="main", k=K, seen=train, seed=seed)
    print(f"{name}, seed {seed}\n{found}\n", flush=True)
    lists = JudgedLists.of(Recommender(model, K), test, {"main": 1.0}, pd.concat([train, validation]), None)
    alone = {task: float(task == "seen") for task in lists.tasks}
    sets = {"default weights": found.defaults, "retrieval alone": alone, "found weights": found.weights}
    values = {method: lists.ndcg([own[task] for task in lists.tasks]) for method, own in sets.items()}
    return {method: pd.Series(own, lists.users) for method, own in {**values, "best order": lists.best()}.items()}


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", type=int, default=0, help="number of pairs to draw; all by default")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        pairs = SETS[folder.name][0](folder)
        if arguments.rows:
            pairs = pairs.sample(min(arguments.rows, len(pairs)), random_state=0)
        runs = [measure(folder.name, pairs, seed, arguments.epochs) for seed in range(arguments.seeds)]
        rows = {method: pd.concat([run[method] for run in runs]) for method in runs[0]}
        models = {name: lambda w, own=own: {"ndcg": float(np.average(own, weights=w))} for name, own in rows.items()}
        compared = evaluation.bootstrap_comparison(models, next(iter(rows.values())).index.to_numpy())
        print(f"{folder.name}: {len(pairs):,} pairs, {pairs['user'].nunique():,} users, test rows\n")
        print(f"| method | ndcg@{K} | by seed | difference from the default weights |\n|---|---|---|---|")
        for (name, _), row in compared.iterrows():
            seeds = ", ".join(f"{run[name].mean():.4f}" for run in runs)
            gap = f"{row['difference']:+.4f} ({row['difference_low']:+.4f} to {row['difference_high']:+.4f})"
            print(f"| {name} | {row['value']:.4f} | {seeds} | {'' if name == 'default weights' else gap} |")
        print(flush=True)


if __name__ == "__main__":
    main()
