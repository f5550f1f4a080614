"""The focal loss of events, weights of classes, and the constant that minimises them."""

from __future__ import annotations

import math

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf

_LOGITS = np.linspace(-20.0, 20.0, 8001)


def focal_cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, gamma: float, class_weights: tuple[float, float]
) -> tf.Tensor:
    """Return l = w_1 y (1 - p)^gamma (-log p) + w_0 (1 - y) p^gamma (-log(1 - p)) [B] with p = sigma(z).

    All powers are exponentials of log sigma, so that value and gradient are finite for any finite z.

    Args:
        labels: y [B] in [0, 1].
        logits: z [B].
        gamma: exponent, 0 or more; with 0 the loss is a weighted cross-entropy.
        class_weights: (w_0, w_1).

    Example:
        >>> loss = focal_cross_entropy(tf.constant([1.0]), tf.zeros([1]), 2.0, (1.0, 1.0))
        >>> round(float(loss[0]), 4)  # log 2 / 4
        0.1733
    """
    logs, others = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
    negative, positive = class_weights
    of_event = positive * labels * tf.exp(gamma * others) * -logs
    return of_event + negative * (1 - labels) * tf.exp(gamma * logs) * -others


def class_balanced_weights(count: int, rate: float, beta: float) -> tuple[float, float]:
    """Return the class-balanced weights (w_0, w_1), inverse to the effective numbers (1 - beta^n) / (1 - beta) of rows.

    They are scaled so that their mean over the rows is 1: the loss keeps its size beside those of other tasks.

    Args:
        count: number of labels.
        rate: share of positives, between 0 and 1, both excluded.
        beta: in [0, 1): with 0 both weights are 1, near 1 they are inverse to the numbers of rows.

    Example:
        >>> class_balanced_weights(100, 0.25, 0.0)
        (1.0, 1.0)
        >>> [round(weight, 3) for weight in class_balanced_weights(100, 0.25, 1 - 1e-9)]  # 1/2 of 4/3 and of 4
        [0.667, 2.0]
    """
    if beta == 0:
        return 1.0, 1.0
    numbers = np.array([1 - rate, rate]) * count
    weights = -1 / np.expm1(numbers * math.log(beta))
    negative, positive = (float(weight) for weight in weights / np.average(weights, weights=numbers))
    return negative, positive


def best_logit(rate: float, gamma: float, class_weights: tuple[float, float]) -> float | None:
    """Return the logit of least focal loss for events of one rate, or None unless the rate lies between 0 and 1.

    With gamma 0 it is log(rate / (1 - rate)) + log(w_1 / w_0); otherwise the best of a grid from -20 to 20.

    Example:
        >>> best_logit(0.5, 2.0, (1.0, 1.0)), best_logit(0.0, 2.0, (1.0, 1.0))
        (0.0, None)
    """
    if not 0 < rate < 1:
        return None
    negative, positive = class_weights
    if gamma == 0:
        return math.log(rate * positive / ((1 - rate) * negative))
    logs, others = -np.logaddexp(0, -_LOGITS), -np.logaddexp(0, _LOGITS)
    losses = -rate * positive * np.exp(gamma * others) * logs - (1 - rate) * negative * np.exp(gamma * logs) * others
    return round(float(_LOGITS[np.argmin(losses)]), 6)


def require_weights(task: str, gamma: float, class_weights: tuple[float, float]) -> None:
    """Raise unless the exponent and the weights of the classes are usable."""
    require(gamma >= 0, f"`focal_gamma` of task {task!r} must be 0 or more.", focal_gamma=gamma)
    require(
        len(class_weights) == 2 and all(math.isfinite(weight) and weight > 0 for weight in class_weights),
        f"`class_weights` of task {task!r} must be two numbers above 0, for labels 0 and 1.",
        class_weights=class_weights,
    )
