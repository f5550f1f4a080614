from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.compression import models
from tfmtl._keras import tf
from tfmtl.compression.cross_task import check_cross_task, order_loss
from tfmtl.compression.distilled import DistilledModel
from tfmtl.data import Preprocessor, to_batch
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, LossInputs, Regression

RNG = np.random.default_rng(2)


def by_hand(z: np.ndarray, t: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Divergences of the pairs (i, i + 1), the last row being followed by the first."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    found = []
    for i in range(len(z)):
        j = (i + 1) % len(z)
        if labels[i] == labels[j] and weights[i] > 0 and weights[j] > 0:
            p, q = sigmoid(t[i] - t[j]), sigmoid(z[i] - z[j])
            found.append(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    return float(np.mean(found))


def test_loss_is_the_divergence_of_pairs_with_equal_labels() -> None:
    z, t = RNG.normal(size=(2, 20)).astype(np.float32)
    labels, weights = RNG.integers(0, 2, 20).astype(np.float32), (RNG.random(20) < 0.7).astype(np.float32)
    assert float(order_loss(z, t, labels, weights)) == pytest.approx(by_hand(z, t, labels, weights), rel=1e-4)
    assert float(order_loss(t + 5.0, t, labels, weights)) == pytest.approx(0.0, abs=1e-6)  # only differences count
    assert float(order_loss(z, t, labels, np.zeros(20, np.float32))) == 0.0
    assert float(order_loss(z[:1], t[:1], labels[:1], np.ones(1, np.float32))) == 0.0


def test_gradient_moves_the_student_to_the_teachers_order() -> None:
    logits, taught = tf.Variable([0.0, 0.0]), tf.constant([2.0, -1.0])
    with tf.GradientTape() as tape:
        loss = order_loss(tf.identity(logits), taught, tf.ones([2]), tf.ones([2]))
    first, second = tape.gradient(loss, logits).numpy()
    assert first < 0 < second


def table() -> pd.DataFrame:
    """The models' table with a second label of yes or no."""
    return models.table().assign(seen=np.arange(models.ROWS) % 3 == 0)


def two_events(cross_task: Any, width: int = 3) -> DistilledModel:
    """A student and a teacher of "liked" and "seen", both of yes or no."""
    preprocessor = Preprocessor.fit(models.SCHEMA, table())
    built = []
    for seed in (1, 2):
        heads = [BinaryClassification("liked"), BinaryClassification("seen")]
        network = build_network(preprocessor, heads, embedding_dim=width, seed=seed)
        built.append(MultiTaskModel(network, heads, preprocessor))
    return DistilledModel.of(built[0], built[1], alpha=0.0, cross_task=cross_task)


def test_a_task_learns_from_the_teacher_of_another() -> None:
    model = two_events({"liked": {"seen": 0.5}})
    batch = to_batch(table(), model.preprocessor)
    losses = model.compute_losses(batch, training=True)
    own, taught = (m(batch.features) for m in (model, model.teacher))
    extra = order_loss(own["liked"][:, 0], taught["seen"][:, 0], batch.labels["liked"], batch.weights["liked"])
    hard, _ = model.tasks[0].compute_loss(
        batch.labels["liked"], own["liked"], batch.weights["liked"], LossInputs(batch.features)
    )
    assert float(extra) > 0
    assert float(losses["liked"][0]) == pytest.approx(float(hard) + 0.5 * float(extra), rel=1e-4)
    plain = two_events(None).compute_losses(batch, training=True)
    np.testing.assert_allclose(losses["seen"], plain["seen"])
    assert model.with_network(model.network).cross_task == {"liked": {"seen": 0.5}}


def test_what_is_no_question_of_yes_or_no_is_refused() -> None:
    heads = [BinaryClassification("a"), BinaryClassification("b"), Regression("c")]
    with pytest.raises(ValueError, match=r"Unknown task \['c'\] in `cross_task` \(tasks of yes or no\)"):
        check_cross_task({"c": {"a": 1.0}}, heads)
    with pytest.raises(ValueError, match=r"Unknown task \['a'\] in `cross_task\['a'\]`"):
        check_cross_task({"a": {"a": 1.0}}, heads)
    with pytest.raises(ValueError, match=r"`cross_task\['a'\]\['b'\]` must be 0 or more"):
        check_cross_task({"a": {"b": -1.0}}, heads)
