"""Several vectors per query beside one: ComiRec's choice of a vector in a model of histories.

    PYTHONPATH=examples python benchmarks/interests.py [--movielens FOLDER] [--tmall FOLDER] [--seeds 3]

MovieLens-1M, of every third user: the latest ten ratings are the test rows, with the history before all of them; ranks
are among all movies that the user did not rate before. Tmall's brands with at least five events: an event is a day on
which a user acted on a brand; the events of the last seven days are the test rows, ranks are among all brands, also
those of the history.

All models read the last 100 events by attention and learn a softmax over all candidates at each event. They differ in
the vectors of a query: four of width d, where in the loss each candidate has its own largest product, or that of the
vector that the positive chooses; one of width 4 d from tables of width d, with about equal parameters and as many
multiplications in a search; and one of width d. Intervals are those of seeds, and differences are paired by seed.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import Any, NamedTuple

import movielens_data
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import interval, spread

from tfmtl import data, evaluation, keras, layers, models, tasks
from tfmtl.serving.index import CorpusIndex

LENGTH, WIDTH, INTERESTS, DAYS, HELD, FEWEST = 100, 32, 4, 7, 10, 5
METRICS = ("recall@10", "recall@100", "ndcg@10")
SCHEMA = data.Schema(
    query=[data.Categorical("user_id", max_size=1), data.IdSequence("recent", of="item_id", max_length=LENGTH)],
    candidate=[data.Categorical("item_id")],
)
"""The features of users are their histories alone: all users share the unknown id of a vocabulary of one."""


class Variant(NamedTuple):
    """A model: number of vectors, widths of the head, and whether the positive chooses the vector of its loss."""

    interests: int
    units: tuple[int, ...]
    shared: bool = True


WIDE = INTERESTS * WIDTH
FIRST = "four, each candidate its own"
VARIANTS = {
    FIRST: Variant(INTERESTS, (WIDTH,), shared=False),
    "one, 4 d wide, tables of d": Variant(1, (64, WIDE)),
    "one, d wide": Variant(1, (WIDTH,)),
    "four, chosen by the positive": Variant(INTERESTS, (WIDTH,)),
}


class Rows(NamedTuple):
    """Events of training, test rows, and whether candidates of the history are removed from the lists."""

    train: pd.DataFrame
    test: pd.DataFrame
    new_only: bool


def movielens(folder: pathlib.Path, users: int) -> Rows:
    """Return the ratings of every third user; the latest of each are test rows."""
    table = movielens_data.load(folder)[["user_id", "movie_id", "timestamp"]].rename(columns={"movie_id": "item_id"})
    kept = np.unique(table["user_id"])[::3][:users]
    table = table[table["user_id"].isin(kept)]
    table = table.assign(moment=np.random.default_rng(7).random(len(table)))
    table = table.sort_values(["user_id", "timestamp", "moment"], ignore_index=True).drop(columns="moment")
    left = table.groupby("user_id").cumcount(ascending=False)
    test = table[left < HELD].copy()
    test["timestamp"] = test.groupby("user_id")["timestamp"].transform("min")
    return Rows(table[left >= HELD], test, True)


def tmall(folder: pathlib.Path, users: int) -> Rows:
    """Return the brands of each user and day; the last seven days are test rows."""
    table = pd.read_parquet(folder / "events.parquet")[["user_id", "brand_id", "day_index"]].drop_duplicates()
    table = table.set_axis(["user_id", "item_id", "timestamp"], axis=1)
    table = table[table["user_id"].isin(np.unique(table["user_id"])[:users])]
    table = table[table["item_id"].map(table["item_id"].value_counts()) >= FEWEST]
    table = table.sort_values(["user_id", "timestamp", "item_id"], ignore_index=True)
    table = table.astype({"user_id": str, "item_id": str})
    late = table["timestamp"] > table["timestamp"].max() - DAYS
    known = table["user_id"].isin(table["user_id"][~late])
    return Rows(table[~late], table[late & known], False)


def model_of(rows: Rows, variant: Variant, seed: int) -> models.MultiTaskModel:
    """Return an untrained model."""
    preprocessor = data.Preprocessor.fit(SCHEMA, rows.train)
    task = tasks.Retrieval(
        "next", units=variant.units, full_softmax=True, num_interests=variant.interests,
        shared_interest=variant.shared,
    )  # fmt: skip
    network = models.build_network(
        preprocessor, [task], embedding_dim={"": WIDTH, "user_id": 4}, tower_units=(), seed=seed,
        poolings={"recent": layers.MultiInterestPooling(variant.interests, seed=seed)},
    )  # fmt: skip
    items = pd.concat([rows.train, rows.test])[["item_id"]].drop_duplicates()
    corpus = models.Candidates.from_frame(items, preprocessor)
    return models.MultiTaskModel(network, [task], preprocessor, candidates=corpus, seed=seed)


def run(rows: Rows, variant: Variant, seed: int, options: argparse.Namespace) -> tuple[list[float], Any]:
    """Train once; return the metrics and the model."""
    model = model_of(rows, variant, seed)
    sequences = data.to_sequences(rows.train, model.preprocessor, "timestamp", same_moment=True)
    model.compile(keras.optimizers.Adam(options.rate))
    queries = data.with_histories(rows.test, SCHEMA, "timestamp", past=rows.train, same_moment=True)
    seen = rows.train if rows.new_only else None
    for epoch in range(options.epochs):
        model.fit(sequences, batch_size=options.batch, epochs=1, verbose=0)
        if options.watch:
            report = evaluation.evaluate(model, queries, seen=seen, ks=(10, 100))
            print(epoch, {name: round(report["next", name], 4) for name in METRICS}, file=sys.stderr, flush=True)
    report = evaluation.evaluate(model, queries, seen=seen, ks=(10, 100))
    return [report["next", name] for name in METRICS], model


def search_seconds(candidates: int, rounds: int = 30) -> dict[str, list[float]]:
    """Return the seconds of exact searches of 8 queries by turns: one vector of 4 d, four of d, one of d."""
    rng, found = np.random.default_rng(0), {}
    shapes = {"one, 4 d wide": [WIDE], "four": [INTERESTS, WIDTH], "one, d wide": [WIDTH]}
    for name, shape in shapes.items():
        vectors = tf.constant(rng.normal(size=[candidates, shape[-1]]), tf.float32)
        index = CorpusIndex(np.arange(candidates), vectors, max_k=100)
        search = tf.function(lambda query, index=index: index.search(query).rows)
        query = tf.constant(rng.normal(size=[8, *shape]), tf.float32)
        search(query)
        found[name] = (search, query, [])
    for _ in range(rounds):
        for search, query, seconds in found.values():
            start = time.perf_counter()
            search(query).numpy()
            seconds.append(time.perf_counter() - start)
    return {name: seconds for name, (_, _, seconds) in found.items()}


def report(rows: Rows, options: argparse.Namespace) -> None:
    """Print the table of a data set, each line as soon as it is measured."""
    items = pd.concat([rows.train, rows.test])["item_id"].nunique()
    users = rows.train["user_id"].nunique()
    print(f"{len(rows.train):,} events of {users:,} users, {items:,} candidates, {len(rows.test):,} test rows\n")
    print(f"| model | parameters | {' | '.join(METRICS)} | recall@100 of the first model less this | seconds |")
    print("|---" * 7 + "|")
    first: np.ndarray | None = None
    for name in sorted(options.variants, key=lambda each: each != FIRST):
        start, found = time.perf_counter(), []
        for seed in range(options.seeds):
            values, model = run(rows, VARIANTS[name], seed, options)
            found.append(values)
            print(f"{name}, seed {seed}: {values}", file=sys.stderr, flush=True)
        columns = np.array(found).T
        first = columns if first is None else first
        cells = [f"{model.network.count_params():,}", *map(interval, columns)]
        against = "" if first is columns else interval(first[1] - columns[1], "+.4f")
        seconds = (time.perf_counter() - start) / options.seeds
        print(f"| {' | '.join([name, *cells, against, f'{seconds:.0f}'])} |", flush=True)
    print()


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with MovieLens-1M")
    parser.add_argument("--tmall", type=pathlib.Path, help="folder with the brands of Tmall")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=2, help="sequences per batch")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--users", type=int, default=10**6, help="number of users, to be quick")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--watch", action="store_true", help="print the metrics of each epoch")
    options = parser.parse_args()
    for folder, read in ((options.movielens, movielens), (options.tmall, tmall)):
        if folder:
            print(f"### {read.__name__}\n")
            report(read(folder, options.users), options)
    seconds = search_seconds(100_000)
    print("Exact search of 8 queries among 100,000 candidates, time relative to one vector 4 d wide, by rounds:\n")
    for name in ("four", "one, d wide"):
        pairs = zip(seconds[name], seconds["one, 4 d wide"], strict=True)
        print(f"- {name}: {spread((a / b for a, b in pairs), half=True)}")


if __name__ == "__main__":
    main()
