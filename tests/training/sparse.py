"""What tests of optimisers share: sparse batches with repeated rows, runs, and a look into traced graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.training import ASGD, GroupedOptimizer, LazyAdam, LazyAdamW, LazySGD, RowWiseAdagrad

ROWS, WIDTH = 7, 3
START = np.random.default_rng(2).normal(size=(ROWS, WIDTH)).astype(np.float32)
Steps = list[tuple[list[int], np.ndarray]]


def optimizers(**lazy: Any) -> dict[str, Callable[..., keras.optimizers.Optimizer]]:
    """Return how to make every optimiser; `lazy` are further arguments of each LazyAdam."""
    return {
        "ASGD": lambda rate=0.1, **kw: ASGD(rate, 1, momentum=0.5, **kw),
        "GroupedOptimizer": lambda rate=0.1, **kw: GroupedOptimizer(RowWiseAdagrad(rate), LazyAdam(rate, **lazy), **kw),
        "LazyAdam": lambda rate=0.1, **kw: LazyAdam(rate, catch_up=False, **lazy, **kw),
        "LazyAdam, catch_up": lambda rate=0.1, **kw: LazyAdam(rate, catch_up=True, **lazy, **kw),
        "LazyAdamW": lambda rate=0.1, **kw: LazyAdamW(rate, 0.25, **lazy, **kw),
        "LazySGD": lambda rate=0.1, **kw: LazySGD(rate, 0.5, nesterov=True, **kw),
        "RowWiseAdagrad": lambda rate=0.1, **kw: RowWiseAdagrad(rate, **kw),
    }


OPTIMIZERS = optimizers()
OF_LARGE_TABLES = optimizers(dense_rows=0)
"""The same, with every table updated row by row."""


def table(name: str = "user/embeddings") -> tf.Variable:
    """Return a fresh table [ROWS, WIDTH]."""
    return tf.Variable(START, name=name)


def slices(rows: Sequence[int], values: Any, shape: Sequence[int] = START.shape) -> tf.IndexedSlices:
    """Return a sparse gradient of a table."""
    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(list(rows)), tf.constant(list(shape)))


def draw(*rows: Sequence[int], seed: int = 8, scale: float = 1.0) -> Steps:
    """Return random gradients of the given rows, a step each."""
    rng = np.random.default_rng(seed)
    return [(list(chosen), scale * rng.normal(size=(len(chosen), WIDTH))) for chosen in rows]


def random_steps(count: int, seed: int = 3) -> Steps:
    """Return random gradients of random rows, repeated rows among them."""
    rng = np.random.default_rng(seed)
    return draw(*(rng.integers(0, ROWS, rng.integers(1, 6)).tolist() for _ in range(count)), seed=seed)


def dense(rows: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Return the dense gradient of a sparse one."""
    whole = np.zeros((ROWS, WIDTH))
    np.add.at(whole, list(rows), values)
    return whole


def run(optimizer: keras.optimizers.Optimizer, steps: Steps, variable: tf.Variable | None = None) -> np.ndarray:
    """Apply sparse gradients and return the table."""
    variable = table() if variable is None else variable
    for rows, values in steps:
        optimizer.apply_gradients([(slices(rows, values), variable)])
    return variable.numpy()


def run_dense(optimizer: keras.optimizers.Optimizer, steps: Steps) -> np.ndarray:
    """Apply the same gradients as dense ones."""
    variable = table("kernel")
    for rows, values in steps:
        optimizer.apply_gradients([(tf.constant(dense(rows, values), tf.float32), variable)])
    return variable.numpy()


def shapes_in(function: Any, *arguments: Any) -> list[tuple[str, list[int | None] | None]]:
    """Return the operations and the static shapes of all tensors, but handles, in a traced function and its parts."""
    graph = function.get_concrete_function(*arguments).graph
    graphs = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]
    found = []
    for part in graphs:
        for operation in part.get_operations():
            for output in operation.outputs:
                if output.dtype != tf.resource:
                    found.append((operation.type, output.shape.as_list() if output.shape.rank is not None else None))
    return found
