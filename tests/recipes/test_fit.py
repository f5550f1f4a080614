"""The recipe: choices from the data, the best epoch of all tasks, and EASE beside the network."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tests.recipes.test_join_ease import tables
from tfmtl._keras import keras
from tfmtl.balancing import FixedWeights
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.evaluation import evaluate
from tfmtl.models import build_network
from tfmtl.recipes import BestEpoch, Fitted, fit
from tfmtl.tasks import Regression, Retrieval, Task
from tfmtl.training import LazyAdam


@functools.cache
def prepared() -> tuple[Preprocessor, pd.DataFrame]:
    train = tables()[0].drop(columns="history").reset_index(drop=True).assign(day=lambda table: np.arange(len(table)))
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("bought"), Label("stars")])
    return Preprocessor.fit(schema, train), train


def _tasks() -> list[Task]:
    return [Retrieval("bought"), Regression("stars")]


def _fit(**arguments: Any) -> Fitted:
    preprocessor, train = prepared()
    tasks = arguments.pop("tasks", None) or _tasks()
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    return fit(preprocessor, tasks, train, **{"network": network, "epochs": 2, "verbose": 0, **arguments})


@functools.cache
def fitted() -> Fitted:
    return _fit(time="day")


@functools.cache
def by_chance() -> Fitted:
    return _fit()


def _value(found: Fitted, name: str) -> str:
    return next(choice.value for choice in found.choices if choice.name == name)


def test_every_choice_is_printed_with_its_reason() -> None:
    names = [choice.name for choice in fitted().choices]
    assert names == ["validation", "weights", "batch size", "ranks", "epochs", "retrieval"]
    assert all(choice.value and choice.reason for choice in fitted().choices)
    assert str(fitted()).count("\n") == len(names) - 1
    rows = len(prepared()[1])
    assert _value(fitted(), "validation") == f"last {round(0.1 * rows):,} rows"
    assert _value(fitted(), "weights") == "0.1 for stars"
    assert _value(fitted(), "batch size") == "64"
    assert _value(fitted(), "ranks") == "seen items leave the lists"


def test_other_tasks_weigh_a_tenth_beside_a_retrieval() -> None:
    weights = dict(zip(("bought", "stars"), fitted().model.balancer.current_weights().numpy(), strict=True))
    assert weights == pytest.approx({"bought": 1.0, "stars": 0.1})
    assert _value(_fit(tasks=[Regression("stars")], network=None), "weights") == "1 each"


def test_arguments_override_the_choices() -> None:
    given = tables()[1]
    found = _fit(validation=given, balancer=FixedWeights({"stars": 0.5}), batch_size=32, optimizer=LazyAdam(1e-3))
    assert "weights" not in [choice.name for choice in found.choices]
    assert _value(found, "validation") == "given"
    assert _value(found, "batch size") == "32"
    assert float(found.model.optimizer.learning_rate) == pytest.approx(1e-3)


def test_the_result_ranks_better_than_its_network_alone() -> None:
    found, (_, train) = by_chance(), prepared()
    assert found.joined is not None
    report = evaluate(found.model, tables()[1], seen=train, ks=10)
    assert found.joined.values["mixture"] >= found.joined.values["network"]
    assert report["bought", "ndcg@10"] > 0.5


def test_the_same_seed_gives_the_same_weights() -> None:
    for left, right in zip(by_chance().model.get_weights(), _fit().model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


class _Scripted(keras.callbacks.Callback):
    """Sets a variable of the model, and the values that `BestEpoch` reads, by epoch."""

    def __init__(self, ndcg: list[float], loss: list[float]) -> None:
        super().__init__()
        self.ndcg, self.loss = ndcg, loss

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.network.trainable_weights[0].assign(
            np.full(self.model.network.trainable_weights[0].shape, float(epoch))
        )
        assert logs is not None
        logs |= {"val_bought_ndcg@10": self.ndcg[epoch], "val_stars_loss": self.loss[epoch]}


class _Unranked:
    """Leaves the scripted values, as `RetrievalEvaluation` would not."""

    def set_model(self, model: Any) -> None: ...

    def on_train_begin(self, logs: Any) -> None: ...

    def on_epoch_end(self, epoch: int, logs: Any) -> None: ...


def _trained(ndcg: list[float], loss: list[float], patience: int) -> tuple[BestEpoch, Any, Any]:
    _, train = prepared()
    model = _fit(epochs=1, tasks=_tasks()).model
    best = BestEpoch(train, patience=patience)
    best._ranks = _Unranked()  # type: ignore[assignment]
    run = model.fit(train, epochs=len(ndcg), batch_size=4096, verbose=0, callbacks=[_Scripted(ndcg, loss), best])
    return best, model, run


def test_the_best_epoch_weighs_relative_changes_of_all_tasks() -> None:
    # mean of log ndcg and -log loss: epoch 1 gains log 1.5 and loses log 1.2; epoch 2 gains less than it loses
    ndcg, loss = [0.2, 0.3, 0.32, 0.32], [1.0, 1.2, 1.4, 1.5]
    best, model, run = _trained(ndcg, loss, patience=2)
    wanted = [(math.log(n) - math.log(x)) / 2 for n, x in zip(ndcg, loss, strict=True)]
    assert run.history["val_quality"] == pytest.approx(wanted)
    assert best.epoch == 1
    assert (model.network.trainable_weights[0].numpy() == 1.0).all()


def test_an_epoch_with_a_diverged_task_is_the_worst() -> None:
    best, model, run = _trained([0.2, 0.9, 0.9], [1.0, math.nan, math.nan], patience=2)
    assert run.history["val_quality"][1:] == [-math.inf, -math.inf]
    assert best.epoch == 0
    assert (model.network.trainable_weights[0].numpy() == 0.0).all()


def test_training_stops_after_the_patience() -> None:
    _, model, run = _trained([0.3, 0.2, 0.2, 0.2, 0.2], [1.0] * 5, patience=2)
    assert len(run.epoch) == 3
    assert (model.network.trainable_weights[0].numpy() == 0.0).all()


def test_wrong_arguments_are_named() -> None:
    preprocessor, train = prepared()
    with pytest.raises(ValueError, match="`patience`"):
        BestEpoch(train, patience=0)
    with pytest.raises(ValueError, match="`train`"):
        fit(preprocessor, _tasks(), train[:1])
