"""Every metric class of Keras measures served values, or is refused when the model is made."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.evaluation import AUC, GroupedAUC
from tfmtl.tasks import (
    BinaryClassification,
    LossInputs,
    MultiClassClassification,
    QuantileRegression,
    Regression,
    Retrieval,
    Task,
)
from tfmtl.tasks.extra_metrics import FITTING, check_metrics

KINDS = sorted(
    name
    for name, kind in vars(keras.metrics).items()
    if isinstance(kind, type) and issubclass(kind, keras.metrics.Metric) and name not in ("Metric", "MeanMetricWrapper")
)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "MeanIoU": {"num_classes": 2},
    "OneHotMeanIoU": {"num_classes": 2},
    "IoU": {"num_classes": 2, "target_class_ids": [0]},
    "OneHotIoU": {"num_classes": 2, "target_class_ids": [0]},
    "MeanRelativeError": {"normalizer": [2.0]},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "SparseTopKCategoricalAccuracy": {"k": 2},
    "TopKCategoricalAccuracy": {"k": 2},
}
F_SCORES = {
    "a probability": {"average": "micro", "threshold": 0.5},
    "class probabilities": {"average": "macro"},
}

LOGITS = np.log(np.array([0.9, 0.2, 0.6, 0.3, 0.5]) / (1 - np.array([0.9, 0.2, 0.6, 0.3, 0.5])))[:, np.newaxis]
CLASSES = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]))
EVENTS = np.array([1.0, 0.0, 1.0, 1.0, np.nan])
WEIGHTS = np.array([1.0, 2.0, 1.0, 3.0, 0.0])
TASKS: dict[str, tuple[Any, np.ndarray, np.ndarray]] = {
    "a probability": (lambda **given: BinaryClassification("t", **given), LOGITS, EVENTS),
    "a number": (
        lambda **given: Regression("t", **given), np.array([[2.0], [1.0], [4.0], [3.0], [9.0]]), 2 * EVENTS + 1,
    ),
    "class probabilities": (
        lambda **given: MultiClassClassification("t", num_classes=3, **given), CLASSES, np.array([0, 1, 2, 2, np.nan]),
    ),
    "a score": (lambda **given: Retrieval("t", **given), LOGITS, EVENTS),
    "several numbers": (lambda **given: QuantileRegression("t", **given), CLASSES, EVENTS),
}  # fmt: skip


def made(kind: str, served: str) -> Any:
    arguments = F_SCORES.get(served, {}) if kind in ("F1Score", "FBetaScore") else ARGUMENTS.get(kind, {})
    return getattr(keras.metrics, kind)(**arguments)


def outputs_of(task: Task, outputs: Any) -> Any:
    inputs = keras.Input(outputs.shape[1:])
    return {"query": inputs, "candidate": inputs} if task.retrieves else inputs


def measured(task: Task, outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the value of the task's only extra metric, of rows in two batches."""
    for part in (slice(2), slice(2, None)):
        given = (tf.constant(x[part], tf.float32) for x in (labels, outputs, WEIGHTS))
        values, scores, weights = given
        task.update_extra_metrics(values, scores, weights, LossInputs({}))
    (value,) = [metric.result() for _, metric in task.named_metrics() if metric in task.extra_metrics]
    assert value.shape == []
    return float(value)


def test_the_table_holds_classes_of_keras() -> None:
    assert {kind for kinds in FITTING.values() for kind in kinds} <= set(KINDS)
    assert len(KINDS) > 40


@pytest.mark.parametrize("served", FITTING)
@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_measures_the_observed_rows_or_is_refused(kind: str, served: str) -> None:
    make, outputs, labels = TASKS[served]
    task = make(extra_metrics=[made(kind, served)])
    if kind not in FITTING[served]:
        with pytest.raises(ValueError, match=f"Task 't' serves {served}, which `keras.metrics.{kind}` does not"):
            check_metrics(task, outputs_of(task, outputs))
        return
    check_metrics(task, outputs_of(task, outputs))
    kept = slice(4)
    expected = made(kind, served)
    predictions = np.asarray(task.predict(tf.constant(outputs, tf.float32)))[kept]
    truth, weights = labels[kept].astype(np.float32), WEIGHTS[kept].astype(np.float32)
    repeated = np.repeat(np.arange(4), weights.astype(int))  # a weight of n is a row that occurs n times
    truth, predictions = truth[repeated], predictions[repeated]
    if served == "class probabilities":
        truth = truth if kind.startswith("Sparse") else np.eye(3, dtype=np.float32)[truth.astype(int)]
    else:
        truth, predictions = truth[:, np.newaxis], predictions[:, np.newaxis]
    expected.update_state(truth, predictions)
    loaded = type(task).from_config(json.loads(json.dumps(task.get_config())))
    for each in (task, loaded):
        assert measured(each, outputs, labels) == pytest.approx(float(expected.result()), rel=1e-5)


