from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuning.models import FIT, LABELS, TWO_CHOICES, Scored, functional, subclassed, two_choices, values
from tfmtl import tuning
from tfmtl._keras import keras, tf

Make = Callable[..., tuning.Tuner]


def _random(build: Any, **options: Any) -> tuning.Tuner:
    return tuning.RandomSearch(build, "val_loss", max_trials=3, **options)


def _grid(build: Any, **options: Any) -> tuning.Tuner:
    return tuning.GridSearch(build, "val_loss", max_trials=3, **options)


def _bayesian(build: Any, **options: Any) -> tuning.Tuner:
    return tuning.BayesianOptimization(build, "val_loss", max_trials=4, num_initial_points=3, **options)


def _hyperband(build: Any, **options: Any) -> tuning.Tuner:
    return tuning.Hyperband(build, "val_loss", max_epochs=2, factor=2, **options)


@pytest.mark.parametrize(
    ("make", "build"), [(_random, subclassed), (_grid, functional), (_bayesian, functional), (_hyperband, subclassed)]
)
def test_the_best_model_reloaded_has_the_reported_score(make: Make, build: Any, tmp_path: Path) -> None:
    tuner = make(build, seed=1, directory=tmp_path)
    tuner.search(**FIT, epochs=2)
    rows = tuning.trials_table(tuner, failed=True)
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert [row["score"] for row in rows] == sorted(row["score"] for row in rows)
    for model, row in zip(tuner.get_best_models(2), rows[:2], strict=True):
        loss = model.evaluate(*FIT["validation_data"], verbose=0)
        assert loss == pytest.approx(row["score"], rel=1e-5)
    assert tuner.get_best_hyperparameters()[0].values == rows[0]["hyperparameters"]


@pytest.mark.parametrize(("make", "seed"), [(_random, 7), (_random, 0), (_bayesian, 0), (_hyperband, 0)])
def test_one_seed_draws_the_same_distinct_values_again(make: Make, seed: int, tmp_path: Path) -> None:
    def draw(seed: int, project: str) -> list[dict[str, Any]]:
        model = Scored(lambda hp: hp.Float("x", 0.0, 1.0), lambda drawn: (drawn["x"] - 0.3) ** 2)
        tuner = make(model, seed=seed, directory=tmp_path, project_name=project)
        tuner.search(verbose=0)
        return [{"x": drawn["x"], "of": drawn.get("tuner/trial_id")} for drawn in values(tuner)]

    first = draw(seed, "first")
    assert first == draw(seed, "again")
    assert first != draw(seed + 1, "other")
    fresh = [drawn["x"] for drawn in first if drawn["of"] is None]
    assert len(set(fresh)) == len(fresh)


def test_a_grid_has_every_combination_once(tmp_path: Path) -> None:
    tuner = tuning.GridSearch(Scored(two_choices, lambda drawn: drawn["a"]), None, directory=tmp_path)
    tuner.search(verbose=0)
    assert sorted((drawn["a"], drawn["b"]) for drawn in values(tuner)) == TWO_CHOICES


@pytest.mark.parametrize("build", [functional, subclassed])
def test_hyperband_continues_from_the_promoted_weights(build: Any, tmp_path: Path) -> None:
    # With a learning rate of 0, a trial ends with its initial weights: those of the trial that it continues.
    def frozen(hp: Any) -> keras.Model:
        model = build(hp)
        model.optimizer.learning_rate = 0.0
        return model

    tuner = tuning.Hyperband(frozen, "val_loss", max_epochs=2, factor=2, seed=2, directory=tmp_path)
    tuner.search(**FIT)
    trials = tuner.oracle.trials
    promoted = [trial for trial in trials.values() if "tuner/trial_id" in trial.hyperparameters.values]
    assert promoted
    x = FIT["validation_data"][0]
    for trial in promoted:
        parent = trials[trial.hyperparameters.values["tuner/trial_id"]]
        np.testing.assert_array_equal(tuner.load_model(trial)(x), tuner.load_model(parent)(x))
    others = [tuner.load_model(trial)(x).numpy() for trial in trials.values() if trial not in promoted]
    assert not np.array_equal(others[0], others[1])


