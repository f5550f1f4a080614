"""Stackers: linear models that combine the members' outputs of one task, for `tfmtl.ensembling.stack`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf

Linear: TypeAlias = tuple[np.ndarray, np.ndarray]


class Stacker(NamedTuple):
    """A linear model of the members' outputs; `Task.stacker` returns one.

    Attributes:
        read: returns features [B, f] of the members' outputs, which may be symbolic.
        fit: returns the kernel [f, n] and the bias [n] that map features to the task's output, given features [N, f],
            labels [N] and weights [N].
    """

    read: Callable[[Sequence[Any]], Any]
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], Linear]


def least_squares(targets: Callable[[Any], Any]) -> Stacker:
    """Return the stacker of numbers: z = sum_m c_m z_m + c with c_m >= 0, by least squares on `targets(labels)`."""

    def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Linear:
        from sklearn.linear_model import LinearRegression  # imported here: it takes half a second

        model = LinearRegression(positive=True).fit(features, targets(tf.constant(labels)).numpy(), weights)
        return model.coef_[:, np.newaxis], np.array([model.intercept_])

    return Stacker(_joined, fit)


def binary_logistic(task: str, strength: float) -> Stacker:
    """Return the stacker of events: z = sum_m c_m z_m + c, by logistic regression on the members' logits."""

    def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Linear:
        model = _logistic(task, 2, features, labels, weights, strength)
        return model.coef_.T, model.intercept_

    return Stacker(_joined, fit)


def multinomial_logistic(task: str, classes: int, strength: float) -> Stacker:
    """Return the stacker of classes: multinomial logistic regression on the members' log probabilities."""

    def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Linear:
        model = _logistic(task, classes, features, labels, weights, strength)
        if classes == 2:  # scikit-learn has one logit, the task has two
            return np.hstack([-model.coef_.T, model.coef_.T]) / 2, np.hstack([-model.intercept_, model.intercept_]) / 2
        return model.coef_.T, model.intercept_

    return Stacker(lambda outputs: _joined([tf.nn.log_softmax(output) for output in outputs]), fit)


def _joined(outputs: Sequence[Any]) -> Any:
    return tf.concat(list(outputs), axis=1)


def _logistic(
    task: str, classes: int, features: np.ndarray, labels: np.ndarray, weights: np.ndarray, strength: float
) -> Any:
    from sklearn.linear_model import LogisticRegression  # imported here: it takes half a second

    present = np.unique(labels)
    rule = f"The out-of-fold rows of task {task!r} must have all {classes} classes."
    require(present.tolist() == list(range(classes)), rule, labels=present.tolist())
    return LogisticRegression(C=strength, max_iter=1000).fit(features, labels, weights)
