"""The next movie of each user of MovieLens-1M: a joint model with attention over the history, beside its peers.

    PYTHONPATH=examples python benchmarks/sequential.py --data FOLDER [--implicit PYTHON] [--seeds 3] [--validate]
    PYTHONPATH=examples python benchmarks/sequential.py --data FOLDER --models "attention over the history" \
        "attention with contrast" [--weight 0.1] [--temperature 0.5] [--shares 0.4 0.3 0.4]

The protocol is leave-one-out: the test row of a user is the latest rating (or the one that the data mark `ncf_test`),
the validation row the latest of the rest; rows of one moment are in random order (`--by-id` orders them by the id of
the movie, as some published figures do). Ranks are among all rated movies except those that the user rated before; ties
get the middle rank. `--validate` trains on the rows before the validation
rows and ranks these; it was used to choose the settings below. Otherwise models train on all rows before the test rows.

Our models are trained on retrieval and rating together, in the order of time: each event of a user is predicted from
the events before it. They differ in the pooling of the history: its mean, self-attention, or the gated attention of
HSTU; "without towers" compares the pooled history with the embeddings of the movies, as SASRec does; "with contrast"
adds the loss of CL4SRec, and differences from the same pooling without it are paired by seed. ALS is that of the
package `implicit`, in a separate environment, with the best of 15 settings.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import movielens_data
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import interval

from tfmtl import data, evaluation, keras, layers, models, recipes, tasks

METRICS = ("recall@10", "recall@100", "ndcg@10")
ALS = {"factors": 128, "regularization": 10.0, "alpha": 1.0, "iterations": 15}
POOLINGS = [
    "mean of the history", "attention over the history", "without towers", "gated attention",
    "gated attention without towers",
]  # fmt: skip
CONTRASTED = {
    "mean with contrast": "mean of the history",
    "attention with contrast": "attention over the history",
    "without towers, with contrast": "without towers",
}
"""Models with the loss of CL4SRec, and the same models without it."""
DEFAULT_MODELS = ["mean of the history", "attention over the history"]


def schema(options: argparse.Namespace) -> data.Schema:
    """Return a schema in which histories describe users: they share the unknown id of a vocabulary of one.

    EASE needs the ids of users, which the network then does not embed.
    """
    user = data.Categorical("user_id", max_size=None if options.ease else 1)
    history = data.IdSequence("recent", of="movie_id", max_length=options.length)
    lag = [data.Categorical("lag", dtype="int64")] if options.lag else []
    return data.Schema(
        query=[user, history, *lag], candidate=[data.Categorical("movie_id")], labels=[data.Label("rating")]
    )


@keras.utils.register_keras_serializable("sequential")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises for a twentieth of the steps and then falls along half a cosine."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak, self.steps = peak, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the rate of a step."""
        share = tf.cast(step, tf.float32) / self.steps
        return self.peak * tf.minimum(1.0, 20 * share) * (0.5 + 0.5 * tf.cos(np.pi * tf.minimum(share, 1.0)))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"peak": self.peak, "steps": self.steps}


