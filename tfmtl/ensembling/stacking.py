"""Stacking: combine members by linear models that are fitted to their out-of-fold outputs."""

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
    """Stacking: train members, and combine them by linear models that are fitted to their out-of-fold outputs.

    Use it to combine members of different quality without a validation table; `ensemble` with `fit_weights` is cheaper.

    1. For each fold every recipe trains a model on the training rows and predicts the test rows.
    2. For each task a linear model, `Task.stacker`, is fitted to these predictions: for events z = sum_m c_m z_m + c by
       logistic regression on the members' logits, for classes multinomial logistic regression on their log
       probabilities, for numbers least squares with c_m >= 0. Tasks without a stacker, such as retrieval or conditional
       events, take the weights of least loss as in `fit_weights`.
    3. Every recipe trains a member of the result on the whole table.

    No row is used both to train a model and to fit the combination of its predictions, neither for vocabularies nor for
    weights.

    Args:
        recipes: functions from a training table to a trained model; each must fit its statistics to that table.
        table: the whole training table.
        folds: splits of the table, such as `tfmtl.data.grouped_kfold(table, "user_id", folds=5, seed=0)`; group by user
            if the model will serve new users.
        strength: inverse L2 penalty of the logistic regressions (C of scikit-learn); above 0.
        batch_size: rows per block of the test rows; a retrieval loss compares the candidates of one block.

    Returns:
        A model as from `ensemble`. The layers `<task>_meta` or `<task>_pool` combine the members.

    Raises:
        ValueError: if the models of a fold cannot form an ensemble, or the test rows lack the labels of a task or one
            of its classes.

    Reference:
        Wolpert, "Stacked generalization", Neural Networks 5(2), 1992, https://doi.org/10.1016/S0893-6080(05)80023-1;
        coefficients of at least 0 for numbers: Breiman, "Stacked Regressions", 1996, https://doi.org/10.1007/BF00117832.

    Cost: (folds + 1) trainings per recipe.
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
    """Fit the combination of the members for a task, and return the function that adds it to a network."""
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
