from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import keras_tuner
import pytest

from tests.tuning.models import FIT, Scored, functional, two_choices
from tfmtl import tuning
from tfmtl._keras import keras

FATAL = keras_tuner.errors.FatalError


def _scored(score: Any, directory: Path, **options: Any) -> tuning.Tuner:
    return tuning.GridSearch(Scored(two_choices, score), None, directory=directory, **options)


def _one_rate() -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    space.Fixed("rate", 0.01)
    return space


def _failing_for_1(drawn: Any) -> float:
    if drawn["a"] == 1:
        raise ValueError("no units")
    return float(drawn["a"] + drawn["b"])


def test_failed_trials_are_never_best(tmp_path: Path) -> None:
    tuner = _scored(_failing_for_1, tmp_path)
    tuner.search(verbose=0)
    assert [row["score"] for row in tuning.trials_table(tuner)] == [12.0, 13.0, 22.0, 23.0]
    assert [found["a"] for found in tuner.get_best_hyperparameters(10)] == [2, 3, 2, 3]
    failed = tuning.trials_table(tuner, failed=True)[4:]
    assert [(row["status"], row["score"], row["message"]) for row in failed] == [
        ("FAILED", None, "ValueError: no units")
    ] * 2


def test_a_build_that_fails_for_some_values_fails_their_trials(tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        if hp.Choice("units", [2, 4, 8]) == 4:
            raise ValueError("four is too many")
        return functional(hp)

    tuner = tuning.GridSearch(build, "val_loss", hyperparameters=_one_rate(), directory=tmp_path)
    tuner.search(**FIT)
    rows = tuning.trials_table(tuner, failed=True)
    assert {row["hyperparameters"]["units"] for row in rows[:2]} == {2, 8}
    assert [(row["hyperparameters"]["units"], row["message"]) for row in rows[2:]] == [
        (4, "ValueError: four is too many")
    ]
    assert len(tuner.get_best_models(5)) == 2


@pytest.mark.parametrize("limit", [2, 99])
def test_a_search_without_a_success_raises_the_first_error(limit: int, tmp_path: Path) -> None:
    def score(drawn: Any) -> float:
        raise ValueError(f"no {drawn['a']} and {drawn['b']}")

    tuner = _scored(score, tmp_path, max_consecutive_failed_trials=limit)
    first = r"None of the \d trials completed; the first error, of trial 0000, was ValueError: no 1 and 10"
    with pytest.raises(RuntimeError, match=first):
        tuner.search(verbose=0)
    assert tuning.trials_table(tuner) == []
    with pytest.raises(RuntimeError, match=r"No trial has completed in .*; call `search` first"):
        tuner.get_best_models()
    with pytest.raises(RuntimeError, match="No trial has completed"):
        tuner.get_best_hyperparameters()


def test_too_many_failures_in_a_row_end_a_search_but_keep_its_successes(tmp_path: Path) -> None:
    def score(drawn: Any) -> float:
        return 1.0 if drawn["a"] == 1 else math.nan

    tuner = _scored(score, tmp_path, max_consecutive_failed_trials=2)
    with pytest.raises(RuntimeError, match="consecutive failures"):
        tuner.search(verbose=0)
    assert [row["score"] for row in tuning.trials_table(tuner)] == [1.0, 1.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_an_objective_that_is_not_finite_is_a_failure(value: float, direction: str, tmp_path: Path) -> None:
    model = Scored(two_choices, lambda drawn: {"x": value if drawn["a"] == 2 else drawn["a"]})
    tuner = tuning.GridSearch(model, tuning.Objective("x", direction), directory=tmp_path)
    tuner.search(verbose=0)
    assert {row["hyperparameters"]["a"] for row in tuning.trials_table(tuner)} == {1, 3}
    (message,) = {row["message"] for row in tuning.trials_table(tuner, failed=True)[4:]}
    assert message == f"ValueError: The objective 'x' of a trial must be finite. Received: value={value}."


def test_a_model_that_diverges_is_a_failure(tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        model = functional(hp)
        if hp.Boolean("diverge"):
            model.layers[-1].bias.assign([math.nan])
        return model

    space = _one_rate()
    space.Fixed("units", 4)
    tuner = tuning.GridSearch(build, "val_loss", hyperparameters=space, directory=tmp_path)
    tuner.search(**FIT)
    rows = tuning.trials_table(tuner, failed=True)
    assert [(row["hyperparameters"]["diverge"], row["status"]) for row in rows] == [
        (False, "COMPLETED"),
        (True, "FAILED"),
    ]


def test_a_retry_counts_its_own_value(tmp_path: Path) -> None:
    outcomes = iter([math.nan, 5.0, 6.0])
    tuner = _scored(lambda drawn: next(outcomes), tmp_path, max_trials=2, max_retries_per_trial=1)
    tuner.search(verbose=0)
    assert [row["score"] for row in tuning.trials_table(tuner)] == [5.0, 6.0]


def test_an_objective_missing_from_the_log_ends_the_search_at_once(tmp_path: Path) -> None:
    tuner = tuning.RandomSearch(functional, "val_losss_error", max_trials=3, directory=tmp_path)
    with pytest.raises(FATAL, match=r"Unknown objective \['val_losss_error'\] in the training log; known: \['loss'"):
        tuner.search(**FIT)
    assert len(tuner.oracle.trials) == 1


def test_an_objective_that_is_not_in_every_epoch_ends_the_search_at_once(tmp_path: Path) -> None:
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=3, directory=tmp_path)
    with pytest.raises(FATAL, match="training log of each of the 2 epochs"):
        tuner.search(**FIT, epochs=2, validation_freq=2)


def test_callbacks_are_copied_for_every_trial(tmp_path: Path) -> None:
    fits = []

    class Count(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_train_begin(self, logs: Any = None) -> None:
            self.count += 1
            fits.append(self.count)

    given = Count()
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=2, directory=tmp_path)
    tuner.search(**FIT, callbacks=[given])
    assert fits == [1, 1]
    assert given.count == 0
    assert given.model is None


def test_the_tuner_hears_of_every_epoch(tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []

    class Listening(tuning.RandomSearch):
        def on_epoch_begin(self, trial: Any, model: Any, epoch: int, logs: Any = None) -> None:
            heard.append((trial.trial_id, epoch))

        def on_epoch_end(self, trial: Any, model: Any, epoch: int, logs: Any = None) -> None:
            heard.append((trial.trial_id, -1 if "val_loss" in logs else 0))

    Listening(functional, "val_loss", max_trials=1, directory=tmp_path).search(**FIT, epochs=2)
    assert heard == [("0", 0), ("0", -1), ("0", 1), ("0", -1)]


def test_tensorboard_also_gets_the_hyperparameters(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=1, directory=tmp_path)
    tuner.search(**FIT, callbacks=[keras.callbacks.TensorBoard(logs)])
    written = b"".join(path.read_bytes() for path in (logs / "0" / "execution0").glob("events*"))
    assert b"units" in written


def test_tensorboard_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tuner = tuning.RandomSearch(functional, "val_loss", directory=tmp_path)
    with pytest.raises(ImportError, match="package tensorboard"):
        tuner.search(**FIT, callbacks=[keras.callbacks.TensorBoard(tmp_path)])


def test_without_tensorboard_a_search_does_not_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=1, directory=tmp_path)
    tuner.search(**FIT)
    assert tuning.trials_table(tuner)


def test_objects_of_keras_3_are_refused_by_name(tmp_path: Path) -> None:
    keras_3: Any = importlib.import_module("keras")

    def with_optimizer(hp: Any) -> keras.Model:
        model = functional(hp)
        model.compile(keras_3.optimizers.Adam(), "mse")
        return model

    def with_layer(hp: Any) -> keras.Model:
        return keras.Sequential([keras_3.layers.Dense(1)])

    for build in (with_optimizer, with_layer):
        with pytest.raises(FATAL, match=r"could not be built: objects of Keras 3 .* use `import tf_keras as keras`"):
            tuning.RandomSearch(build, "val_loss", directory=tmp_path)
    tuner = tuning.RandomSearch(lambda hp: keras_3.Sequential(), "val_loss", directory=tmp_path)
    with pytest.raises(FATAL, match=r"must return a Keras 2 model .* Received: keras\.src\.models\.seq"):
        tuner.search(**FIT)
    tuner = tuning.RandomSearch(functional, "val_loss", directory=tmp_path, overwrite=True)
    with pytest.raises(TypeError, match=r"must be Keras 2 callbacks .* Received: keras\.src\.callbacks"):
        tuner.search(**FIT, callbacks=[keras_3.callbacks.EarlyStopping()])
    with pytest.raises(ValueError, match=r"takes no `optimizer`, .* Received: given=\['optimizer'\]"):
        tuning.RandomSearch(functional, "val_loss", directory=tmp_path, optimizer=keras_3.optimizers.Adam())


def test_an_error_of_the_users_own_is_passed_on_unchanged(tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        raise ValueError("tf_keras.src is not to blame")

    with pytest.raises(ValueError, match=r"tf_keras\.src is not to blame") as raised:
        tuning.RandomSearch(build, "val_loss", directory=tmp_path)
    assert type(raised.value) is ValueError


def test_a_model_above_the_size_fails(tmp_path: Path) -> None:
    # Dense(u) on 4 features and Dense(1) after it have 5u + (u + 1) parameters: 13, 25, 49, 97
    tuner = tuning.GridSearch(
        functional, "val_loss", hyperparameters=_one_rate(), max_model_size=25, directory=tmp_path
    )
    tuner.search(**FIT)
    rows = tuning.trials_table(tuner, failed=True)
    assert [row["status"] for row in rows] == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert rows[3]["message"].endswith("FailedTrialError: The model has 97 parameters, more than max_model_size=25.")


def test_a_fit_that_drops_the_callbacks_leaves_nothing_to_load(tmp_path: Path) -> None:
    tuner = _scored(lambda drawn: 1.0, tmp_path, max_trials=1)
    tuner.search(verbose=0)
    with pytest.raises(FileNotFoundError, match=r"Trial 0 has no checkpoint .* must hand the `callbacks`"):
        tuner.get_best_models()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=1, directory=tmp_path)
    tuner.search(**FIT)
    (trial,) = tuner.oracle.trials.values()
    tuner.hypermodel.build = lambda hp: keras.Sequential([keras.Input([4])] + [keras.layers.Dense(16)] * 3)
    with pytest.raises((AssertionError, ValueError)):
        tuner.load_model(trial)


def test_verbose_0_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuner = tuning.RandomSearch(functional, "val_loss", max_trials=1, directory=tmp_path)
    tuner.search(**FIT)
    assert capsys.readouterr().out == ""
