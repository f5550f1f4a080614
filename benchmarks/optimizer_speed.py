"""Step time of the optimizers of embedding tables by rows of the table, and against Keras' Adam, in one run.

    python benchmarks/optimizer_speed.py                      # 10,000, 1,000,000 and 10,000,000 rows of 32
    python benchmarks/optimizer_speed.py --tail               # ids with a long tail instead of uniform ones

Ratios are medians over rounds, with the range of their middle half. Needs 8 GB of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import spread

from tfmtl import data, keras, models, tasks, training


@dataclasses.dataclass(frozen=True)
class Sized(data.Statistics):
    """Statistics with a given number of users, for tables of any size without a vocabulary."""

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
    heads = [tasks.Regression.from_statistics("rating", fitted)]
    net = models.build_network(
        data.Preprocessor(schema, Sized(**fields, users=users)),
        heads,
        embedding_dim=32,
        regularization=models.Regularization(unknown_rate=0.0),
    )
    model = models.MultiTaskModel(net, heads, data.Preprocessor(schema, fitted), candidates=None)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    return model


def batches(users: int, size: int, count: int = 64, tail: bool = False) -> data.Batch:
    """Return batches [count, size] of users drawn uniformly, or with a long tail: uniform logarithms of the ids."""
    rng, shape = np.random.default_rng(0), [count, size]
    user = np.int64(users ** rng.random(shape)) if tail else rng.integers(0, users, shape)
    ids = {"user": tf.constant(user, tf.int32), "item": tf.constant(rng.integers(0, 1000, shape), tf.int32)}
    return data.Batch(ids, {"rating": tf.constant(rng.normal(size=shape), tf.float32)}, {"rating": tf.ones(shape)})


def _row(index: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    return column[index]


class Entrant:
    """A model with timed steps; one call makes many of them, as in `fit` with many steps per execution.

    Args:
        users: rows of its table.
        optimizer: its optimizer.
        size: rows per batch.
        count: steps per call.
        tail: whether the ids have a long tail.
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
        """Return CPU and wall seconds per step; other load on the machine affects the latter."""
        start = time.process_time(), time.perf_counter()
        self.steps()
        return (time.process_time() - start[0]) / self.count, (time.perf_counter() - start[1]) / self.count


def race_steps(makers: dict[str, Callable[[], Any]], users: Sequence[int], size: int, rounds: int, tail: bool) -> None:
    """Print the step time of each optimizer with tables of several sizes, in turn, as ratios to the smallest."""
    drawn = "log-uniform" if tail else "uniform"
    print(f"\nbatches of {size}, {drawn} ids, CPU ms per step; ratios to {users[0]:,} rows, middle half of {rounds}")
    for name, make in makers.items():
        entered = [Entrant(rows, make(), size, tail=tail) for rows in users]
        seconds = np.array([[entrant.time()[0] for entrant in entered] for _ in range(rounds)])
        cells = [
            f"{rows:,}: {1000 * np.median(own):.2f} ms, {spread(own / seconds[:, 0], half=True)}"
            for rows, own in zip(users[1:], seconds.T[1:], strict=True)
        ]
        print(f"  {name:22s} {1000 * np.median(seconds[:, 0]):.2f} ms;", "; ".join(cells), flush=True)
        del entered


def race_keras(rows: int, size: int, rounds: int) -> None:
    """Print the ratio of the step times of Keras' Adam and LazyAdam, measured in turn."""
    entered = [
        Entrant(rows, tfmtl.LazyAdam(1e-3), size),
        Entrant(rows, keras.optimizers.Adam(1e-3), size, count=4),
    ]
    seconds = np.array([[entrant.time() for entrant in entered] for _ in range(rounds)])
    for kind, values in zip(("processor", "clock"), np.moveaxis(seconds, 2, 0), strict=True):
        lazy, whole = 1000 * np.median(values, axis=0)
        print(
            f"{rows:,} rows, batches of {size}, {kind}: LazyAdam {lazy:.2f} ms, Keras' Adam {whole:.0f} ms, "
            f"{spread(values[:, 1] / values[:, 0], '.0f', half=True)} times",
            flush=True,
        )


def main() -> None:
    """Parse the arguments and run the benchmarks that they name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--tail", action="store_true", help="draw ids with a long tail")
    parser.add_argument("--only", nargs="*", default=[], help="names of optimizers")
    arguments = parser.parse_args()
    makers: dict[str, Callable[[], Any]] = {
        "LazyAdam": lambda: training.LazyAdam(1e-3),
        "LazyAdam, no catch_up": lambda: training.LazyAdam(1e-3, catch_up=False),
        "LazyAdamW": lambda: training.LazyAdamW(1e-3),
        "RowWiseAdagrad": lambda: training.RowWiseAdagrad(1e-2),
        "LazySGD 0.9": lambda: training.LazySGD(1e-2, 0.9),
        "ASGD": lambda: training.ASGD(1e-2),
    }
    chosen = {name: make for name, make in makers.items() if not arguments.only or name in arguments.only}
    race_steps(chosen, arguments.rows, arguments.batch_size, arguments.rounds, arguments.tail)
    race_keras(1_000_000, arguments.batch_size, max(3, arguments.rounds // 4))


if __name__ == "__main__":
    main()
