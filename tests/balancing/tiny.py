"""A model of two yes-or-no questions that traces in a second or two; the second question is sometimes unanswered."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._keras import keras
from tfmtl.balancing import Balancer
from tfmtl.data import Batch, Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.layers import SharedBottom
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification

TASKS = ["a", "b"]
BATCH, BATCHES = 16, 4
SCHEMA = Schema(query=[Categorical("city"), Numeric("age")], labels=[Label("a"), Label("b")])


@functools.cache
def table() -> pd.DataFrame:
    """Four batches; the last one has no label of task b."""
    rng = np.random.default_rng(1)
    rows = BATCH * BATCHES
    place, age = rng.integers(0, 5, rows), rng.normal(size=rows)
    signs = {"a": 1, "b": -1}
    labels = {n: (sign * age + place - 2 + rng.normal(size=rows) > 0).astype(float) for n, sign in signs.items()}
    labels["b"][-BATCH:] = np.nan
    return pd.DataFrame({"city": [f"p{k}" for k in place], "age": age, **labels})


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


@functools.cache
def whole() -> Batch:
    return to_batch(table(), preprocessor())


def model(balancer: Balancer, optimizer: Any = None, **compile_arguments: Any) -> MultiTaskModel:
    """Return a compiled model with penalties on kernels and embeddings."""
    heads = [BinaryClassification(name) for name in TASKS]
    penalties = Regularization(l2=1e-3, embedding_l2=1e-3, unknown_rate=0.0)
    network = build_network(
        preprocessor(), heads, SharedBottom(TASKS, units=[4]), embedding_dim=3, tower_units=[4],
        regularization=penalties,
    )  # fmt: skip
    built = MultiTaskModel(network, heads, preprocessor(), balancer)
    built.compile(optimizer or keras.optimizers.Adam(0.01, clipnorm=1.0), **compile_arguments)
    return built


def fit(built: MultiTaskModel, epochs: int = 1, initial_epoch: int = 0) -> dict[str, list[float]]:
    """Train on the batches and return the log."""
    log = built.fit(whole(), batch_size=BATCH, epochs=epochs, initial_epoch=initial_epoch, verbose=0)
    return log.history  # type: ignore[no-any-return]
