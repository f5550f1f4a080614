"""Optimisers of embedding tables: how good, against Keras' Adam on long-tail ratings, and what a step costs.

    python benchmarks/optimisers.py --quality                           # made-up ratings, Zipf users and items
    python benchmarks/optimisers.py --quality --movielens FOLDER        # MovieLens-100K: ratings.parquet
    python benchmarks/optimisers.py --steps                             # step time by rows of the table

Quality: every optimiser at the learning rate of its grid with the best validation on the first two seeds; test RMSE at
the epoch with the best validation, means over seeds with 95 % intervals, and differences from Keras' Adam paired by
seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
import tensorflow as tf
import tf_keras as keras
from paired import interval

from tfmtl import data, models, tasks, training
from tfmtl.training import lazy_adam

EPOCHS, BATCH_SIZE, WIDTH = 8, 512, 16
Parts = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
ADAM, SGD, ADAGRAD = (1e-3, 3e-3, 1e-2, 3e-2), (0.3, 1.0, 3.0, 10.0), (0.01, 0.03, 0.1, 0.3)
START = {"initial_accumulator_value": 1e-4}


def methods(steps: int) -> dict[str, tuple[Sequence[float], Callable[[float], Any]]]:
    """Return each optimiser's grid of learning rates and how to make it; dense weights of SGD take Adam."""

    def grouped(tables: Any) -> Any:
        return training.GroupedOptimizer(tables, training.LazyAdam(3e-3))

    return {
        "Adam (Keras)": (ADAM, lambda rate: keras.optimizers.Adam(rate)),
        "LazyAdam": (ADAM, lambda rate: training.LazyAdam(rate, catch_up=False)),
        "LazyAdam, catch_up": (ADAM, lambda rate: training.LazyAdam(rate, catch_up=True)),
        "AdamW 0.1 (Keras)": (ADAM, lambda rate: keras.optimizers.AdamW(rate, 0.1)),
        "LazyAdamW 0.1": (ADAM, lambda rate: training.LazyAdamW(rate, 0.1, catch_up=False)),
        "LazyAdamW 0.1, catch_up": (ADAM, lambda rate: training.LazyAdamW(rate, 0.1, catch_up=True)),
        "Adagrad (Keras)": (ADAGRAD, lambda rate: grouped(keras.optimizers.Adagrad(rate, **START))),
        "RowWiseAdagrad": (ADAGRAD, lambda rate: grouped(training.RowWiseAdagrad(rate, **START))),
        "SGD 0.9 (Keras)": (SGD, lambda rate: grouped(keras.optimizers.SGD(rate, 0.9))),
        "LazySGD": (SGD, lambda rate: grouped(training.LazySGD(10 * rate))),
        "LazySGD 0.9": (SGD, lambda rate: grouped(training.LazySGD(rate, 0.9))),
        "ASGD 0.9": (SGD, lambda rate: grouped(training.ASGD(rate, 2 * steps // EPOCHS, momentum=0.9))),
    }


def long_tail(seed: int, rows: int = 240_000, users: int = 30_000, items: int = 20_000, noise: float = 0.3) -> Parts:
    """Make up ratings of users and items whose popularity falls like a power of their rank."""
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
    """Return validation and test RMSE of every epoch [EPOCHS, 2], of the averages where the optimiser keeps them."""
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
        epoch(tf.constant(rng.permutation(len(columns[0][0]))))
        if keeps:
            with training.averaged(model):
                curve.append([float(rmse(*part)) for part in tensors[1:]])
        else:
            curve.append([float(rmse(*part)) for part in tensors[1:]])
    return np.nan_to_num(np.asarray(curve), nan=9.0)


def _arrays(parts: Parts) -> list[dict[str, np.ndarray]]:
    return [{name: part[name].to_numpy() for name in part} for part in parts]


def race_quality(load: Callable[[int], Parts], seeds: int, only: Sequence[str]) -> None:
    """Print the table of quality."""
    cached = [load(seed) for seed in range(seeds)]
    steps = EPOCHS * (len(cached[0][0]) // BATCH_SIZE)
    print("| optimiser | rate | test RMSE | against Adam | validation RMSE by epoch, seed 0 | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    reference: np.ndarray | None = None
    for name, (rates, make) in methods(steps).items():
        if only and name not in only and name != "Adam (Keras)":
            continue
        start = time.perf_counter()
        curves = {
            rate: [train(functools.partial(make, rate), cached[s], s) for s in range(min(2, seeds))] for rate in rates
        }
        best = min(rates, key=lambda rate: np.mean([curve[:, 0].min() for curve in curves[rate]]))
        seconds = (time.perf_counter() - start) / len(rates) / min(2, seeds)
        curves[best] += [train(functools.partial(make, best), cached[s], s) for s in range(2, seeds)]
        found = np.array([curve[curve[:, 0].argmin(), 1] for curve in curves[best]])
        reference = found if reference is None else reference
        first = " ".join(f"{value:.3f}" for value in curves[best][0][:, 0])
        cells = [f"{best:g}", interval(found), interval(found - reference, "+.4f"), first, f"{seconds:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


@dataclasses.dataclass(frozen=True)
class Sized(data.Statistics):
    """Statistics that claim a number of users, for tables larger than any vocabulary worth making up."""

    users: int = 0

    def size(self, vocabulary: str) -> int:
        """Return the number of indices of a vocabulary."""
        return self.users if vocabulary == "user" else super().size(vocabulary)


def rating_model(users: int, optimizer: Any) -> models.MultiTaskModel:
    """Return a rating model with a table of `users` rows and one of 1,000 items."""
    schema = data.Schema(
        query=[data.Categorical("user", dtype="int64")],
        candidate=[data.Categorical("item", dtype="int64")],
        labels=[data.Label("rating")],
    )
    table = pd.DataFrame({"user": np.arange(1000), "item": np.arange(1000), "rating": np.arange(1000) % 5.0})
    fitted = data.fit_statistics(schema, table)
    fields = {field.name: getattr(fitted, field.name) for field in dataclasses.fields(fitted)}
    heads = [tasks.Regression.from_statistics("rating", fitted.labels["rating"])]
    net = models.build_network(
        schema,
        Sized(**fields, users=users),
        heads,
        embedding_dim=32,
        regularisation=models.Regularisation(unknown_rate=0.0),
    )
    model = models.MultiTaskModel(net, heads, data.Preprocessor(schema, fitted), candidates=None)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    return model


def batches(users: int, size: int, count: int = 64, tail: bool = False) -> data.Batch:
    """Return batches [count, size] of users drawn evenly, or in the long tail: the logarithm of the id even."""
    rng, shape = np.random.default_rng(0), [count, size]
    user = np.int64(users ** rng.random(shape)) if tail else rng.integers(0, users, shape)
    ids = {"user": tf.constant(user, tf.int32), "item": tf.constant(rng.integers(0, 1000, shape), tf.int32)}
    return data.Batch(ids, {"rating": tf.constant(rng.normal(size=shape), tf.float32)}, {"rating": tf.ones(shape)})


def _row(index: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    return column[index]


class Entrant:
    """A model whose steps are timed; as in `fit` with many steps an execution, one call makes all of them.

    Args:
        users: rows of its table.
        optimizer: what its steps are made with.
        size: rows a batch.
        count: steps a call.
        tail: whether the ids are drawn in the long tail.
    """

    def __init__(self, users: int, optimizer: Any, size: int, count: int = 64, tail: bool = False) -> None:
        self.model, self.count = rating_model(users, optimizer), count
        whole = batches(users, size, count, tail)

        @tf.function
        def steps() -> None:
            for step in tf.range(count):
                self.model.make_step(tf.nest.map_structure(functools.partial(_row, step), whole))

        self.steps = steps
        self.steps()

    def time(self) -> tuple[float, float]:
        """Return seconds of the processor and of the clock a step; other work on the machine changes the latter."""
        start = time.process_time(), time.perf_counter()
        self.steps()
        return (time.process_time() - start[0]) / self.count, (time.perf_counter() - start[1]) / self.count


def race_steps(makers: dict[str, Callable[[], Any]], users: Sequence[int], size: int, rounds: int, tail: bool) -> None:
    """Print each optimiser's step time with tables of several sizes, in turn, as ratios to the smallest."""
    drawn = "log-uniform" if tail else "uniform"
    print(
        f"\nbatches of {size}, {drawn} ids, processor's ms a step; ratios to {users[0]:,} rows, middle half of {rounds}"
    )
    for name, make in makers.items():
        entered = [Entrant(rows, make(), size, tail=tail) for rows in users]
        seconds = np.array([[entrant.time()[0] for entrant in entered] for _ in range(rounds)])
        low, middle, high = np.quantile(seconds[:, 1:] / seconds[:, :1], [0.25, 0.5, 0.75], axis=0)
        cells = [
            f"{rows:,}: {1000 * np.median(seconds[:, i + 1]):.2f} ms, {middle[i]:.2f} ({low[i]:.2f} to {high[i]:.2f})"
            for i, rows in enumerate(users[1:])
        ]
        print(f"  {name:22s} {1000 * np.median(seconds[:, 0]):.2f} ms;", "; ".join(cells), flush=True)
        del entered


def race_keras(rows: int, size: int, rounds: int) -> None:
    """Print how much longer a step of Keras' Adam takes, in turn with LazyAdam."""
    entered = [
        Entrant(rows, tfmtl.LazyAdam(1e-3), size),
        Entrant(rows, keras.optimizers.Adam(1e-3), size, count=4),
    ]
    seconds = np.array([[entrant.time() for entrant in entered] for _ in range(rounds)])
    for kind, values in zip(("processor", "clock"), np.moveaxis(seconds, 2, 0), strict=True):
        low, middle, high = np.quantile(values[:, 1] / values[:, 0], [0.25, 0.5, 0.75])
        lazy, whole = 1000 * np.median(values, axis=0)
        print(
            f"{rows:,} rows, batches of {size}, {kind}: LazyAdam {lazy:.2f} ms, Keras' Adam {whole:.0f} ms, "
            f"{middle:.0f} times ({low:.0f} to {high:.0f})",
            flush=True,
        )


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with ratings.parquet")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--tail", action="store_true", help="draw ids in the long tail")
    parser.add_argument("--only", nargs="*", default=[], help="names of optimisers")
    arguments = parser.parse_args()
    if not arguments.steps:
        lazy_adam._SMALL = 0  # what is measured is the update of large tables
        folder = arguments.movielens
        load = long_tail if folder is None else lambda seed: movielens(folder, seed)
        race_quality(load, arguments.seeds, arguments.only)
    if arguments.steps or not arguments.quality:
        makers = {
            "LazyAdam": lambda: training.LazyAdam(1e-3, catch_up=False),
            "LazyAdam, catch_up": lambda: training.LazyAdam(1e-3, catch_up=True),
            "LazyAdamW": lambda: training.LazyAdamW(1e-3),
            "RowWiseAdagrad": lambda: training.RowWiseAdagrad(1e-2),
            "LazySGD 0.9": lambda: training.LazySGD(1e-2, 0.9),
            "ASGD": lambda: training.ASGD(1e-2),
        }  # fmt: skip
        chosen = {name: make for name, make in makers.items() if not arguments.only or name in arguments.only}
        race_steps(chosen, arguments.rows, arguments.batch_size, arguments.rounds, arguments.tail)
        race_keras(1_000_000, arguments.batch_size, max(3, arguments.rounds // 4))


if __name__ == "__main__":
    main()
