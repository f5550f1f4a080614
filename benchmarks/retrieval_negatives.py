"""Negatives and positives of retrieval against the negatives of the batch alone, on MovieLens-100K and Steam.

    python benchmarks/retrieval_negatives.py --movielens FOLDER --steam FOLDER [--seeds 3] [--variants ...]

Positives are ratings of 3 or more and recommended games; the other rows are dislikes. Test rows are the last 10 ratings
of each user, and the last review of users with three or more. A model has embeddings of users and candidates and a
layer of 64 units. `liked above disliked` is the mean over users of the share of pairs of a liked and a disliked test
candidate in which the liked one has the higher score. Differences are paired by seed with `in-batch`. The last table
has ratios of step times at 1,024 rows, interleaved with those of `in-batch`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
from paired import compare, spread

from tfmtl import data, evaluation, keras, models, tasks

EPOCHS, BATCH_SIZE, MINED_EPOCHS = 6, 1024, 2
VARIANTS: dict[str, dict[str, Any]] = {
    "in-batch": {},
    "explicit negatives, weight 30": {"explicit_negatives": 30.0},
    "explicit negatives, weight 100": {"explicit_negatives": 100.0},
    "query key": {"query_key": "user_id"},
    "query key, joint positives": {"query_key": "user_id", "joint_positives": True},
    "queue of 4,096": {"num_queued_negatives": 4096},
    "512 uniform": {"num_uniform_negatives": 512},
    "512 by counts^0.75": {"num_uniform_negatives": 512, "negatives_power": 0.75},
    "mined, weight 100": {"explicit_negatives": 100.0},
}
METRICS = [("retrieval", "ndcg@10"), ("retrieval", "recall@100"), ("retrieval", "liked above disliked")]


@dataclasses.dataclass(frozen=True)
class Split:
    """A training table and a test table with the columns user_id, item_id and good."""

    train: pd.DataFrame
    test: pd.DataFrame


def movielens(folder: pathlib.Path) -> Split:
    """Return MovieLens-100K; the last 10 ratings of each user are test rows."""
    rows = pd.read_parquet(folder / "ratings.parquet").sort_values("timestamp", kind="stable")
    rows = rows.rename(columns={"movie_id": "item_id"}).assign(good=(rows["rating"] >= 3).astype(float))
    return _split(rows, rows.groupby("user_id").cumcount(ascending=False) < 10)


def steam(folder: pathlib.Path) -> Split:
    """Return the reviews with a date; the last one of users with three or more is a test row."""
    rows = pd.read_parquet(folder / "reviews.parquet").dropna(subset=["posted"]).sort_values("posted", kind="stable")
    rows = rows.assign(good=rows["recommend"].astype(float))
    by_user = rows.groupby("user_id")["good"]
    return _split(rows, (by_user.cumcount(ascending=False) == 0) & (by_user.transform("size") >= 3))


def _split(rows: pd.DataFrame, tested: pd.Series) -> Split:
    columns = ["user_id", "item_id", "good"]
    train, test = (part[columns].reset_index(drop=True) for part in (rows[~tested], rows[tested]))
    return Split(train, test[test["item_id"].isin(train["item_id"])].reset_index(drop=True))


def model_of(split: Split, arguments: Mapping[str, Any], seed: int, rows: int) -> models.MultiTaskModel:
    """Return a compiled model for a number of rows of training in all."""
    schema = data.Schema([data.Categorical("user_id")], [data.Categorical("item_id")], labels=[data.Label("good")])
    preprocessor = data.Preprocessor.fit(schema, split.train)
    heads = [tasks.Retrieval("good", **arguments)]
    network = models.build_network(preprocessor, heads, embedding_dim=32, tower_units=(64,), seed=seed)
    model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
    model.compile(tfmtl.LazyAdam(keras.optimizers.schedules.CosineDecay(3e-3, max(1, rows // BATCH_SIZE))))
    return model


def run(split: Split, name: str, seed: int) -> list[float]:
    """Train once and return the metrics of the test rows."""
    mined = name.startswith("mined")
    model = model_of(split, VARIANTS[name], seed, EPOCHS * len(split.train))
    model.fit(split.train, batch_size=BATCH_SIZE, epochs=EPOCHS - (MINED_EPOCHS if mined else 0), verbose=0)
    for epoch in range(MINED_EPOCHS if mined else 0):
        found = evaluation.mined_negatives(model, split.train, seed=seed + epoch)
        joined = pd.concat([split.train, found], ignore_index=True)
        size = BATCH_SIZE * len(joined) // len(split.train)  # as many positives in a batch as before
        model.fit(joined, batch_size=size, epochs=1, verbose=0)
    report = evaluation.evaluate(model, split.test, seen=split.train, ks=(10, 100))
    return [report["good", "ndcg@10"], report["good", "recall@100"], liked_above_disliked(model, split.test)]


def liked_above_disliked(model: models.MultiTaskModel, test: pd.DataFrame) -> float:
    """Return the mean over users with both of the share of pairs in which the liked candidate has the higher score."""
    score, good = model.predict(test, batch_size=4096, verbose=0)["good"], test["good"].to_numpy()
    groups = test.groupby("user_id").indices if test["user_id"].duplicated().any() else {0: np.arange(len(test))}
    shares = []
    for rows in groups.values():
        liked, disliked = score[rows][good[rows] > 0], score[rows][good[rows] == 0]
        if len(liked) and len(disliked):
            above = liked[:, np.newaxis] - disliked
            shares.append(((above > 0) + 0.5 * (above == 0)).mean())
    return float(np.mean(shares))


def speeds(split: Split, rounds: int) -> None:
    """Print the ratio of the time of ten steps of each variant to that of `in-batch`, interleaved."""
    chosen = [name for name in VARIANTS if not name.startswith("mined")]
    part = split.train.head(10 * BATCH_SIZE)
    built = {name: model_of(split, VARIANTS[name], 0, len(split.train)) for name in chosen}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(rounds + 1):
        for name, model in built.items():
            start = time.perf_counter()
            model.fit(part, batch_size=BATCH_SIZE, epochs=1, verbose=0, shuffle=False)
            if turn:  # the first round traces
                seconds[name].append(time.perf_counter() - start)
    print("\n| variant | step time against in-batch, median and range |\n|---|---|")
    for name in chosen[1:]:
        print(f"| {name} | {spread(np.divide(seconds[name], seconds[chosen[0]]))} |")


def main() -> None:
    """Parse the arguments and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, required=True)
    parser.add_argument("--steam", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    for name, split in (("MovieLens-100K", movielens(arguments.movielens)), ("Steam", steam(arguments.steam))):
        print(
            f"\n{name}: {len(split.train):,} rows to train, {len(split.test):,} to test, {EPOCHS} epochs\n", flush=True
        )
        compare(functools.partial(run, split), arguments.variants, METRICS, arguments.seeds, "in-batch")
    speeds(movielens(arguments.movielens), arguments.rounds)


if __name__ == "__main__":
    main()