@pytest.mark.parametrize(
    ("served", "metric", "value"),
    [
        ("a number", "MeanAbsoluteError", (1 * 1 + 2 * 0 + 1 * 1 + 3 * 0) / 7),
        ("a number", "MeanSquaredError", (1 * 1 + 1 * 1) / 7),
        ("a number", "MeanAbsolutePercentageError", 100 * (1 / 3 + 1 / 3) / 7),
        ("a probability", "BinaryAccuracy", (1 + 2 + 1) / 7),
        ("a probability", "F1Score", 2 * 2 / (2 * 2 + 0 + 3)),  # 2 true positives, no false one, 3 missed
        ("a probability", "BinaryCrossentropy", -(np.log(0.9) + 2 * np.log(0.8) + np.log(0.6) + 3 * np.log(0.3)) / 7),
        ("class probabilities", "CategoricalAccuracy", (1 + 2 + 1) / 7),
        ("class probabilities", "SparseCategoricalCrossentropy",
         -(np.log(0.7) + 2 * np.log(0.6) + np.log(0.4) + 3 * np.log(0.3)) / 7),
    ],
)  # fmt: skip
def test_values_by_hand(served: str, metric: str, value: float) -> None:
    make, outputs, labels = TASKS[served]
    assert measured(make(extra_metrics=[made(metric, served)]), outputs, labels) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("served", "metric", "cure"),
    [
        ("a probability", keras.metrics.F1Score(), r'pass `F1Score\(average="micro", threshold=0.5\)`'),
        ("a probability", keras.metrics.FBetaScore(average="micro"), "threshold=0.5"),
        ("class probabilities", keras.metrics.F1Score(), r'pass `F1Score\(average="macro"\)`'),
        ("a probability", keras.metrics.AUC(from_logits=True), "leave `from_logits` out of `AUC`"),
        ("class probabilities", keras.metrics.CategoricalCrossentropy(from_logits=True), "leave `from_logits` out"),
        ("class probabilities", keras.metrics.AUC(multi_label=True), "must not be `multi_label`"),
        ("several numbers", keras.metrics.MeanAbsoluteError(), "let it serve one of them, or derive"),
        ("several numbers", AUC(), "serves several numbers; let it serve one of them."),
    ],
)
def test_arguments_that_would_be_wrong_silently(served: str, metric: Any, cure: str) -> None:
    make, outputs, _ = TASKS[served]
    task = make(extra_metrics=[metric])
    with pytest.raises(ValueError, match=cure):
        check_metrics(task, outputs_of(task, outputs))


def test_a_function_as_a_metric_and_metrics_of_others_are_not_checked() -> None:
    def bias(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(predictions - labels, axis=-1)

    make, outputs, labels = TASKS["a number"]
    task = make(extra_metrics=[keras.metrics.MeanMetricWrapper(bias, "bias")])
    check_metrics(task, outputs_of(task, outputs))
    assert measured(task, outputs, labels) == pytest.approx((-1 + 1) / 7, abs=1e-6)
    make, outputs, _ = TASKS["a score"]
    check_metrics(make(extra_metrics=[AUC(), GroupedAUC("user")]), None)


def test_a_metric_of_rows_has_one_prediction_per_row() -> None:
    make, outputs, _ = TASKS["class probabilities"]
    task = make(extra_metrics=[AUC()])
    with pytest.raises(ValueError, match="`AUC` measures one prediction per row, but task 't' serves class prob"):
        check_metrics(task, outputs_of(task, outputs))
