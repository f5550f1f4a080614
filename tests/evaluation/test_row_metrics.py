"""Streaming metrics of rows: scikit-learn on a hundred random cases, batches, missing labels, configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tests.models import small
from tfmtl import evaluation
from tfmtl._keras import keras, tf
from tfmtl.tasks import BinaryClassification, Regression

CASES = 100
Case = tuple[np.ndarray, np.ndarray, np.ndarray]
NAN = float("nan")


def case(seed: int, binary: bool) -> Case:
    """Return labels with NaN, predictions with ties and weights with zeros."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(4, 60))
    labels = rng.integers(0, 2, rows).astype(float) if binary else rng.normal(3, 2, rows)
    labels[:2], missing = [0, 1], rng.random(rows) < 0.2
    missing[:2] = False
    predictions = rng.integers(0, 12, rows) / 11 if binary else labels + rng.normal(size=rows)
    weights = np.where(rng.random(rows) < 0.2, 0.0, rng.gamma(2.0, size=rows))
    weights[:2] = 1.0
    return np.where(missing, NAN, labels), predictions, weights


def observed(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> Case:
    kept = ~np.isnan(labels) & (weights > 0)
    return labels[kept], predictions[kept], weights[kept]


def best_f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> float:
    scores = [sklearn_metrics.f1_score(labels, predictions >= t, sample_weight=weights) for t in np.unique(predictions)]
    return max(scores)


def error_of_calibration(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> float:
    """Return sum_b W_b / W |mean p - mean y|, bin by bin."""
    total = 0.0
    for low in np.arange(10) / 10:
        inside = (predictions >= low) & ((predictions < low + 0.1) | (low == 0.9))
        if inside.any():
            w = weights[inside]
            total += w.sum() * abs(np.average(predictions[inside], weights=w) - np.average(labels[inside], weights=w))
    return total / weights.sum()


def by_weight(metric: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    return lambda labels, predictions, weights: metric(labels, predictions, sample_weight=weights)


PAIRS = {
    "auc": (evaluation.AUC, by_weight(sklearn_metrics.roc_auc_score), True),
    "average precision": (evaluation.AveragePrecision, by_weight(sklearn_metrics.average_precision_score), True),
    "f1": (evaluation.F1, best_f1, True),
    "calibration": (evaluation.CalibrationError, error_of_calibration, True),
    "r2": (evaluation.R2, by_weight(sklearn_metrics.r2_score), False),
}


@pytest.mark.parametrize(("make", "reference", "binary"), list(PAIRS.values()), ids=list(PAIRS))
def test_a_hundred_random_cases_in_batches_equal_the_reference(make: Any, reference: Any, binary: bool) -> None:
    metric = make()
    for seed in range(CASES):
        metric.reset_state()
        labels, predictions, weights = case(seed, binary)
        for part in np.array_split(np.arange(len(labels)), 1 + seed % 3):
            metric.update_state(labels[part], predictions[part], sample_weight=weights[part])
        assert float(metric.result()) == pytest.approx(reference(*observed(labels, predictions, weights)), abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "reference", "binary"),
    [
        (keras.metrics.MeanAbsoluteError(), by_weight(sklearn_metrics.mean_absolute_error), False),
        (keras.metrics.MeanSquaredError(), by_weight(sklearn_metrics.mean_squared_error), False),
        (keras.metrics.BinaryCrossentropy(), by_weight(sklearn_metrics.log_loss), True),
    ],
    ids=["mae", "mse", "log loss"],
)
def test_what_keras_has_equals_scikit_learn(metric: Any, reference: Any, binary: bool) -> None:
    for seed in range(CASES):
        metric.reset_state()
        labels, predictions, weights = observed(*case(seed, binary))
        predictions = np.clip(predictions, 0.01, 0.99) if binary else predictions
        metric.update_state(labels[:, None], predictions[:, None], sample_weight=weights)
        assert float(metric.result()) == pytest.approx(reference(labels, predictions, weights), rel=2e-6)


def test_grouped_auc_is_the_mean_of_the_groups() -> None:
    metric = evaluation.GroupedAUC("user")
    for seed in range(CASES):
        metric.reset_state()
        labels, predictions, weights = case(seed, binary=True)
        groups = np.random.default_rng(seed).integers(0, 4, len(labels))
        metric.update_state(labels, predictions, sample_weight=weights, groups=groups)
        rows = ~np.isnan(labels) & (weights > 0)
        aucs, sizes = [], []
        for group in np.unique(groups[rows]):
            own = rows & (groups == group)
            if len(np.unique(labels[own])) == 2:
                aucs.append(sklearn_metrics.roc_auc_score(labels[own], predictions[own], sample_weight=weights[own]))
                sizes.append(weights[own].sum())
        expected = np.average(aucs, weights=sizes) if aucs else NAN
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_f1_names_its_threshold() -> None:
    # At 0.7: TP 2, FP 1, FN 0, so 2 * 2 / (4 + 1) = 0.8; at 0.9: TP 1, FN 1, so 2 / 3.
    metric = evaluation.F1()
    metric.update_state([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert (float(metric.result()), metric.threshold()) == (pytest.approx(0.8), pytest.approx(0.7))


def test_a_bin_holds_its_upper_edge() -> None:
    # Guo et al. close bins above: 0.45 and 0.5 share (0.4, 0.5] with the gap 0.95 - 1, and 0.55 is alone with 0.55 - 1.
    assert evaluation.calibration_error([1, 0, 1], [0.45, 0.5, 0.55], bins=10) == pytest.approx(0.5 / 3)
    # Every tenth is the upper edge of its own bin, and 0 is in the first bin with 0.1: the gaps are 0, 0.2, ..., 1.
    tenths = np.arange(11) / 10
    assert evaluation.calibration_error(np.zeros(11), tenths, bins=10) == pytest.approx(tenths.sum() / 11)
    assert evaluation.calibration_error([0, 0, 1], [0.0, 0.1, 0.1], bins=10) == pytest.approx(0.8 / 3)


def test_bins_of_equal_mass() -> None:
    # Four rows in two bins of two: |0.3 - 1| + |1.5 - 1| over four rows.
    assert evaluation.calibration_error([0, 1, 0, 1], [0.1, 0.2, 0.7, 0.8], bins=2, equal_mass=True) == pytest.approx(
        (0.7 + 0.5) / 4
    )


@pytest.mark.parametrize("labels", [[], [1.0, 1.0], [0.0, 0.0], [NAN, NAN]])
def test_rows_that_define_nothing_are_nan(labels: list[float]) -> None:
    metric = evaluation.AUC()
    metric.update_state(labels, np.linspace(0, 1, len(labels)))
    assert np.isnan(float(metric.result()))


@pytest.mark.parametrize("make", [evaluation.AUC, evaluation.F1, evaluation.R2])
def test_traced_updates_keep_their_rows(make: Any) -> None:
    metric, (labels, predictions, weights) = make(), case(3, binary=True)

    @tf.function(reduce_retracing=True)
    def traced(y: tf.Tensor, f: tf.Tensor, w: tf.Tensor) -> None:
        metric.update_state(y, f, sample_weight=w)

    for part in np.array_split(np.arange(len(labels)), 4):
        traced(*(tf.constant(x[part], tf.float32) for x in (labels, predictions, weights)))
    whole = make()
    whole.update_state(*(np.float32(x) for x in (labels, predictions)), sample_weight=np.float32(weights))
    assert float(tf.function(metric.result)()) == pytest.approx(float(whole.result()), abs=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        evaluation.AUC("a"), evaluation.AveragePrecision("b"), evaluation.GroupedAUC("user", "c"), evaluation.F1("d"),
        evaluation.CalibrationError(3, True, "e"), evaluation.R2("f"),
    ],
)  # fmt: skip
def test_configuration_round_trip(metric: keras.metrics.Metric) -> None:
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    labels, predictions, _ = case(5, binary=True)
    for each in (metric, again):
        each.update_state(labels, predictions)
    assert float(again.result()) == pytest.approx(float(metric.result()), nan_ok=True)


def test_tasks_bring_them_into_the_evaluation() -> None:
    liked = BinaryClassification("liked", extra_metrics=[evaluation.GroupedAUC("user"), evaluation.AUC("exact_auc")])
    rating = Regression.from_statistics("rating", small.statistics(), extra_metrics=[evaluation.R2()])
    for task in (liked, rating):
        again = type(task).from_config(task.get_config())
        assert [m.get_config() for m in again.extra_metrics] == [m.get_config() for m in task.extra_metrics]
    model = small.model(heads=[liked, rating])
    report = model.evaluate(small.table(), verbose=0, return_dict=True)
    served, table = model.predict(small.table(), verbose=0), small.table()
    labels = table["liked"].astype(float).to_numpy()
    expected = evaluation.grouped_auc(labels, served["liked"], table["user"])
    assert report["liked_gauc"] == pytest.approx(expected, abs=1e-6)
    assert report["liked_exact_auc"] == pytest.approx(report["liked_auc"], abs=0.05)  # Keras: 200 thresholds
    expected = evaluation.regression_metrics(table["rating"], served["rating"], table["trust"])["r2"]
    assert report["rating_r2"] == pytest.approx(expected, abs=1e-5)


def test_extra_metrics_are_metrics() -> None:
    with pytest.raises(TypeError, match="extra_metrics"):
        BinaryClassification("liked", extra_metrics=["auc"])
