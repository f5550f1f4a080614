"""Made-up tables of which some features decide a label, and models that know their formula."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tfmtl._keras import keras
from tfmtl.data import Label, Numeric, Preprocessor, Schema
from tfmtl.layers import SharedBottom
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification, Regression

TASKS = ["first", "second"]


def table(weights: np.ndarray, rows: int, seed: int, noise: float = 0.1) -> pd.DataFrame:
    """Return standard normal numbers x0, x1, ... and one label per task, w_k . x and noise.

    Args:
        weights: [features, 2].
        rows, seed: of the table.
        noise: deviation of the noise.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=[rows, len(weights)])
    labels = x @ weights + noise * rng.normal(size=[rows, 2])
    columns = {f"x{i}": x[:, i] for i in range(len(weights))}
    return pd.DataFrame({**columns, **dict(zip(TASKS, labels.T, strict=True))})


def preprocessor(frame: pd.DataFrame) -> Preprocessor:
    names = [name for name in frame if name not in TASKS]
    schema = Schema([Numeric(name) for name in names], labels=[Label(task) for task in TASKS])
    return Preprocessor.fit(schema, frame)


def linear_model(frame: pd.DataFrame, weights: np.ndarray, binary: bool = False) -> MultiTaskModel:
    """Return a model with outputs w_k . z, where z are the encoded (standardized) numbers of the table.

    Args:
        frame: the table to which the preprocessor is fitted.
        weights: [features, 2].
        binary: whether the second task is one of events, with w . z as its logit.
    """
    fitted = preprocessor(frame)
    heads = [Regression("first"), BinaryClassification("second") if binary else Regression("second")]
    trunk = SharedBottom(TASKS, units=[len(weights)], activation="linear")
    network = build_network(
        fitted, heads, trunk, tower_units=(), regularization=Regularization(unknown_rate=0.0, context_dropout=0.0)
    )
    for layer in network.layers:
        if isinstance(layer, SharedBottom):
            kernel = np.zeros([2 * len(weights), len(weights)])
            kernel[::2] = np.eye(len(weights))
            layer.set_weights([kernel, np.zeros(len(weights)), *layer.get_weights()[2:]])
    for k, task in enumerate(TASKS):
        network.get_layer(f"{task}_output").set_weights([weights[:, k : k + 1], np.zeros(1)])
    model = MultiTaskModel(network, heads, fitted)
    model.compile(keras.optimizers.Adam(0.01))
    return model
