from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from tfmtl import tuning
from tfmtl._keras import keras, tf
from tfmtl.data import Categorical, Label, Preprocessor, Schema, grouped_kfold, random_kfold
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import Regression

SCHEMA = Schema(query=[Categorical("user")], candidate=[Categorical("item")], labels=[Label("rating")])


def table(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 8, rows), rng.integers(0, 5, rows)
    return pd.DataFrame({"user": [f"u{i}" for i in user], "item": [f"i{i}" for i in item], "rating": 1.0 + user + item})


class Spy:
    """A recipe, and a build for a tuner, that remembers the tables and the models."""

    def __init__(self) -> None:
        self.tables: list[pd.DataFrame] = []
        self.models: list[MultiTaskModel] = []

    def build(self, hp: Any, train: pd.DataFrame) -> MultiTaskModel:
        self.tables.append(train)
        preprocessor = Preprocessor.fit(SCHEMA, train)
        tasks = [Regression.from_statistics("rating", preprocessor.statistics)]
        network = build_network(preprocessor, tasks, embedding_dim=2, tower_units=[2])
        model = MultiTaskModel(network, tasks, preprocessor)
        rate = hp.Choice("rate", [1e-6, 0.05]) if hp is not None else 0.05
        model.compile(keras.optimizers.Adam(rate), run_eagerly=True)
        self.models.append(model)
        return model

    def __call__(self, train: pd.DataFrame) -> MultiTaskModel:
        model = self.build(None, train)
        model.fit(train, batch_size=20, verbose=0)
        return model


def mean_of(train: pd.DataFrame) -> float:
    return float(train["rating"].mean())


def error_of(mean: float, test: pd.DataFrame) -> dict[Any, float]:
    return {("rating", "mae"): float((test["rating"] - mean).abs().mean())}


def test_nothing_is_learned_from_a_held_out_fold() -> None:
    spy, folds = Spy(), list(grouped_kfold(table(), "user", folds=2, seed=0))
    result = tuning.cross_validate(spy, folds)
    for given, model, (train, test) in zip(spy.tables, spy.models, folds, strict=True):
        assert given.index.tolist() == train.index.tolist()
        held_out = tf.constant(sorted(set(test["user"])))
        np.testing.assert_array_equal(model.preprocessor({"user": held_out})["user"], 1)  # unknown, all of them
        known = tf.constant(sorted(set(train["user"])))
        assert (model.preprocessor({"user": known})["user"].numpy() > 1).all()
    assert [row["metric"] for row in result.summary()][:1] == ["loss"]
    expected = [m.evaluate(f.test, verbose=0, return_dict=True) for m, f in zip(spy.models, folds, strict=True)]
    for metric, mean in result.mean().items():
        assert mean == pytest.approx(np.mean([each[metric] for each in expected]), rel=1e-5)


def test_table_and_summary_by_hand() -> None:
    folds = [(1.0, 3), (2.0, 3), (6.0, 3)]
    result = tuning.CrossValidation(tuple({"x": value} for value, _ in folds), ((6, 3),) * 3)
    assert result.table()[2] == {"fold": 2, "metric": "x", "value": 6.0}
    (row,) = result.summary(confidence=0.9)
    deviation = math.sqrt((4 + 1 + 9) / 2)  # the mean is 3
    assert row["mean"] == 3
    assert row["standard_error"] == pytest.approx(deviation / math.sqrt(3))
    half = 2.9199855803537 * deviation * math.sqrt(1 / 3 + 1 / 2)  # Student's 95 % quantile of 2 degrees of freedom
    assert (row["low"], row["high"]) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert row["folds"] == 3


def test_interval_without_overlap_is_scipys() -> None:
    values = [0.3, 0.5, 0.4, 0.9]
    result = tuning.CrossValidation(tuple({"x": value} for value in values), ((10**12, 1),) * 4)
    (row,) = result.summary()
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_a_metric_that_folds_lack_counts_where_it_is() -> None:
    def some(mean: float, test: pd.DataFrame) -> dict[str, float]:
        return {"a": 1.0} if 0 in test.index else {"a": 3.0, "b": 5.0}

    result = tuning.cross_validate(mean_of, random_kfold(table(), folds=2, seed=0), evaluate=some)
    rows = {row["metric"]: row for row in result.summary()}
    assert (rows["a"]["mean"], rows["a"]["folds"]) == (2.0, 2)
    assert (rows["b"]["mean"], rows["b"]["folds"]) == (5.0, 1)
    assert math.isnan(rows["b"]["standard_error"])
    assert math.isnan(rows["b"]["low"])


