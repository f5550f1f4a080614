"""Cross-validation of a whole recipe, alone or as the value of a keras-tuner trial."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.stats import t as student

from tfmtl._checks import require
from tfmtl._keras import keras
from tfmtl._saved_files import DamagedFileError, read_json
from tfmtl.data import fingerprint
from tfmtl.tuning._keras_tuner import keras_tuner
from tfmtl.tuning.callbacks import BestCheckpoint, EpochRelay
from tfmtl.tuning.oracles import write_json

if TYPE_CHECKING:
    import pandas as pd

    from tfmtl.data import Split

Recipe: TypeAlias = "Callable[[pd.DataFrame], Any]"
Evaluate: TypeAlias = "Callable[[Any, pd.DataFrame], Mapping[Any, float]]"

_RELAYS = (EpochRelay, BestCheckpoint)


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """What the folds came to.

    Attributes:
        scores: by fold, {metric: value}; NaN for a metric that a fold lacks.
        rows: by fold, the rows of its training and its test side.
    """

    scores: tuple[dict[str, float], ...]
    rows: tuple[tuple[int, int], ...]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per fold and metric: `fold`, `metric`, `value`, as `pandas.DataFrame` takes them."""
        return [
            {"fold": fold, "metric": metric, "value": value}
            for fold, scores in enumerate(self.scores)
            for metric, value in scores.items()
        ]

    def summary(self, confidence: float = 0.95) -> list[dict[str, Any]]:
        """Return one row a metric: its mean over the k folds, and how sure that is.

        standard_error = s / sqrt(k) with s the deviation between folds; low, high = mean -+ t s sqrt(1/k + n_test /
        n_train), t being Student's quantile of k - 1 degrees of freedom. The second term is there because the training
        sides of folds overlap: without it the interval would be far too narrow.

        Args:
            confidence: of the interval, in (0, 1).

        Returns:
            Rows of `metric`, `mean`, `standard_error`, `low`, `high`, `folds` (those with a value of the metric); NaN
            where fewer than two folds have a value.

        Reference:
            Nadeau, Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003,
            https://doi.org/10.1023/A:1024068626366, section 3: the corrected resampled t-test. No unbiased estimate of
            this variance exists (Bengio, Grandvalet, JMLR 5, 2004), so take it as an approximation.
        """
        require(0 < confidence < 1, "`confidence` must lie between 0 and 1.", confidence=confidence)
        share = float(np.mean([test / train for train, test in self.rows]))
        return [self._row(metric, share, confidence) for metric in self.scores[0]]

    def mean(self) -> dict[str, float]:
        """Return the mean over the folds by metric."""
        return {row["metric"]: row["mean"] for row in self.summary()}

    def _row(self, metric: str, share: float, confidence: float) -> dict[str, Any]:
        values = np.array([scores[metric] for scores in self.scores])
        values = values[~np.isnan(values)]
        count = len(values)
        mean = float(values.mean()) if count else math.nan
        deviation = float(values.std(ddof=1)) if count > 1 else math.nan
        quantile = float(student.ppf(0.5 + confidence / 2, count - 1)) if count > 1 else math.nan
        half = quantile * deviation * math.sqrt(1 / max(count, 1) + share)
        error = deviation / math.sqrt(count) if count else math.nan
        bounds = {"low": mean - half, "high": mean + half}
        return {"metric": metric, "mean": mean, "standard_error": error, **bounds, "folds": count}


def logged(model: Any, test: pd.DataFrame) -> dict[str, float]:
    """Return the log of `model.evaluate` on a test side, by name."""
    values: dict[str, float] = model.evaluate(test, return_dict=True, verbose=0)
    return values


def cross_validate(
    recipe: Recipe,
    folds: Iterable[Split],
    *,
    evaluate: Evaluate = logged,
    directory: str | os.PathLike[str] | None = None,
) -> CrossValidation:
    """Make a model of each fold's training side by a whole recipe, and measure it on the test side.

    The recipe gets the training side alone, and fits to it all there is to fit: vocabularies, moments, corpus, weights.
    Nothing of a held-out fold can reach it.

    Args:
        recipe: function from a training table to a trained model. What it chooses by validation, such as the epoch to
            stop at, it must choose on rows split from that table.
        folds: such as `tfmtl.data.random_kfold`, `grouped_kfold` (new users) or `rolling_origin` (the future).
        evaluate: (model, test table) -> values by metric or by (task, metric), such as `tfmtl.evaluate`; by default
            the log of `model.evaluate`. Names of parts are joined: `rating_rmse`.
        directory: where to keep each fold's values, so that a run that was killed continues; None keeps none. A fold
            with a damaged file is trained again, with a warning.

    Returns:
        Values by fold, with `summary()` for mean, standard error and interval.

    Raises:
        ValueError: if there is no fold, or the directory holds values of other folds.

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data import random_kfold
        >>> table = pd.DataFrame({"rating": [1.0, 2.0, 3.0, 6.0]})
        >>> mean_of = lambda train: train["rating"].mean()  # a "model" that knows one number
        >>> error = lambda mean, test: {"mae": (test["rating"] - mean).abs().mean()}
        >>> result = cross_validate(mean_of, random_kfold(table, folds=4, seed=0), evaluate=error)
        >>> result.summary()[0]["folds"], round(result.mean()["mae"], 3)
        (4, 2.0)

    Cost: one training a fold.
    """
    folder = None if directory is None else pathlib.Path(directory)
    scores, rows = [], []
    for fold, (train, test) in enumerate(folds):
        path = None if folder is None else folder / f"fold_{fold}.json"
        key = {"train": fingerprint(train), "test": fingerprint(test)} if path else {}
        known = _kept(path, key)
        if known is None:
            keras.backend.clear_session()
            known = flat(evaluate(recipe(train), test))
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(str(path), {**key, "scores": known})
        scores.append(known)
        rows.append((len(train), len(test)))
    return combined(scores, rows)