def test_hyperband_trains_the_epochs_of_its_rounds_and_continues_the_optimizer(tmp_path: Path) -> None:
    # 2 epochs, factor 2, algorithm 1 with s_max = 1: two trials of 1 epoch, the better up to epoch 2; then two of 2.
    steps = {}

    class Steps(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            steps[len(steps)] = (list(self.model.history.epoch), int(self.model.optimizer.iterations))

    tuner = tuning.Hyperband(functional, "val_loss", max_epochs=2, factor=2, seed=2, directory=tmp_path)
    tuner.search(**FIT, epochs=50, callbacks=[Steps()])
    # 150 rows in batches of 75 are 2 steps per epoch; the promoted trial has its parent's 2 steps behind it
    assert list(steps.values()) == [([0], 2)] * 2 + [([1], 4)] + [([0, 1], 4)] * 2


def test_the_score_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    losses = iter([0.5, 0.2, 0.9])

    class Scripted(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = next(losses)
            self.model.layers[-1].bias.assign([float(epoch)])

        def __deepcopy__(self, memo: Any) -> Scripted:
            return self

    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=1, directory=tmp_path)
    tuner.search(**FIT, epochs=3, callbacks=[Scripted()])
    (row,) = tuning.trials_table(tuner)
    assert (row["score"], row["best_step"]) == (0.2, 1)
    assert tuner.get_best_models()[0].layers[-1].bias.numpy() == [1.0]


def test_maximizing_ranks_the_largest_first(tmp_path: Path) -> None:
    objective = tuning.Objective("hits", "max")
    model = Scored(two_choices, lambda drawn: {"hits": drawn["a"] * drawn["b"]})
    tuner = tuning.GridSearch(model, objective, directory=tmp_path)
    tuner.search(verbose=0)
    assert [row["score"] for row in tuning.trials_table(tuner)] == [60, 40, 30, 20, 20, 10]
    assert tuner.get_best_hyperparameters()[0].values == {"a": 3, "b": 20}


def test_several_executions_report_their_mean_and_keep_the_best(tmp_path: Path) -> None:
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=1, executions_per_trial=3, directory=tmp_path)
    seen: list[float] = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(logs["val_loss"])

    tuner.search(**FIT, callbacks=[Note()])
    assert len(seen) == 3
    assert tuning.trials_table(tuner)[0]["score"] == pytest.approx(np.mean(seen))
    assert tuner.get_best_models()[0].evaluate(*FIT["validation_data"], verbose=0) == pytest.approx(min(seen))


def test_a_dataset_is_passed_on_to_fit(tmp_path: Path) -> None:
    train = tf.data.Dataset.from_tensor_slices((FIT["x"], FIT["y"])).batch(75)
    tuner = tuning.RandomSearch(subclassed, "loss", max_trials=1, directory=tmp_path)
    tuner.search(train, verbose=0)
    assert 0 < tuning.trials_table(tuner)[0]["score"] < 10 * np.var(LABELS)


def test_several_objectives_count_as_their_signed_sum(tmp_path: Path) -> None:
    objective = ["val_loss", tuning.Objective("val_mean_absolute_error", "max")]

    def build(hp: Any) -> keras.Model:
        model = functional(hp)
        model.compile("sgd", "mse", metrics=["mean_absolute_error"], run_eagerly=True)
        return model

    tuner = tuning.RandomSearch(build, objective, max_trials=1, directory=tmp_path)
    tuner.search(**FIT)
    loss, error = tuner.get_best_models()[0].evaluate(*FIT["validation_data"], verbose=0)
    assert tuning.trials_table(tuner)[0]["score"] == pytest.approx(loss - error, rel=1e-5)


def test_a_trial_trains_under_the_distribution_strategy(tmp_path: Path) -> None:
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    seen = []

    def build(hp: Any) -> keras.Model:
        seen.append(tf.distribute.get_strategy())
        return functional(hp)

    tuner = tuning.RandomSearch(build, "val_loss", max_trials=1, directory=tmp_path, distribution_strategy=strategy)
    tuner.search(**FIT)
    tuner.get_best_models()
    assert seen[1:] == [strategy, strategy]  # keras-tuner explores the space before it has the strategy
