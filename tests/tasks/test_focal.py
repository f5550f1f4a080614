"""The focal loss and class-balanced weights of a binary task."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import tf
from tfmtl.data import Statistics
from tfmtl.tasks import BinaryClassification, LossInputs
from tfmtl.tasks.focal import best_logit, class_balanced_weights

LOG_3 = math.log(3)
FOCAL = BinaryClassification("t", focal_gamma=2.0)
WEIGHTED = BinaryClassification("t", class_weights=(0.5, 3.0))


def test_golden_loss_of_the_focal_loss() -> None:
    """p = 3/4 for a positive: (1/4)^2 log 4/3; p = 1/2 for a negative, weight 3: (1/2)^2 log 2."""
    loss, weight, _ = loss_of(FOCAL, [1, 0], [[LOG_3], [0]], [1.0, 3.0])
    assert loss == pytest.approx((math.log(4 / 3) / 16 + 3 * math.log(2) / 4) / 4, rel=1e-6)
    assert weight == 4


def test_golden_loss_of_class_weights() -> None:
    loss, weight, gradient = loss_of(WEIGHTED, [1, 0], [[LOG_3], [0]], [1.0, 3.0])
    assert loss == pytest.approx((3 * math.log(4 / 3) + 3 * 0.5 * math.log(2)) / 4, rel=1e-6)
    np.testing.assert_allclose(gradient[:, 0], [3 * (3 / 4 - 1) / 4, 3 * 0.5 * (1 / 2) / 4], rtol=1e-6)
    assert weight == 4


def test_gamma_0_and_weights_of_1_are_exactly_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, 30).astype(float), rng.normal(size=[30, 1]), rng.random(30)
    plain = loss_of(BinaryClassification("t", focal_gamma=0, class_weights=(1, 1)), *rows)
    for found, expected in zip(plain, loss_of(BinaryClassification("t"), *rows), strict=True):
        np.testing.assert_array_equal(found, expected)
    near = loss_of(BinaryClassification("t", focal_gamma=1e-9), *rows)
    assert near[0] == pytest.approx(plain[0], rel=1e-6)
    np.testing.assert_allclose(near[2], plain[2], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("task", [FOCAL, WEIGHTED, BinaryClassification("t", focal_gamma=0.5, class_weights=(2, 0.1))])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("output", [-1e4, 1e4])
def test_extremes_are_finite(task: BinaryClassification, label: int, output: float) -> None:
    loss, _, gradient = loss_of(task, [label], [[output]], [1.0])
    wrong = (output > 0) != (label == 1)
    assert loss == pytest.approx(1e4 * task.class_weights[label] if wrong else 0)
    assert abs(gradient[0, 0]) == pytest.approx(task.class_weights[label] if wrong else 0)


def test_missing_rows_touch_neither_loss_nor_gradient() -> None:
    some, weight, gradient = loss_of(FOCAL, [1, NAN, 0], [[0.3], [2.0], [-1.0]], [1.0, 0.0, 2.0])
    assert some == pytest.approx(loss_of(FOCAL, [1, 0], [[0.3], [-1.0]], [1.0, 2.0])[0], rel=1e-6)
    assert weight == 3
    assert gradient[1, 0] == 0
    assert loss_of(FOCAL, [NAN], [[0.3]], [0.0])[:2] == (0, 0)


def test_label_smoothing_smooths_both_terms() -> None:
    """s = 0.2 and a positive with p = 1/2 at gamma 1: (0.9 + 0.1) log 2 / 2."""
    task = BinaryClassification("t", focal_gamma=1.0, label_smoothing=0.2)
    loss, _, gradient = loss_of(task, [1], [[0.0]], [1.0], LossInputs({}, training=True))
    assert loss == pytest.approx(math.log(2) / 2)
    # d/dz of (1 - p) (-log p) at 0 is -(1 - p)^2 + p (1 - p) log p, and its mirror image for the other label.
    assert gradient[0, 0] == pytest.approx((0.9 - 0.1) * (-1 / 4 - math.log(2) / 4))


@pytest.mark.parametrize(("gamma", "weights"), [(0.0, (0.5, 3.0)), (2.0, (1.0, 1.0)), (1.0, (0.5, 3.0))])
def test_the_first_logit_is_that_of_least_loss(gamma: float, weights: tuple[float, float]) -> None:
    labels = np.array([1.0] + [0.0] * 9)
    task = BinaryClassification("t", focal_gamma=gamma, class_weights=weights)
    (best,) = task.initial_bias({"t": summary(labels)}) or []  # type: ignore[dict-item]
    losses = [loss_of(task, labels, np.full([10, 1], best + d), [1.0] * 10)[0] for d in (-0.05, 0.0, 0.05)]
    assert losses[1] < min(losses[0], losses[2])
    assert task.initial_bias({}) is None


def test_probabilities_of_the_focal_loss_are_nearer_to_one_half_in_the_same_order() -> None:
    rates = np.linspace(0.01, 0.99, 99)
    logits = np.array([best_logit(rate, 2.0, (1.0, 1.0)) for rate in rates])
    assert (np.diff(logits) > 0).all()
    true = np.log(rates / (1 - rates))
    assert (np.abs(logits) <= np.abs(true) + 1e-6).all()
    assert abs(logits[0]) < 0.6 * abs(true[0])


def test_class_weights_shift_the_best_logit_by_their_quotient() -> None:
    assert best_logit(0.1, 0.0, (0.5, 3.0)) == pytest.approx(math.log(1 / 9) + math.log(6))


def test_class_balanced_weights_are_inverse_to_effective_numbers() -> None:
    """Of 10 labels 2 are positive, beta 0.9: E = 10 (1 - 0.9^n), 8 and 2 rows; the mean weight is 1."""
    negative, positive = class_balanced_weights(10, 0.2, 0.9)
    assert positive / negative == pytest.approx((1 - 0.9**8) / (1 - 0.9**2))
    assert 0.8 * negative + 0.2 * positive == pytest.approx(1)
    task = BinaryClassification.class_balanced("t", summary([1] * 2 + [0] * 8), beta=0.9, focal_gamma=1.0)
    assert task.class_weights == pytest.approx((negative, positive))
    assert task.focal_gamma == 1
    by_name = Statistics({}, {}, {}, {"t": summary([1] * 2 + [0] * 8)}, 10)
    assert BinaryClassification.class_balanced("t", by_name, beta=0.9).class_weights == task.class_weights


def test_metrics_are_those_of_the_probabilities() -> None:
    measured = []
    for task in (BinaryClassification("t"), BinaryClassification("t", focal_gamma=2.0, class_weights=(2, 3))):
        task.update_metrics(tf.constant([1.0, 0.0]), tf.constant([[0.3], [2.0]]), tf.ones([2]))
        measured.append([float(metric.result()) for metric in task.metrics])
    assert measured[0] == measured[1]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: BinaryClassification("t", focal_gamma=-1), "`focal_gamma` of task 't' must be 0 or more."),
        (
            lambda: BinaryClassification("t", class_weights=(0, 1)),
            "`class_weights` of task 't' must be two numbers",
        ),
        (lambda: BinaryClassification("t", class_weights=(1.0,)), "Received: class_weights=(1.0,)."),
        (
            lambda: BinaryClassification.class_balanced("t", summary([1, 1])),
            "Class weights of task 't' need training labels of both classes. Received: mean=1.0.",
        ),
        (lambda: BinaryClassification.class_balanced("t", summary([0, 1]), beta=1.0), "`beta` must be a number in"),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()
