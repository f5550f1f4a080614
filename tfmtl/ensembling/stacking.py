"""Stacking: members combined by learners that saw only what members said about rows held out from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.ensembling.ensemble import Combine, connected, pooled, require_alike
from tfmtl.ensembling.evidence import Block, Objective, blocks
from tfmtl.ensembling.weighting import simplex_weights
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import BinaryClassification, ChainedRegression, MultiClassClassification, Regression, Task

if TYPE_CHECKING:
    import pandas as pd

    from tfmtl.data import Split

Recipe: TypeAlias = "Callable[[pd.DataFrame], MultiTaskModel]"
Linear: TypeAlias = tuple[np.ndarray, np.ndarray]


class MetaLearner(NamedTuple):
    """A linear model of the members' outputs.

    Attributes:
        read: members' outputs -> features [B, f]; called with symbolic outputs, too.
        fit: features [N, f], labels [N], weights [N] -> kernel [f, n] and bias [n] of the task's output.
    """

    read: Callable[[Sequence[Any]], Any]
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], Linear]


def stack(
    recipes: Sequence[Recipe],
    table: pd.DataFrame,
    folds: Iterable[Split],
    *,
    strength: float = 1.0,
    batch_size: int = 1024,
) -> MultiTaskModel:
    """Train members and, on out-of-fold outputs, what combines them; return them as one model.

    For each fold every recipe makes a model of the training side and is asked about the test side. A meta-learner a
    task is fitted to these answers: of events z = sum_m c_m z_m + c by logistic regression on the members' logits, of
    classes by multinomial logistic regression on their log probabilities, of numbers by least squares with c_m >= 0.
    Retrieval, events after events and numbers after events take the weights of least loss as in `fit_weights`, since
    a linear model of their outputs would break their meaning. Members of the result are the recipes' models of the
    whole table. Nothing is learned from a row by what judges it: not a vocabulary, not a weight of a member.

    Args:
        recipes: functions from a training table to a trained model; each fits its own statistics to that table.
        table: the whole training table.
        folds: splits of it, such as `tfmtl.data.grouped_kfold(table, "user_id", folds=5, seed=0)`; grouped by user if
            new users are to be judged.
        strength: C of the logistic regressions, the inverse of their L2 penalty; above 0.
        batch_size: rows a block of a test side, among whose candidates retrieval is judged.

    Returns:
        A model as `ensemble` returns it; the meta-learners are its layers `<task>_meta` and `<task>_pool`.

    Raises:
        ValueError: if models of a fold differ as those of `ensemble` may not, or the folds' test sides lack a task's
            labels or one of its classes.

    Reference:
        Wolpert, "Stacked generalization", Neural Networks 5(2), 1992, https://doi.org/10.1016/S0893-6080(05)80023-1;
        weights of at least 0 for numbers: Breiman, "Stacked Regressions", 1996, https://doi.org/10.1007/BF00117832.

    Cost: recipes times (folds + 1) trainings.
    """
    require(len(recipes) > 0, "`recipes` must hold at least one.", recipes=recipes)
    require(strength > 0, "`strength` must be above 0.", strength=strength)
    found: dict[str, list[Block]] = {}
    for train, test in folds:
        fold = [recipe(train) for recipe in recipes]
        require_alike(fold)
        for name, part in blocks(fold, test, batch_size).items():
            found.setdefault(name, []).extend(part)
    require(bool(found), "`folds` must hold at least one split.")
    models = [recipe(table) for recipe in recipes]
    require_alike(models)
    return connected(models, {task.name: _combination(task, found[task.name], strength) for task in models[0].tasks})


def _combination(task: Task, found: Sequence[Block], strength: float) -> Combine:
    """Fit what combines members' outputs of a task and return what connects it."""
    learner = stacker_for(task, strength)
    if learner is None:
        return pooled(task, np.asarray(simplex_weights(Objective(found))))
    parts = [(learner.read(block.outputs).numpy(), block.labels.numpy(), block.weights.numpy()) for block in found]
    features, labels, weights = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    rows = weights > 0
    require(bool(rows.any()), f"No out-of-fold row has a label of task {task.name!r}.")
    kernel, bias = learner.fit(features[rows], labels[rows], weights[rows])

    def combine(outputs: Sequence[Any]) -> Any:
        dense = keras.layers.Dense(len(bias), name=f"{task.name}_meta", dtype="float32")
        stacked = dense(learner.read(outputs))
        dense.set_weights([kernel, bias])
        return stacked

    return combine


@functools.singledispatch
def stacker_for(task: Task, strength: float) -> MetaLearner | None:
    """Return how members of a task are stacked, None for the weights of least loss; register one for your own class."""
    return None


@stacker_for.register
def _(task: Regression, strength: float) -> MetaLearner | None:
    def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Linear:
        model = LinearRegression(positive=True).fit(features, task.targets(tf.constant(labels)).numpy(), weights)
        return model.coef_[:, np.newaxis], np.array([model.intercept_])

    return MetaLearner(_joined, fit)


@stacker_for.register
def _(task: ChainedRegression, strength: float) -> MetaLearner | None:
    return None


@stacker_for.register
def _(task: BinaryClassification, strength: float) -> MetaLearner | None:
    def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Linear:
        model = _logistic(task, 2, features, labels, weights, strength)
        return model.coef_.T, model.intercept_

    return None if task.after else MetaLearner(_joined, fit)


@stacker_for.register
def _(task: MultiClassClassification, strength: float) -> MetaLearner | None:
    def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Linear:
        model = _logistic(task, task.num_classes, features, labels, weights, strength)
        if task.num_classes == 2:  # one logit of the second class becomes the difference of two
            return np.hstack([-model.coef_.T, model.coef_.T]) / 2, np.hstack([-model.intercept_, model.intercept_]) / 2
        return model.coef_.T, model.intercept_

    return MetaLearner(lambda outputs: _joined([tf.nn.log_softmax(output) for output in outputs]), fit)


def _joined(outputs: Sequence[Any]) -> Any:
    return tf.concat(list(outputs), axis=1)


def _logistic(
    task: Task, classes: int, features: np.ndarray, labels: np.ndarray, weights: np.ndarray, strength: float
) -> LogisticRegression:
    present = np.unique(labels)
    rule = f"The out-of-fold rows of task {task.name!r} must have all {classes} classes."
    require(present.tolist() == list(range(classes)), rule, labels=present.tolist())
    return LogisticRegression(C=strength, max_iter=1000).fit(features, labels, weights)
