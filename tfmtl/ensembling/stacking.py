"""Stacking: members combined by learners that saw only what members said about rows held out from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras
from tfmtl.ensembling.ensemble import Combine, connected, pooled, require_alike
from tfmtl.ensembling.evidence import Block, Objective, blocks
from tfmtl.ensembling.weighting import simplex_weights
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

    from tfmtl.data import Split

Recipe: TypeAlias = "Callable[[pd.DataFrame], MultiTaskModel]"


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
    stacker = task.stacker(strength)
    if stacker is None:
        return pooled(task, np.asarray(simplex_weights(Objective(found))))
    parts = [(stacker.read(block.outputs).numpy(), block.labels.numpy(), block.weights.numpy()) for block in found]
    features, labels, weights = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    rows = weights > 0
    require(bool(rows.any()), f"No out-of-fold row has a label of task {task.name!r}.")
    kernel, bias = stacker.fit(features[rows], labels[rows], weights[rows])

    def combine(outputs: Sequence[Any]) -> Any:
        dense = keras.layers.Dense(len(bias), name=f"{task.name}_meta", dtype="float32")
        stacked = dense(stacker.read(outputs))
        dense.set_weights([kernel, bias])
        return stacked

    return combine