def split(folder: pathlib.Path, validate: bool, by_id: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training rows, and one later row per user."""
    table = movielens_data.load(folder)
    flag = ["ncf_test"] if "ncf_test" in table else []
    table = table[["user_id", "movie_id", "rating", "timestamp", *flag]]
    table = table.assign(moment=table["movie_id"] if by_id else np.random.default_rng(7).random(len(table)))
    table = table.sort_values(["user_id", "timestamp", *flag, "moment"], ignore_index=True)
    table = table.assign(lag=lags(table))
    table, later = before_latest(table)
    return before_latest(table) if validate else (table, later)


def lags(table: pd.DataFrame) -> pd.Series:
    """Return the time since the rating before, in steps of two thirds of the logarithm of seconds; 0 without one."""
    seconds = table["timestamp"].groupby(table["user_id"]).diff()
    seconds = seconds.dt.total_seconds() if seconds.dtype.kind == "m" else seconds
    return np.floor(1.5 * np.log(seconds.fillna(0).clip(lower=1))).astype("int64")


def before_latest(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows before the latest one of each user, and the latest ones."""
    last = ~table["user_id"].duplicated(keep="last")
    return table[~last], table[last]


def metrics(ranks: np.ndarray) -> list[float]:
    """Return the metrics of ranks counted from 0."""
    found = evaluation.retrieval_metrics(ranks, np.arange(len(ranks)), (10, 100))
    return [found[name] for name in METRICS]


def popularity(train: pd.DataFrame, test: pd.DataFrame, corpus: pd.Index) -> list[float]:
    """Return the ranks by the number of ratings."""
    counts = np.bincount(corpus.get_indexer(train["movie_id"]), minlength=len(corpus)).astype(np.float32)
    return metrics(_ranks(np.ones([len(test), 1], np.float32), counts[:, np.newaxis], train, test, corpus))


def implicit_als(python: str, train: pd.DataFrame, test: pd.DataFrame, corpus: pd.Index, seed: int) -> list[float]:
    """Return the ranks by the factors of the package `implicit`."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "factors.npz"
        users = pd.Index(test["user_id"])
        pairs = {"user": users.get_indexer(train["user_id"]), "item": corpus.get_indexer(train["movie_id"])}
        np.savez(file, shape=[len(users), len(corpus)], **pairs)
        worker = pathlib.Path(__file__).parent / "peers" / "implicit_als.py"
        subprocess.run([python, str(worker), str(file), json.dumps({**ALS, "random_state": seed})], check=True)
        factors = np.load(file)
        return metrics(_ranks(factors["user"], factors["item"], train, test, corpus))


def _ranks(
    queries: np.ndarray, candidates: np.ndarray, train: pd.DataFrame, test: pd.DataFrame, corpus: pd.Index
) -> np.ndarray:
    users = pd.Index(test["user_id"])
    seen = users.get_indexer(train["user_id"]), corpus.get_indexer(train["movie_id"])
    place = corpus.get_indexer(test["movie_id"])
    return evaluation.rank_positives(queries, candidates, np.arange(len(test)), place, seen=seen)


def pooling_of(name: str, options: argparse.Namespace) -> keras.layers.Layer:
    """Return the pooling of a model."""
    if name in CONTRASTED:
        crop, mask, reorder = options.shares
        inner = pooling_of(CONTRASTED[name], options)
        return layers.ContrastivePooling(inner, options.weight, options.temperature, crop, mask, reorder)
    if name == "mean of the history":
        return layers.MaskedMean()
    return layers.SelfAttentionHistory(
        num_blocks=options.blocks, num_heads=options.heads, dropout=options.dropout, relative=True,
        gated="gated" in name,
    )  # fmt: skip


def network_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return arguments of a network with linear towers, or that compares the state of a history with embeddings."""
    width = options.width
    if "without towers" in name:
        return {"embedding_dim": {"": width, "user_id": 0}, "tower_units": ()}
    return {"embedding_dim": {"": width, "user_id": 0 if options.ease else 4}, "tower_units": (width,)}


def joint_model(
    train: pd.DataFrame, movies: pd.DataFrame, name: str, seed: int, options: argparse.Namespace
) -> models.MultiTaskModel:
    """Return an untrained model of retrieval and rating."""
    preprocessor = data.Preprocessor.fit(schema(options), train)
    cosine = {"normalize": True, "temperature": options.cosine} if options.cosine else {}
    heads = [
        tasks.Retrieval("watched", full_softmax=True, **cosine),
        tasks.Regression.from_statistics("rating", preprocessor.statistics),
    ]
    network = models.build_network(
        preprocessor, heads, layers.SharedBottom(units=(64, 32), seed=seed),
        poolings={"recent": pooling_of(name, options)}, seed=seed, **network_of(name, options),
    )  # fmt: skip
    corpus = models.Candidates.from_frame(movies, preprocessor)
    return models.MultiTaskModel(network, heads, preprocessor, candidates=corpus, seed=seed)


def run(train: pd.DataFrame, test: pd.DataFrame, name: str, seed: int, options: argparse.Namespace) -> list[float]:
    """Train once; return the metrics, the error of the rating, and the wall and CPU seconds of training."""
    movies = pd.concat([train, test])[["movie_id"]].drop_duplicates()
    past = train
    if options.ease:
        train, held_out = before_latest(train)
        held_out = data.with_histories(held_out, schema(options), "timestamp", past=train, same_moment=True)
    model = joint_model(train, movies, name, seed, options)
    rows, order = _sequences(train, model, options), np.random.default_rng(100 + seed)
    steps = options.epochs * -(-len(rows.events) // options.batch)
    model.compile(keras.optimizers.Adam(WarmUp(options.rate, steps)))
    queries = data.with_histories(test, model.schema, "timestamp", past=past, same_moment=True)
    start = np.array([time.perf_counter(), time.process_time()])
    watch = [_Watch(queries, past)] if options.validate else []
    for epoch in range(options.epochs):
        if options.draw_ties and epoch:
            drawn = train.assign(moment=order.random(len(train)))
            drawn = drawn.sort_values(["user_id", "timestamp", "moment"], ignore_index=True)
            drawn = drawn.assign(lag=lags(drawn))
            rows = _sequences(drawn, model, options)
        model.fit(
            rows, batch_size=options.batch, initial_epoch=epoch, epochs=epoch + 1, callbacks=watch,
            verbose=2 if watch else 0,
        )  # fmt: skip
    seconds = np.array([time.perf_counter(), time.process_time()]) - start
    if options.ease:
        alone = evaluation.evaluate(model, queries, seen=past)
        print("network alone:", [round(alone["watched", name], 4) for name in METRICS], flush=True)
        empty = train.assign(recent=[()] * len(train))
        found = recipes.join_ease(model, empty, held_out, max_queries=len(held_out), seed=seed)
        print(found, flush=True)
        model = found.model
    report = evaluation.evaluate(model, queries, seen=past)
    return [*(report["watched", name] for name in METRICS), report["rating", "rmse"], *seconds]


def _sequences(train: pd.DataFrame, model: Any, options: argparse.Namespace) -> Any:
    """Return the events of each user in the order of the rows."""
    learned = train.groupby("user_id").tail(options.latest) if options.latest else train
    return data.to_sequences(learned, model.preprocessor, "timestamp", overlap=options.overlap, same_moment=True)


class _Watch(keras.callbacks.Callback):
    """Prints the validation metrics of every second epoch."""

    def __init__(self, queries: pd.DataFrame, train: pd.DataFrame) -> None:
        super().__init__()
        self.queries, self.train = queries, train

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch % 2:
            report = evaluation.evaluate(self.model, self.queries, seen=self.train)
            print({name: round(report["watched", name], 4) for name in METRICS}, flush=True)


def arguments() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with MovieLens")
    parser.add_argument("--implicit", help="Python of an environment with the package implicit 0.7")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--models", nargs="*", default=DEFAULT_MODELS, choices=[*POOLINGS, *CONTRASTED])
    parser.add_argument("--weight", type=float, default=0.1, help="of the contrastive loss")
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--shares", type=float, nargs=3, default=[0.4, 0.3, 0.4], help="crop, mask, reorder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16, help="sequences per batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=64, help="of the embeddings and towers")
    parser.add_argument("--blocks", type=int, default=2, help="of attention")
    parser.add_argument("--heads", type=int, default=1, help="of attention")
    parser.add_argument("--dropout", type=float, default=0.2, help="of attention")
    parser.add_argument("--by-id", action="store_true", help="order rows of one moment by movie, not by chance")
    parser.add_argument("--draw-ties", action="store_true", help="draw the order of rows of one moment in each epoch")
    parser.add_argument("--cosine", type=float, default=0.0, help="temperature of cosines; 0 for dot products")
    parser.add_argument("--ease", action="store_true", help="join EASE by validation rows, which are not trained on")
    parser.add_argument("--lag", action="store_true", help="the time since the latest rating is a feature of the query")
    parser.add_argument("--overlap", type=int, default=0)
    parser.add_argument("--length", type=int, default=200, help="of the histories")
    parser.add_argument("--latest", type=int, default=0, help="learn from this number of events per user; 0 for all")
    return parser.parse_args()


def main() -> None:
    """Print a table, each line as soon as it is measured."""
    options = arguments()
    train, test = split(options.data, options.validate, options.by_id)
    corpus = pd.Index(pd.concat([train, test])["movie_id"].unique())
    print(f"{len(train):,} ratings of {len(test):,} users, {len(corpus):,} movies, {options.seeds} seeds\n")
    print(f"| model | {' | '.join(METRICS)} | rating RMSE | seconds of training | of CPU |")
    print("|---" * 7 + "|")
    print(_line("popularity", [popularity(train, test, corpus)]), flush=True)
    if options.implicit:
        found = [implicit_als(options.implicit, train, test, corpus, seed) for seed in range(options.seeds)]
        print(_line("implicit ALS", found), flush=True)
    measured: dict[str, list[list[float]]] = {}
    for name in options.models:
        found = measured.setdefault(name, [])
        for seed in range(options.seeds):
            found.append(run(train, test, name, seed, options))
            print(f"{name}, seed {seed}: {found[-1][:3]}", file=sys.stderr, flush=True)
        print(_line(name, found), flush=True)
        if CONTRASTED.get(name) in measured:
            differences = np.subtract(found, measured[CONTRASTED[name]])
            print(_line("difference, paired by seed", differences), flush=True)


def _line(name: str, runs: Any) -> str:
    columns = np.asarray(runs).T
    cells = [interval(column) if len(runs) > 1 else f"{column[0]:.4f}" for column in columns[:4]]
    cells += [f"{column.mean():.0f}" for column in columns[4:]]
    return f"| {' | '.join([name, *cells, *[''] * (6 - len(cells))])} |"


if __name__ == "__main__":
    main()
