"""Quality of optimizers on one model and table, against Keras' Adam; `optimizer_speed.py` measures their speed.

    python benchmarks/optimizers.py                           # random ratings with a long tail of users and items
    python benchmarks/optimizers.py --movielens FOLDER        # MovieLens-100K: ratings.parquet
    python benchmarks/optimizers.py --quick                   # a tenth of the random ratings, two seeds

Each optimizer has the learning rate of its grid with the best validation RMSE on the first two seeds; a grid has four
rates, about half a power of ten apart. The test RMSE is that of the epoch with the best validation: means over seeds
with half the 95 % interval, and differences from Keras' Adam paired by seed. Rows per second are the median over the
epochs of all runs, except the first two of each, which trace; they hold for this model, which has small tables.

A row of a table has a gradient in few steps, a dense weight in all. Gradient descent and Adagrad are therefore shown
with one rate for all weights, and on the tables alone with Adam for the dense weights.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tfmtl  # noqa: F401 - before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import interval

from tfmtl import keras, training

EPOCHS, BATCH_SIZE, WIDTH = 8, 512, 16
Parts = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
ADAM, SGD, ADAGRAD = (1e-3, 3e-3, 1e-2, 3e-2), (0.3, 1.0, 3.0, 10.0), (0.01, 0.03, 0.1, 0.3)
ALL = (0.01, 0.03, 0.1, 0.3)
ROW_BY_ROW = {"dense_rows": 0}  # measure the update of large tables, although these are small
START = {"initial_accumulator_value": 1e-4}


def methods(steps: int) -> dict[str, tuple[Sequence[float], Callable[[float], Any]]]:
    """Return the grid of learning rates and a factory of each optimizer; some leave dense weights to Adam."""

    def grouped(tables: Any) -> Any:
        return training.GroupedOptimizer(tables, training.LazyAdam(3e-3, **ROW_BY_ROW))

    return {
        "Adam (Keras)": (ADAM, lambda rate: keras.optimizers.Adam(rate)),
        "LazyAdam": (ADAM, lambda rate: training.LazyAdam(rate, catch_up=False, **ROW_BY_ROW)),
        "LazyAdam, catch_up": (ADAM, lambda rate: training.LazyAdam(rate, catch_up=True, **ROW_BY_ROW)),
        "AdamW 0.1 (Keras)": (ADAM, lambda rate: keras.optimizers.AdamW(rate, 0.1)),
        "LazyAdamW 0.1": (ADAM, lambda rate: training.LazyAdamW(rate, 0.1, catch_up=False, **ROW_BY_ROW)),
        "LazyAdamW 0.1, catch_up": (ADAM, lambda rate: training.LazyAdamW(rate, 0.1, catch_up=True, **ROW_BY_ROW)),
        "SGD on all weights (Keras)": ([10 * rate for rate in ALL], lambda rate: keras.optimizers.SGD(rate)),
        "SGD 0.9 on all weights (Keras)": (ALL, lambda rate: keras.optimizers.SGD(rate, 0.9)),
        "Adagrad on all weights (Keras)": (ADAGRAD, lambda rate: keras.optimizers.Adagrad(rate, **START)),
        "Adagrad (Keras)": (ADAGRAD, lambda rate: grouped(keras.optimizers.Adagrad(rate, **START))),
        "RowWiseAdagrad": (ADAGRAD, lambda rate: grouped(training.RowWiseAdagrad(rate, **START))),
        "SGD (Keras)": ([10 * rate for rate in SGD], lambda rate: grouped(keras.optimizers.SGD(rate))),
        "SGD 0.9 (Keras)": (SGD, lambda rate: grouped(keras.optimizers.SGD(rate, 0.9))),
        "LazySGD": ([10 * rate for rate in SGD], lambda rate: grouped(training.LazySGD(rate))),
        "LazySGD 0.9": (SGD, lambda rate: grouped(training.LazySGD(rate, 0.9))),
        "ASGD 0.9": (SGD, lambda rate: grouped(training.ASGD(rate, 2 * steps // EPOCHS, momentum=0.9))),
    }


def long_tail(seed: int, rows: int = 240_000, users: int = 30_000, items: int = 20_000, noise: float = 0.3) -> Parts:
    """Return random ratings; the popularity of users and items falls like a power of their rank."""
    rng = np.random.default_rng(seed)
    user, item = (_zipf(rng, rows, size, power) for size, power in ((users, 0.8), (items, 0.9)))
    taste, style = rng.normal(scale=0.5, size=(users, 4)), rng.normal(scale=0.5, size=(items, 4))
    base = rng.normal(scale=0.4, size=users)[user] + rng.normal(scale=0.5, size=items)[item]
    rating = base + (taste[user] * style[item]).sum(axis=1) + noise * rng.normal(size=rows)
    return _split(pd.DataFrame({"user": user, "item": item, "rating": rating}), rng)


def _zipf(rng: np.random.Generator, rows: int, size: int, power: float) -> np.ndarray:
    weights = 1 / np.arange(1, size + 1) ** power
    return rng.choice(size, rows, p=weights / weights.sum())


def _split(table: pd.DataFrame, rng: np.random.Generator) -> Parts:
    order, count = rng.permutation(len(table)), len(table)
    cuts = order[: int(0.8 * count)], order[int(0.8 * count) : int(0.9 * count)], order[int(0.9 * count) :]
    train, valid, test = (table.iloc[cut] for cut in cuts)
    return train, valid, test


def movielens(folder: pathlib.Path, seed: int) -> Parts:
    """Return MovieLens-100K, split at random by the seed."""
    table = pd.read_parquet(folder / "ratings.parquet")
    columns = {"user": pd.factorize(table["user_id"])[0], "item": pd.factorize(table["movie_id"])[0]}
    rating = table["rating"].to_numpy(np.float64)
    return _split(pd.DataFrame({**columns, "rating": rating - rating.mean()}), np.random.default_rng(seed))


def network(users: int, items: int, seed: int) -> keras.Model:
    """Return embeddings of users and items, their inner product and a hidden layer on both."""
    inputs = [keras.Input([], dtype=tf.int32) for _ in range(2)]
    uniform = keras.initializers.RandomUniform
    pair = [
        keras.layers.Embedding(size, WIDTH, embeddings_initializer=uniform(-0.05, 0.05, seed + i))(ids)
        for i, (size, ids) in enumerate(zip((users, items), inputs, strict=True))
    ]
    glorot = [keras.initializers.GlorotUniform(seed + i) for i in (2, 3)]
    joined = keras.layers.Concatenate()([*pair, pair[0] * pair[1]])
    hidden = keras.layers.Dense(32, "relu", kernel_initializer=glorot[0])(joined)
    dot = tf.reduce_sum(pair[0] * pair[1], axis=1, keepdims=True)
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer=glorot[1])(hidden) + dot)


def train(make: Callable[[], Any], parts: Parts, seed: int) -> np.ndarray:
    """Return validation RMSE, test RMSE and rows per second of every epoch [EPOCHS, 3].

    The RMSEs are those of the averaged weights if the optimizer keeps averages.
    """
    columns = [
        [part["user"], part["item"], part["rating"].astype(np.float32)[:, np.newaxis]] for part in _arrays(parts)
    ]
    sizes = [1 + max(int(part[i].max()) for part in columns) for i in range(2)]
    model, optimizer = network(*sizes, seed), make()
    tensors = [[tf.constant(c, tf.int32 if c.ndim == 1 else tf.float32) for c in part] for part in columns]
    optimizer.build(model.trainable_variables)
    model.compile(optimizer)

    @tf.function
    def epoch(order: tf.Tensor) -> None:
        for step in tf.range(tf.size(order) // BATCH_SIZE):
            rows = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            user, item, rating = (tf.gather(column, rows) for column in tensors[0])
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model([user, item], training=True) - rating))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    @tf.function
    def rmse(user: tf.Tensor, item: tf.Tensor, rating: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_mean(tf.square(model([user, item]) - rating)))

    rng, curve = np.random.default_rng(seed), []
    keeps = isinstance(getattr(optimizer, "embeddings", optimizer), training.IterateAverages)
    for _ in range(EPOCHS):
        order, start = tf.constant(rng.permutation(len(columns[0][0]))), time.perf_counter()
        epoch(order)
        float(optimizer.iterations)  # waits for the steps
        rows = len(columns[0][0]) / (time.perf_counter() - start)
        with training.averaged(model) if keeps else contextlib.nullcontext():
            curve.append([*(float(rmse(*part)) for part in tensors[1:]), rows])
    return np.nan_to_num(np.asarray(curve), nan=9.0)


def _arrays(parts: Parts) -> list[dict[str, np.ndarray]]:
    return [{name: part[name].to_numpy() for name in part} for part in parts]


def race_quality(load: Callable[[int], Parts], seeds: int, only: Sequence[str]) -> None:
    """Print the table of quality."""
    cached = [load(seed) for seed in range(seeds)]
    steps = EPOCHS * (len(cached[0][0]) // BATCH_SIZE)
    print("| optimizer | rate | test RMSE | against Adam | validation RMSE by epoch, seed 0 | rows/s |")
    print("|---|---|---|---|---|---|", flush=True)
    reference: np.ndarray | None = None
    for name, (rates, make) in methods(steps).items():
        if only and name not in only and name != "Adam (Keras)":
            continue
        curves = {
            rate: [train(functools.partial(make, rate), cached[s], s) for s in range(min(2, seeds))] for rate in rates
        }
        best = min(rates, key=lambda rate: np.mean([curve[:, 0].min() for curve in curves[rate]]))
        curves[best] += [train(functools.partial(make, best), cached[s], s) for s in range(2, seeds)]
        found = np.array([curve[curve[:, 0].argmin(), 1] for curve in curves[best]])
        reference = found if reference is None else reference
        first = " ".join(f"{value:.3f}" for value in curves[best][0][:, 0])
        speed = np.median([curve[2:, 2] for runs in curves.values() for curve in runs])
        cells = [f"{best:g}", interval(found), interval(found - reference, "+.4f"), first, f"{speed:,.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Parse the arguments and run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with ratings.parquet")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="names of optimizers")
    parser.add_argument("--quick", action="store_true", help="a tenth of the random ratings, two seeds")
    arguments = parser.parse_args()
    folder = arguments.movielens
    made_up = functools.partial(long_tail, rows=24_000, users=3_000, items=2_000) if arguments.quick else long_tail
    load = made_up if folder is None else functools.partial(movielens, folder)
    race_quality(load, min(2, arguments.seeds) if arguments.quick else arguments.seeds, arguments.only)


if __name__ == "__main__":
    main()
