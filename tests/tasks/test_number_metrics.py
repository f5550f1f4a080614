"""Metrics of numbers: values derived by hand, plain loops, scikit-learn, missing labels and weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfmtl.tasks.label_metrics import binary_metrics, regression_metrics
from tfmtl.tasks.number_metrics import (
    mean_deviance,
    normalized_gini,
    quantile_metrics,
    ratio_of_sums,
    weighted_quantiles,
    xauc,
)

NAN = float("nan")
RNG = np.random.default_rng(3)
METRICS: dict[str, Any] = {
    "xauc": xauc,
    "gini": normalized_gini,
    "poisson": mean_deviance,
    "tweedie": lambda *rows: mean_deviance(*rows, power=1.25),
    "calibration": ratio_of_sums,
    "pinball": lambda y, f, w: quantile_metrics(y, np.stack([f, f + 1], 1), w, [0.25, 0.75])["pinball"],
}


def by_pairs(labels: Any, predictions: Any, weights: Any) -> float:
    """Compare every pair of rows."""
    right, total = 0.0, 0.0
    for i, low in enumerate(labels):
        for j, high in enumerate(labels):
            if low < high:
                pair = weights[i] * weights[j]
                total += pair
                right += pair * (1.0 if predictions[i] < predictions[j] else 0.5 * (predictions[i] == predictions[j]))
    return right / total


@pytest.mark.parametrize("others", [2, 9, 10_000])
@pytest.mark.parametrize("values", [3, 9, 70, 10_000])
@pytest.mark.parametrize("weighted", [False, True])
def test_xauc_is_the_share_of_ordered_pairs(values: int, others: int, weighted: bool) -> None:
    """Few values make ties in labels and predictions; 130 rows need three digits of the ranks."""
    labels, predictions = RNG.integers(0, values, 130).astype(float), RNG.integers(0, others, 130) / 7
    weights = RNG.integers(0, 4, 130).astype(float) if weighted else np.ones(130)
    assert xauc(labels, predictions, weights) == pytest.approx(by_pairs(labels, predictions, weights), rel=1e-12)


def test_xauc_golden_value() -> None:
    """Pairs (1, 2) and (1, 4) with weights 2 and 6 are right, (2, 4) with weight 3 is tied: (8 + 1.5) / 11."""
    assert xauc([1.0, 2.0, 4.0], [0.0, 5.0, 5.0], [2.0, 1.0, 3.0]) == pytest.approx(9.5 / 11)


def test_xauc_of_labels_0_and_1_is_the_auc() -> None:
    labels, scores, weights = RNG.integers(0, 2, 80), RNG.integers(0, 9, 80) / 8, RNG.integers(1, 4, 80)
    assert xauc(labels, scores, weights) == pytest.approx(binary_metrics(labels, scores, weights)["auc"], rel=1e-12)
    assert regression_metrics(labels, scores, weights)["xauc"] == xauc(labels, scores, weights)


def test_normalized_entropy_is_the_log_loss_over_that_of_the_base_rate() -> None:
    """The share of positives is 3 / 4: its entropy is log 4 - 3/4 log 3."""
    found = binary_metrics([1, 0, 1], [0.5, 0.5, 0.5], [1.0, 1.0, 2.0])["normalized_entropy"]
    assert found == pytest.approx(math.log(2) / (math.log(4) - 0.75 * math.log(3)))
    assert binary_metrics([1, 0, 1], [0.75] * 3, [1.0, 1.0, 2.0])["normalized_entropy"] == pytest.approx(1)
    assert math.isnan(binary_metrics([1, 1], [0.5, 0.5])["normalized_entropy"])


def test_gini_golden_values() -> None:
    """In descending order of the prediction the labels are 1, 3, 0 of 4: L = 1/4, 1, 1 at F = 1/3, 2/3, 1.

    The area is (1/8 + 5/8 + 1) / 3 = 7/12, the Gini 1/6. The best order 3, 1, 0 has L = 3/4, 1, 1: area
    (3/8 + 7/8 + 1) / 3 = 3/4, Gini 1/2.
    """
    assert normalized_gini([0.0, 3.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(1 / 3)
    assert normalized_gini([0.0, 3.0, 1.0], [-1.0, -2.0, -3.0]) == pytest.approx(-1 / 3)


def test_gini_of_events_is_that_of_the_auc() -> None:
    labels, scores, weights = RNG.integers(0, 2, 80), RNG.integers(0, 9, 80) / 8, RNG.integers(1, 4, 80)
    auc = binary_metrics(labels, scores, weights)["auc"]
    assert normalized_gini(labels, scores, weights) == pytest.approx(2 * auc - 1)


@pytest.mark.parametrize("power", [1.0, 1.25, 1.9, 1.999])
def test_deviance_equals_scikit_learn(power: float) -> None:
    labels, means, weights = RNG.poisson(2.0, 50), RNG.exponential(2.0, 50), RNG.integers(1, 4, 50)
    expected = sklearn_metrics.mean_tweedie_deviance(labels, means, sample_weight=weights, power=power)
    assert mean_deviance(labels, means, weights, power=power) == pytest.approx(expected)
    nothing = mean_deviance(labels, np.where(labels > 0, means, 0.0), weights, power=power)
    above = labels > 0
    rows = labels[above], means[above]
    expected = sklearn_metrics.mean_tweedie_deviance(*rows, sample_weight=weights[above], power=power)
    assert nothing == pytest.approx(expected * weights[above].sum() / weights.sum())
    assert mean_deviance(labels, 0 * means, weights, power=power) == math.inf
    assert mean_deviance([0.0], [0.0], power=power) == pytest.approx(0, abs=1e-20)
    assert mean_deviance([1.0, 2.0], [0.0, 2.0], [0.0, 1.0], power=power) == 0


def test_quantile_golden_values() -> None:
    """Labels 1 and 9, weights 1 and 3: errors -1, 7 of the 20 % quantile 2, and -5, 3 of the 60 % quantile 6."""
    found = quantile_metrics([1.0, 9.0], [[2.0, 6.0]] * 2, [1.0, 3.0], [0.2, 0.6])
    low, high = (0.8 * 1 + 3 * 0.2 * 7) / 4, (0.4 * 5 + 3 * 0.6 * 3) / 4
    assert found == pytest.approx(
        {
            "pinball": (low + high) / 2, "pinball_0.2": low, "pinball_0.6": high, "coverage_0.2": 1 / 4,
            "coverage_0.6": 1 / 4, "interval_coverage": 0, "interval_width": 4, "mae": (5 + 3 * 3) / 4,
        }
    )  # fmt: skip


def test_pinball_equals_scikit_learn() -> None:
    labels, predictions, weights = RNG.normal(size=50), RNG.normal(size=50), RNG.integers(1, 4, 50)
    found = quantile_metrics(labels, predictions[:, np.newaxis], weights, [0.3])
    expected = sklearn_metrics.mean_pinball_loss(labels, predictions, sample_weight=weights, alpha=0.3)
    assert found["pinball"] == pytest.approx(expected)
    assert "interval_width" not in found


def test_weighted_quantiles_are_those_of_repeated_values() -> None:
    values, weights = RNG.normal(size=40), RNG.integers(0, 5, 40)
    quantiles = [0.01, 0.1, 0.5, 0.77, 0.99]
    expected = np.quantile(np.repeat(values, weights), quantiles, method="inverted_cdf")
    np.testing.assert_array_equal(weighted_quantiles(values, weights, quantiles), expected)
    np.testing.assert_array_equal(weighted_quantiles(values, weights * 0.1, quantiles), expected)


@pytest.mark.parametrize("name", METRICS)
def test_missing_labels_and_weights_of_0_do_not_count(name: str) -> None:
    labels, predictions = np.array([1.0, 3.0, NAN, 2.0, 0.0]), np.array([0.5, 2.0, 9.0, 4.0, 1.0])
    weights, kept = np.array([1.0, 2.0, 5.0, 0.0, 3.0]), [0, 1, 4]
    found = METRICS[name](labels, predictions, weights)
    assert found == pytest.approx(METRICS[name](labels[kept], predictions[kept], weights[kept]))
    assert math.isnan(METRICS[name](np.array([NAN]), np.array([1.0]), np.array([1.0])))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mean_deviance([-1.0], [1.0]), "Labels of the deviance must be 0 or more"),
        (lambda: mean_deviance([1.0], [-1.0]), "Predictions of the deviance must be 0 or more"),
        (lambda: mean_deviance([1.0], [1.0], power=2.0), r"`power` must lie in \[1, 2\)"),
        (lambda: normalized_gini([-1.0], [1.0]), "Labels of the Gini coefficient must be 0 or more"),
        (lambda: quantile_metrics([1.0], [[1.0]], None, [0.1, 0.5]), "Predicted quantiles must have the shape"),
        (lambda: weighted_quantiles([1.0], [0.0], [0.5]), "Quantiles need at least one value"),
        (lambda: xauc([1.0, 2.0], [1.0, NAN]), "predictions of rows that count must be finite"),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_labels_of_one_value_have_no_order() -> None:
    assert math.isnan(xauc([2.0, 2.0], [1.0, 3.0]))
    assert math.isnan(normalized_gini([2.0, 2.0], [1.0, 3.0]))