def combined(scores: Sequence[Mapping[str, float]], rows: Sequence[tuple[int, int]]) -> CrossValidation:
    """Return the folds' values with the same metrics in each."""
    require(len(scores) > 0, "`folds` must hold at least one split.")
    metrics = list(dict.fromkeys(metric for each in scores for metric in each))
    filled = [{metric: each.get(metric, math.nan) for metric in metrics} for each in scores]
    return CrossValidation(tuple(filled), tuple(rows))


def flat(values: Mapping[Any, float]) -> dict[str, float]:
    """Return values of a mapping or a pandas Series by name, parts of a name joined by `_`."""
    return {
        "_".join(map(str, key)) if isinstance(key, tuple) else str(key): float(value) for key, value in values.items()
    }


class CrossValidated(keras_tuner.HyperModel):
    """A hypermodel in which the value of a trial is the mean of a metric over folds.

    For each fold a new model is built from the training side, fitted to it with the arguments of `search`, and
    measured on the test side; a trial's values are the means over the folds as `val_<metric>`. Give the tuner an
    objective of that name, and `search` neither data nor `validation_data`. The result of such a
    search is `get_best_hyperparameters`: a trial has several models, so `get_best_models` raises `FileNotFoundError`,
    and `Hyperband`, which continues from checkpoints, is refused.

    Args:
        build: (hyperparameters, training table) -> a compiled model of statistics of that table alone.
        folds: splits, all kept.
        evaluate: as of `cross_validate`.

    Attributes:
        build_on: the argument `build`.
        outcomes: the `CrossValidation` of each trial of this process, in the order of their end.

    Example:
        A search in which no fold's rows reach the vocabulary they are judged with::

            hypermodel = CrossValidated(build, grouped_kfold(table, "user_id", folds=3, seed=0))
            tuner = RandomSearch(hypermodel, "val_rating_loss", max_trials=20)
            tuner.search(epochs=5, batch_size=1024)

    Cost: one training a fold and trial.
    """

    def __init__(
        self,
        build: Callable[[keras_tuner.HyperParameters, pd.DataFrame], keras.Model],
        folds: Iterable[Split],
        evaluate: Evaluate = logged,
    ) -> None:
        super().__init__()
        self.build_on = build
        self.folds = list(folds)
        self.evaluate = evaluate
        self.outcomes: list[CrossValidation] = []
        require(len(self.folds) > 0, "`folds` must hold at least one split.")

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build the model of the first fold."""
        return self.build_on(hp, self.folds[0].train)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Fit and measure one model per fold; `model` is that of the first fold.

        Raises:
            FatalValueError: if the tuner is a `Hyperband`, or `search` was given data.
        """
        if "tuner/epochs" in hp.values:
            raise keras_tuner.errors.FatalValueError(
                "Hyperband goes on from a trial's checkpoint, and folds have none; use RandomSearch, GridSearch or "
                "BayesianOptimization with `CrossValidated`."
            )
        if args or "x" in kwargs or kwargs.get("validation_data") is not None:
            raise keras_tuner.errors.FatalValueError(
                "`CrossValidated` has its own data; give `search` neither data nor `validation_data`."
            )
        callbacks = [each for each in kwargs.pop("callbacks", None) or () if not isinstance(each, _RELAYS)]
        scores = []
        for fold, (train, test) in enumerate(self.folds):
            fitted = model if fold == 0 else self.build_on(hp, train)
            fitted.fit(train, callbacks=copy.deepcopy(callbacks), **kwargs)
            scores.append(flat(self.evaluate(fitted, test)))
        outcome = combined(scores, [(len(train), len(test)) for train, test in self.folds])
        self.outcomes.append(outcome)
        return {f"val_{metric}": value for metric, value in outcome.mean().items()}


def _kept(path: pathlib.Path | None, key: Mapping[str, str]) -> dict[str, float] | None:
    if path is None or not path.exists():
        return None
    try:
        state = read_json(path, "delete it", (*key, "scores"))
    except DamagedFileError as error:
        warnings.warn(f"{error} The fold is trained again.", stacklevel=3)
        return None
    same = all(state[side] == value for side, value in key.items())
    require(same, f"{path} holds values of another fold; give another `directory`.")
    return dict(state["scores"])
