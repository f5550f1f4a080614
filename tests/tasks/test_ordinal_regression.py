"""Ordinal regression: loss, order, expected levels, first outputs, reports."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tests.tasks.losses import loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import keras, tf
from tfmtl.tasks import BinaryClassification, HeadInputs, LossInputs, OrdinalRegression
from tfmtl.tasks.number_metrics import level_metrics
from tfmtl.tasks.ordered_thresholds import OrderedThresholds

LOG_3 = math.log(3)
TASK = OrdinalRegression("t", [1, 2, 4])


def test_golden_loss() -> None:
    """P(y > 1) = 3/4, P(y > 2) = 1/4: for 1 the loss is (log 4 + log 4/3) / 2, for 2 it is log 4/3 twice."""
    loss, weight, gradient = loss_of(TASK, [1, 2], [[LOG_3, -LOG_3]] * 2, [1.0, 3.0])
    assert loss == pytest.approx(((math.log(4) + math.log(4 / 3)) / 2 + 3 * math.log(4 / 3)) / 4, rel=1e-6)
    assert weight == 4
    # (p - [y > level]) / 2 thresholds, times the share of the weight.
    np.testing.assert_allclose(gradient, np.array([[0.75, 0.25], [3 * -0.25, 3 * 0.25]]) / 8, rtol=1e-5)


def test_two_levels_are_a_binary_classification() -> None:
    labels, outputs, weights = [0.0, 1.0, 1.0], [[0.3], [-2.0], [1.5]], [1.0, 2.0, 1.0]
    found = loss_of(OrdinalRegression("t", [0, 1]), labels, outputs, weights)[0]
    assert found == pytest.approx(loss_of(BinaryClassification("t"), labels, outputs, weights)[0], rel=1e-6)


def test_served_is_the_expected_level() -> None:
    """Levels 1, 2, 4 have the probabilities 1/4, 1/2, 1/4: (1 + 4 + 4) / 4."""
    assert float(TASK.predict(tf.constant([[LOG_3, -LOG_3]]))[0]) == pytest.approx(9 / 4)
    extreme = TASK.predict(tf.constant([[-1e4, -1e4], [1e4, 1e4]])).numpy()
    assert extreme.tolist() == [1, 4]


@pytest.mark.parametrize("output", [-1e4, 1e4])
@pytest.mark.parametrize("label", [1.0, 2.0, 4.0])
def test_extremes_are_finite(label: float, output: float) -> None:
    loss, _, gradient = loss_of(TASK, [label], [[output, output]], [1.0])
    assert math.isfinite(loss)
    assert (np.abs(gradient) <= 0.5).all()


def test_thresholds_descend_for_any_weights_and_share_one_score() -> None:
    layer, score = OrderedThresholds(4), tf.constant([[0.5], [-3.0]])
    first = layer(score).numpy()
    np.testing.assert_allclose(tf.sigmoid(first[0] - 0.5), [4 / 5, 3 / 5, 2 / 5, 1 / 5], rtol=1e-5)  # equal levels
    np.testing.assert_allclose(first[0] - first[1], 3.5, rtol=1e-5)
    for scale in (1.0, 1e4):
        layer.set_weights([np.array([3.0, -1.0, 2.0, 0.5]) * scale])
        assert (np.diff(layer(score), axis=1) <= 0).all()


def test_the_head_starts_at_the_shares_of_the_training_labels() -> None:
    """Of ten labels, 8 are above 1 and 3 above 2; without a label above 2, the rate counts half a label."""
    for labels, rates in (([1] * 2 + [2] * 5 + [4] * 3, [0.8, 0.3]), ([1] * 4 + [2] * 6, [0.6, 0.05])):
        query = keras.Input([3])
        output = TASK.connect(HeadInputs(query, None, {"t": query}, labels={"t": summary(labels)}))  # type: ignore[dict-item]
        found = tf.sigmoid(keras.Model(query, output)(tf.zeros([1, 3])))[0]
        np.testing.assert_allclose(found, rates, rtol=1e-4)
    assert TASK.initial_bias({}) is None


def test_a_report_holds_accuracy_and_kappa() -> None:
    labels, served = np.array([1.0, 2.0, 4.0], np.float32), np.array([1.2, 3.5, 3.9])
    found = TASK.report(labels, served, np.ones(3))
    assert list(found) == ["rmse", "mae", "r2", "xauc", "accuracy", "kappa"]
    assert found["accuracy"] == pytest.approx(2 / 3)
    # Numbers 0, 1, 2 against 0, 2, 2: squares 1 / 3; of all pairs 5/3 + 8/3 - 2 * 1 * 4/3 = 5/3.
    assert found["kappa"] == pytest.approx(1 - (1 / 3) / (5 / 3))


def test_kappa_equals_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    levels, weights = [0.5, 1.0, 1.5, 2.0], rng.integers(1, 4, 80)
    own, near = rng.integers(0, 4, 80), rng.integers(0, 4, 80)
    found = level_metrics(np.array(levels)[own], np.array(levels)[near] + rng.uniform(-0.2, 0.2, 80), weights, levels)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(own, near, weights="quadratic", sample_weight=weights))
    missing = level_metrics([math.nan], [1.0], None, levels)
    assert np.isnan(list(missing.values())).all()


def test_distillation_is_the_divergence_of_every_event() -> None:
    """At T = 2, a teacher with logits 0 and a student with 2 log 3: 4 (log 2 + log 2/3) / 2 at both thresholds."""
    student, teacher = tf.constant([[2 * LOG_3] * 2, [9.0, 0.0]]), tf.zeros([2, 2])
    loss = TASK.distillation_loss(student, teacher, tf.constant([1.0, 0.0]), LossInputs({}), 2.0)
    assert float(loss) == pytest.approx(2 * math.log(4 / 3), rel=1e-5)


def test_labels_are_levels() -> None:
    task = OrdinalRegression("t", [0.1, 0.5, 0.9])
    usable = task.usable_labels(tf.constant([0.1, 0.9, 0.4, 1.0]))
    assert usable.numpy().tolist() == [True, True, False, False]
    task.check_labels(summary(np.float32([0.1, 0.9])))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: OrdinalRegression("t", [1]), "`levels` of task 't' must be at least two ascending numbers."),
        (lambda: OrdinalRegression("t", [1, 3, 2]), "Received: levels=[1, 3, 2]."),
        (
            lambda: TASK.check_labels(summary([1, 3])),
            "Task 't' needs labels that are one of [1.0, 2.0, 4.0]. Received: labels=[3.0].",
        ),
        (lambda: TASK.check_labels(summary(range(2000))), "Received: labels=[0.0, 1999.0]."),
        (lambda: TASK.check_labels(summary([2, 2])), "Every training label of regression task 't' is the same."),
        (lambda: level_metrics([3.0], [1.0], None, [1, 2]), "Labels must be NaN or one of [1, 2]."),
        (lambda: OrderedThresholds(2, [0.0, 1.0]), "`start` must hold 2 descending numbers."),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()
