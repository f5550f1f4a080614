"""What a search optimises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tfmtl._checks import require, require_known
from tfmtl._keras import keras
from tfmtl.tuning._keras_tuner import (
    convert_to_metrics_dict,
    keras_tuner,
    translated_history,
    validate_trial_results,
)

Goal: TypeAlias = "str | keras_tuner.Objective | Sequence[str | keras_tuner.Objective] | None"

_MINIMIZED = ("loss", "error", "crossentropy", "mse", "mae", "rmse")
_MAXIMIZED = ("accuracy", "acc", "auc", "precision", "recall", "hit_rate", "ndcg", "map", "mrr")
_DIRECTIONS = dict.fromkeys(_MINIMIZED, "min") | dict.fromkeys(_MAXIMIZED, "max")


def as_objective(goal: Goal) -> Any:
    """Return the keras-tuner objective of `goal`.

    keras-tuner's own guess is not used: it minimises every Keras metric outside its list of maximised ones, R2Score
    among them, and does not recognise a metric with the prefix of a task.

    Args:
        goal: a `keras_tuner.Objective`; or a name in the training log that ends in `loss`, `error`, `crossentropy`,
            `mse`, `mae`, `rmse` (minimised) or `accuracy`, `acc`, `auc`, `precision`, `recall`, `hit_rate`, `ndcg`,
            `map`, `mrr` (maximised), with or without a cut-off such as `@10`; or a sequence of these (their sum is
            minimised; a metric to be maximised counts negative); or None if the hypermodel's `fit` returns the number
            to minimise.

    Raises:
        ValueError: if the direction cannot be derived from the name.

    Example:
        >>> print(as_objective("val_rating_loss"))
        Objective(name="val_rating_loss", direction="min")
    """
    if goal is None:
        return None
    if isinstance(goal, str):
        direction = _direction(goal)
        cure = f"give Objective({goal!r}, 'min') or Objective({goal!r}, 'max') from tfmtl.tuning"
        rule = f"The direction of the objective {goal!r} cannot be derived from its name; {cure}."
        require(direction is not None, rule)
        return keras_tuner.Objective(goal, direction)
    if isinstance(goal, keras_tuner.Objective):
        rule = f"The direction of the objective {goal.name!r} must be 'min' or 'max'."
        require(goal.direction in ("min", "max"), rule, direction=goal.direction)
        return goal
    return [as_objective(part) for part in goal]


def _direction(name: str) -> str | None:
    """Return the direction that the last words of a name decide, without the cut-off behind them."""
    words = name.partition("@")[0].split("_")
    return _DIRECTIONS.get(words[-1]) or _DIRECTIONS.get("_".join(words[-2:]))


def checked_outcome(outcome: Any, objective: keras_tuner.Objective) -> Any:
    """Return the outcome of a hypermodel's `fit` in the form of keras-tuner, with a finite value of the objective.

    Args:
        outcome: a Keras 2 `History`, a number or a dictionary of numbers.
        objective: as given to the tuner.

    Raises:
        FatalValueError: if the objective is not in the training log of every epoch; no trial could succeed.
        ValueError: if the objective is NaN or infinite; this trial has failed.
    """
    history = outcome if isinstance(outcome, keras.callbacks.History) else None
    outcome = outcome if history is None else translated_history(history)
    if isinstance(outcome, Mapping) and objective.has_value(outcome):  # keras-tuner adds a sum to logs alone
        outcome = {**outcome, objective.name: objective.get_value(outcome)}
    validate_trial_results(outcome, objective, "HyperModel.fit()")
    if history is not None:
        _require_logged(history, objective)
    value = float(convert_to_metrics_dict(outcome, objective)[objective.name])
    require(math.isfinite(value), f"The objective {objective.name!r} of a trial must be finite.", value=value)
    return outcome


def _require_logged(history: keras.callbacks.History, objective: keras_tuner.Objective) -> None:
    names = list(getattr(objective, "name_to_direction", [objective.name]))
    epochs = len(history.epoch)
    try:
        require_known(names, history.history, "objective", "the training log")
        logged = {name: len(history.history[name]) for name in names}
        rule = f"The objective must be in the training log of each of the {epochs} epochs (validation_freq=1)."
        require(set(logged.values()) == {epochs}, rule, epochs_with_a_value=logged)
    except ValueError as error:
        raise keras_tuner.errors.FatalValueError(str(error)) from error
