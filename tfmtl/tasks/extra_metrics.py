"""Keras' own metrics and losses on the labels and served values of a task: those that fit, and their shapes."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, tf

_DECISIONS = (
    "AUC", "FalseNegatives", "FalsePositives", "Precision", "PrecisionAtRecall", "Recall", "RecallAtPrecision",
    "SensitivityAtSpecificity", "SpecificityAtSensitivity", "TrueNegatives", "TruePositives",
)  # fmt: skip
_ERRORS = (
    "LogCoshError", "MeanAbsoluteError", "MeanSquaredError", "MeanSquaredLogarithmicError", "R2Score",
    "RootMeanSquaredError",
)  # fmt: skip
_SPARSE = ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", "SparseTopKCategoricalAccuracy")
_ONE_HOT = ("CategoricalAccuracy", "CategoricalCrossentropy", "KLDivergence", "TopKCategoricalAccuracy")

FITTING: dict[str, tuple[str, ...]] = {
    "a probability": (
        *_DECISIONS, *_ERRORS, "BinaryAccuracy", "BinaryCrossentropy", "BinaryIoU", "F1Score", "FBetaScore",
    ),
    "a number": (*_ERRORS, "MeanAbsolutePercentageError", "Poisson"),
    "class probabilities": (*_SPARSE, *_ONE_HOT, *_DECISIONS, "F1Score", "FBetaScore"),
    "a score": (),
    "several numbers": (),
}  # fmt: skip
"""By the kind of a served value, the metrics of Keras that are meaningful for it."""

_OF_SEVERAL = {
    "class probabilities": "take one of Keras' metrics of classes",
    "several numbers": "let it serve one of them",
}
"""By the kinds of a served matrix, the cure for a metric of one prediction per row."""


def check_metrics(task: Any, outputs: Any) -> None:
    """Raise unless every metric of Keras in a task's `extra_metrics` fits its served value; others are not checked.

    Args:
        task: a `Task`.
        outputs: the network's symbolic output for the task.

    Raises:
        ValueError: with the metric and the cure.
    """
    for metric in task.extra_metrics:
        kind, of_rows = keras_kind(metric), hasattr(metric, "of_rows")
        if kind is None and not of_rows:
            continue
        served = _served(task, outputs)
        require(
            served not in _OF_SEVERAL or not of_rows,
            f"`{type(metric).__name__}` measures one prediction per row, but task {task.name!r} serves {served}; "
            f"{_OF_SEVERAL.get(served)}.",
        )
        if kind is None:
            continue
        fitting = FITTING[served]
        ours = _OF_SEVERAL.get(served, "take one of `tfmtl.evaluation`, such as `GroupedAUC`")
        cure = f"take one of {sorted(fitting)}" if fitting else ours
        require(
            kind in fitting,
            f"Task {task.name!r} serves {served}, which `keras.metrics.{kind}` does not measure; {cure}, or derive a "
            "metric from `keras.metrics.Metric`.",
            extra_metrics=kind,
        )
        _check_arguments(task.name, metric, kind, served)


def check_losses(task: Any, outputs: Any) -> None:
    """Raise unless every loss of Keras in a task's `extra_losses` fits its served value; others are not checked.

    Args:
        task: a `Task`.
        outputs: the network's symbolic output for the task.

    Raises:
        ValueError: with the loss and the cure.
    """
    for extra in getattr(task, "extra_losses", ()):
        loss = getattr(extra, "loss", None)
        kind = type(loss).__name__
        if loss is None or getattr(keras.losses, kind, None) is not type(loss):
            continue
        served = _served(task, outputs)
        of_classes = served == "class probabilities"
        cure = "take" if of_classes else "take another loss than"
        require(
            (kind == "SparseCategoricalCrossentropy") == of_classes,
            f"Task {task.name!r} serves {served}, which `keras.losses.{kind}` does not compare with labels; {cure} "
            "`SparseCategoricalCrossentropy`, or derive a loss from `keras.losses.Loss`.",
            extra_losses=kind,
        )
        _check_arguments(task.name, loss, kind, served)


def _served(task: Any, outputs: Any) -> str:
    """Return the kind of the served value, a key of `FITTING`."""
    if task.retrieves:
        return "a score"
    if task.event_logit(outputs) is not None:
        return "a probability"
    shape = getattr(task.predict(outputs), "shape", None)
    several = "several numbers" if getattr(task, "serves_numbers", False) else "class probabilities"
    return several if shape is not None and shape.rank == 2 else "a number"


def _check_arguments(task: str, metric: Any, kind: str, served: str) -> None:
    from_logits = getattr(metric, "_from_logits", False) or getattr(metric, "_fn_kwargs", {}).get("from_logits")
    require(
        not from_logits,
        f"Task {task!r} serves {served}, no logits; leave `from_logits` out of `{kind}`.",
        from_logits=from_logits,
    )
    if kind in ("F1Score", "FBetaScore"):
        usual = 'average="micro", threshold=0.5' if served == "a probability" else 'average="macro"'
        valid = metric.average is not None and (metric.threshold is not None or served != "a probability")
        require(
            valid, f"`{kind}` of task {task!r} must be one number; pass `{kind}({usual})`.",
            average=metric.average, threshold=metric.threshold,
        )  # fmt: skip
    require(
        not (kind == "AUC" and metric.multi_label),
        f"`AUC` of task {task!r} must not be `multi_label`: a row has one class.",
    )


def keras_kind(metric: Any) -> str | None:
    """Return the name of a metric's class if Keras defines it, else None.

    Example:
        >>> keras_kind(keras.metrics.AUC())
        'AUC'
    """
    kind = type(metric).__name__
    own = getattr(keras.metrics, kind, None) is type(metric)
    return kind if own and kind not in ("Metric", "MeanMetricWrapper") else None


def arranged(metric: Any, labels: tf.Tensor, served: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return labels, served values and weights in the shapes that a metric needs.

    Args:
        metric: the metric. Those of Keras, and a `MeanMetricWrapper`, take a mean over the last axis and need a column
            per output. Other metrics receive the arguments as they are.
        labels: [B], without NaN.
        served: [B] or [B, classes].
        weights: [B].

    Example:
        >>> ones = tf.ones([2])
        >>> [x.shape.as_list() for x in arranged(keras.metrics.MeanSquaredError(), ones, ones, ones)]
        [[2, 1], [2, 1], [2]]
        >>> [x.shape.as_list() for x in arranged(keras.metrics.AUC(), ones, tf.fill([2, 3], 0.3), ones)]
        [[2, 3], [2, 3], [2, 1]]
    """
    kind = keras_kind(metric)
    if kind is None and not isinstance(metric, keras.metrics.MeanMetricWrapper):
        return labels, served, weights
    if served.shape.rank == 1:
        return labels[:, tf.newaxis], served[:, tf.newaxis], weights
    if kind is None or kind in _SPARSE:
        return labels, served, weights
    classes = tf.one_hot(tf.cast(labels, tf.int32), served.shape[-1], dtype=served.dtype)
    return classes, served, weights[:, tf.newaxis] if kind in _DECISIONS else weights
