"""Two logits that are linear in one encoding, as a model and in NumPy, for methods that move encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tfmtl._keras import keras
from tfmtl.data import Batch, Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.layers import AdversarialTraining
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification

OFF: dict[str, Any] = {"unknown_rate": 0.0, "context_dropout": 0.0}
LINEAR = Schema([Categorical("city"), Numeric("age")], labels=[Label("a"), Label("b")])


def against(method: AdversarialTraining | None, **others: Any) -> Regularization:
    return Regularization(adversarial=method, **OFF | others)


def linear_rows() -> pd.DataFrame:
    """Half of the labels of b are missing."""
    rng = np.random.default_rng(2)
    age = rng.normal(size=20)
    labels = {"a": (age > 0).astype(float), "b": np.where(np.arange(20) % 2, np.nan, rng.integers(0, 2, 20))}
    return pd.DataFrame({"city": [f"c{k % 4}" for k in range(20)], "age": age, **labels})


def linear_model(method: AdversarialTraining | None) -> tuple[MultiTaskModel, Batch]:
    """Return a model of two logits W z + c of an encoding z, in units of their own, and its rows."""
    preprocessor = Preprocessor.fit(LINEAR, linear_rows())
    heads = [BinaryClassification(name, scope="query") for name in "ab"]
    network = build_network(preprocessor, heads, embedding_dim=2, tower_units=[], regularization=against(method))
    model = MultiTaskModel(network, heads, preprocessor)
    model.compile(keras.optimizers.SGD(0.1))
    for name, scale in {"a": 1.0, "b": -3.0}.items():
        kernel = network.get_layer(f"{name}_output").kernel
        kernel.assign(scale * np.random.default_rng(4).normal(size=kernel.shape))
    return model, to_batch(linear_rows(), preprocessor)


class Linear:
    """The same model in NumPy: losses and their gradients by z for the two tasks."""

    def __init__(self, model: MultiTaskModel, batch: Batch) -> None:
        mark = keras.Model(model.network.inputs, model.network.get_layer("query_mark").output)
        self.z = mark({name: batch.features[name] for name in model.network.input}).numpy().astype(np.float64)
        layers = [model.network.get_layer(f"{name}_output") for name in "ab"]
        self.w = np.concatenate([layer.kernel.numpy() for layer in layers], axis=1)
        self.c = np.concatenate([layer.bias.numpy() for layer in layers])
        labels = np.stack([batch.labels[name].numpy() for name in "ab"], axis=1)
        self.seen = ~np.isnan(labels)
        self.y = np.where(self.seen, labels, 0.0)

    def probabilities(self, shifts: Any) -> np.ndarray:
        return 1 / (1 + np.exp(-((self.z + shifts) @ self.w + self.c)))

    def losses(self, shifts: Any) -> np.ndarray:
        p = self.probabilities(shifts)
        of_rows = -np.where(self.y == 1, np.log(p), np.log(1 - p))
        return (of_rows * self.seen).sum(0) / self.seen.sum(0)

    def attacked(self, strength: float, steps: int) -> np.ndarray:
        """Return the shifts of projected gradient ascent on the sum of both losses."""
        radius = strength * np.sqrt(np.mean(np.sum(self.z**2, axis=1)))
        size, shifts = min(1.0, 2.5 / steps), np.zeros_like(self.z)
        for _ in range(steps):
            share = self.seen * (self.probabilities(shifts) - self.y) / self.seen.sum(0)
            gradient = share @ self.w.T
            shifts += size * radius * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
            shifts *= np.minimum(1.0, radius / np.linalg.norm(shifts, axis=1, keepdims=True))
        return shifts