def test_a_killed_run_continues_and_other_folds_are_refused(tmp_path: Path) -> None:
    folds, calls = list(random_kfold(table(), folds=3, seed=0)), []

    def recipe(train: pd.DataFrame) -> float:
        calls.append(len(train))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return mean_of(train)

    with pytest.raises(KeyboardInterrupt):
        tuning.cross_validate(recipe, folds, evaluate=error_of, directory=tmp_path / "run")
    found = tuning.cross_validate(recipe, folds, evaluate=error_of, directory=tmp_path / "run")
    assert len(calls) == 4
    assert found == tuning.cross_validate(mean_of, folds, evaluate=error_of)
    assert list(found.mean()) == ["rating_mae"]
    assert json.loads((tmp_path / "run" / "fold_0.json").read_text())["scores"] == found.scores[0]
    path = tmp_path / "run" / "fold_0.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"fold_0\.json is damaged: .* The fold is trained again\."):
        assert tuning.cross_validate(recipe, folds, evaluate=error_of, directory=tmp_path / "run") == found
    assert len(calls) == 5
    others = random_kfold(table(), folds=3, seed=1)
    with pytest.raises(ValueError, match=r"fold_0.json holds values of another fold"):
        tuning.cross_validate(recipe, others, evaluate=error_of, directory=tmp_path / "run")


def test_a_trial_is_the_mean_over_folds(tmp_path: Path) -> None:
    spy, folds = Spy(), list(random_kfold(table(), folds=2, seed=0))
    hypermodel = tuning.CrossValidated(spy.build, folds)
    tuner = tuning.GridSearch(hypermodel, "val_rating_loss", directory=tmp_path)
    tuner.search(epochs=3, batch_size=10, verbose=0)
    rows = tuning.trials_table(tuner)
    assert [row["status"] for row in rows] == ["COMPLETED"] * 2
    assert rows[0]["hyperparameters"]["rate"] == 0.05
    scores = sorted(outcome.mean()["rating_loss"] for outcome in hypermodel.outcomes)
    assert [row["score"] for row in rows] == pytest.approx(scores)
    for given, model in zip(spy.tables, spy.models, strict=True):
        assert given.index.tolist() in [split.train.index.tolist() for split in folds]
        assert len(model.preprocessor.vocabulary("user")) == given["user"].nunique()
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        tuner.get_best_models()


def test_each_fold_has_its_own_model_and_the_first_one_is_given() -> None:
    class Fitted:
        def __init__(self, train: pd.DataFrame) -> None:
            self.given, self.train = train, None

        def fit(self, train: pd.DataFrame, callbacks: Any, epochs: int) -> None:
            self.train, self.callbacks, self.epochs = train, callbacks, epochs

    folds = list(random_kfold(table(), folds=3, seed=0))
    made: list[Fitted] = []

    def build(hp: Any, train: pd.DataFrame) -> Any:
        made.append(Fitted(train))
        return made[-1]

    def evaluate(model: Any, test: pd.DataFrame) -> dict[Any, float]:
        return {("rows", "test"): len(test), "train": len(model.train)}

    hp: Any = SimpleNamespace(values={})
    for count in (1, 3):
        made.clear()
        hypermodel = tuning.CrossValidated(build, folds[:count], evaluate)
        found = hypermodel.fit(hp, hypermodel.build(hp), epochs=2, callbacks=["noted"])
        assert [model.given is fold.train for model, fold in zip(made, folds, strict=False)] == [True] * count
        assert [(model.train is model.given, model.epochs, model.callbacks) for model in made] == [
            (True, 2, ["noted"])
        ] * count
        rows = np.mean([(len(fold.test), len(fold.train)) for fold in folds[:count]], axis=0)
        assert found == dict(zip(["val_rows_test", "val_train"], rows, strict=True))
        assert hypermodel.outcomes[0].rows == tuple((len(fold.train), len(fold.test)) for fold in folds[:count])


def test_what_has_no_meaning_with_folds_is_refused(tmp_path: Path) -> None:
    folds = list(random_kfold(table(), folds=2, seed=0))
    hypermodel = tuning.CrossValidated(Spy().build, folds)
    band = tuning.Hyperband(hypermodel, "val_rating_loss", max_epochs=2, directory=tmp_path / "a")
    with pytest.raises(ValueError, match="Hyperband goes on from a trial's checkpoint"):
        band.search(verbose=0)
    grid = tuning.GridSearch(hypermodel, "val_rating_loss", directory=tmp_path / "b")
    with pytest.raises(ValueError, match="`CrossValidated` has its own data"):
        grid.search(table(), verbose=0)
    with pytest.raises(ValueError, match="`folds` must hold at least one split"):
        tuning.CrossValidated(Spy().build, [])
    with pytest.raises(ValueError, match="`folds` must hold at least one split"):
        tuning.cross_validate(mean_of, [])
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1"):
        tuning.CrossValidation(({"x": 1.0},), ((1, 1),)).summary(confidence=1)
