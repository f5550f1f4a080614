"""Metrics of ranking tasks: values derived by hand, scikit-learn, missing labels, weights, degenerate labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfmtl.tasks.label_metrics import (
    binary_metrics,
    multiclass_metrics,
    observed,
    regression_metrics,
)

NAN = float("nan")
RNG = np.random.default_rng(0)
BINARY = (RNG.integers(0, 2, 60).astype(float), RNG.integers(0, 9, 60) / 8)
NUMBERS = (RNG.normal(size=60), RNG.normal(size=60))
CLASSES = (RNG.integers(0, 3, 60).astype(float), RNG.dirichlet([1, 1, 1, 1], 60))
WEIGHTS = RNG.integers(0, 4, 60).astype(float)
EVERY_METRIC = pytest.mark.parametrize(
    ("metric", "labels", "predictions"),
    [(binary_metrics, *BINARY), (regression_metrics, *NUMBERS), (multiclass_metrics, *CLASSES)],
    ids=["binary", "regression", "multiclass"],
)


def test_binary_golden_values() -> None:
    found = binary_metrics([1, 0, 1, 0], [0.8, 0.4, 0.4, 0.1])
    # Pairs (positive, negative): 0.8 beats both, 0.4 ties with 0.4 and beats 0.1: 3.5 of 4.
    assert found["auc"] == pytest.approx(3.5 / 4)
    assert found["log_loss"] == pytest.approx(-math.log(0.8 * 0.6 * 0.4 * 0.9) / 4)
    # Thresholds 0.8: recall 1/2 at precision 1; 0.4: a further recall of 1/2 at precision 2/3.
    assert found["average_precision"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert found["calibration"] == pytest.approx(1.7 / 2)


def test_regression_golden_values() -> None:
    found = regression_metrics([1.0, 2.0, 6.0], [1.0, 4.0, 5.0])
    # Errors 0, 2, -1; the labels' mean is 3, their squared deviations 4 + 1 + 9. All three pairs are in order.
    assert found == pytest.approx({"rmse": math.sqrt(5 / 3), "mae": 1.0, "r2": 1 - 5 / 14, "xauc": 1.0})


def test_multiclass_golden_values() -> None:
    found = multiclass_metrics([0, 1, 1], [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    # The predicted class of the second row is 0. Class 0 against the rest: 0.6 above 0.5 and 0.1; class 1: 0.4 and 0.8
    # above 0.3; class 2 does not occur.
    assert found == pytest.approx({"accuracy": 2 / 3, "log_loss": -math.log(0.6 * 0.4 * 0.8) / 3, "macro_auc": 1.0})


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equals_scikit_learn(weights: np.ndarray | None) -> None:
    label, score = BINARY
    found = binary_metrics(label, score, weights)
    assert found["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label, score, sample_weight=weights))
    expected = sklearn_metrics.log_loss(label, np.clip(score, 1e-7, 1 - 1e-7), sample_weight=weights)
    assert found["log_loss"] == pytest.approx(expected)
    found = regression_metrics(*NUMBERS, weights)
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(*NUMBERS, sample_weight=weights))
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(*NUMBERS, sample_weight=weights))
    label, probability = CLASSES[0], CLASSES[1][:, :3] / CLASSES[1][:, :3].sum(axis=1, keepdims=True)
    found = multiclass_metrics(label, probability, weights)
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(label, probability, sample_weight=weights))
    expected = [sklearn_metrics.roc_auc_score(label == c, probability[:, c], sample_weight=weights) for c in (0, 1, 2)]
    assert found["macro_auc"] == pytest.approx(np.mean(expected))


@EVERY_METRIC
def test_missing_labels_and_zero_weights_count_nowhere(metric, labels, predictions) -> None:  # noqa: ANN001
    missing = np.arange(60) % 3 == 0
    expected = metric(labels[~missing], predictions[~missing])
    holes, broken = np.where(missing, NAN, labels), predictions.copy()
    broken[missing] = NAN
    assert metric(holes, broken) == expected
    assert metric(labels, broken, np.where(missing, 0.0, 1.0)) == expected


@EVERY_METRIC
def test_weight_is_repetition(metric, labels, predictions) -> None:  # noqa: ANN001
    times = WEIGHTS.astype(int)
    repeated = metric(np.repeat(labels, times), np.repeat(predictions, times, axis=0))
    assert metric(labels, predictions, WEIGHTS) == pytest.approx(repeated)
    assert metric(labels, predictions, 1e-10 * WEIGHTS) == pytest.approx(repeated)
    assert metric(labels, predictions, 1e15 * WEIGHTS) == pytest.approx(repeated)


@EVERY_METRIC
def test_nothing_observed_is_nan(metric, labels, predictions) -> None:  # noqa: ANN001
    for found in (metric(np.full(60, NAN), predictions), metric(labels, predictions, np.zeros(60))):
        assert found.keys() == metric(labels, predictions).keys()
        assert all(math.isnan(value) for value in found.values())


def test_one_class() -> None:
    only_negatives = binary_metrics([0, 0, NAN], [0.5, 0.5, 0.9])
    assert only_negatives["log_loss"] == pytest.approx(math.log(2))
    assert all(math.isnan(only_negatives[name]) for name in ("auc", "average_precision", "calibration"))
    only_positives = binary_metrics([1, 1], [0.5, 0.75])
    assert math.isnan(only_positives["auc"])
    assert only_positives["calibration"] == pytest.approx(1.25 / 2)
    assert math.isnan(multiclass_metrics([1, 1], [[0.5, 0.5], [0.5, 0.5]])["macro_auc"])
    assert math.isnan(regression_metrics([3, 3], [1, 2])["r2"])


def test_certain_and_wrong_is_finite() -> None:
    assert binary_metrics([1, 0], [0.0, 1.0])["log_loss"] == pytest.approx(-math.log(1e-7))
    assert multiclass_metrics([1], [[1.0, 0.0]])["log_loss"] == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binary_metrics([0, 2], [0.1, 0.2]), "labels must be 0, 1 or NaN"),
        (lambda: binary_metrics([0, 1], [0.1, 1.2]), r"Probabilities must lie in \[0, 1\]"),
        (lambda: binary_metrics([0, 1], [0.1, NAN]), "predictions of rows that count must be finite"),
        (lambda: binary_metrics([0, 1], [0.1]), "one entry for each row"),
        (lambda: binary_metrics([0, 1], [[0.1], [0.2]]), r"must have the shape \[n\]"),
        (lambda: regression_metrics([0, 1], [0, 1], [1, -1]), "Weights must not be negative"),
        (lambda: regression_metrics([0, np.inf], [0, 1]), "labels of rows that count must be finite"),
        (lambda: multiclass_metrics([0, 2], [[0.5, 0.5]] * 2), "classes from 0 to 1"),
        (lambda: multiclass_metrics([0, 0.5], [[0.5, 0.5]] * 2), "classes from 0 to 1"),
        (lambda: multiclass_metrics([0], [[0.5, 0.4]]), "must sum to 1"),
        (lambda: multiclass_metrics([0], [0.5]), r"shape \[n, classes\]"),
        (lambda: observed([1.0], weights=[1.0, 2.0]), "one entry for each row"),
    ],
)
def test_refuses(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()
