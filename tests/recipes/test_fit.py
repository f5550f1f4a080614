"""The recipe: choices from the data, the best epoch of all tasks, and EASE beside the network."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tests.recipes.test_join_ease import tables
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.evaluation import evaluate
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.models.isolation import independent_groups
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
    options = {"network": network, "epochs": 2, "verbose": 0, "boosting": False, **arguments}
    return fit(preprocessor, tasks, train, **options)


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
    assert names == ["validation", "weights", "batch size", "rate", "ranks", "epochs", "retrieval"]
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


def test_retrieval_is_trained_apart_from_the_other_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without retrieval sparse ids have narrower tables, which are not trained; here all tables are.
    monkeypatch.setattr(sys.modules[fit.__module__], "sparse_ids", lambda preprocessor: ())
    found = _fit(network=None)
    assert [c.name for c in found.choices] == [
        "validation", "apart", "inputs", "history", "weights", "batch size", "rate", "ranks", "epochs", "epochs",
        "retrieval",
    ]  # fmt: skip
    assert (_value(found, "apart"), _value(found, "weights")) == ("bought", "1 each")
    groups = [names for names, _ in independent_groups(found.model.network)]
    assert sorted(groups) == [["bought"], ["stars"]]
    stars = _fit(network=None, tasks=[Regression("stars")])
    ours, alone = (each.model.predict(prepared()[1], verbose=0)["stars"] for each in (found, stars))
    np.testing.assert_allclose(ours, alone, rtol=1e-5)  # as if it were trained alone


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
    """Sets all weights of the network, and the values that `BestEpoch` reads, to values of the epoch."""

    def __init__(self, ndcg: list[float], loss: list[float]) -> None:
        super().__init__()
        self.ndcg, self.loss = ndcg, loss

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for weight in self.model.network.weights:
            weight.assign(np.full(weight.shape, float(epoch)))
        assert logs is not None
        logs |= {"val_bought_ndcg@10": self.ndcg[epoch], "val_stars_loss": self.loss[epoch]}


class _Unranked:
    """Leaves the scripted values, as `RetrievalEvaluation` would not."""

    def set_model(self, model: Any) -> None: ...

    def on_train_begin(self, logs: Any) -> None: ...

    def on_epoch_end(self, epoch: int, logs: Any) -> None: ...


def _trained(
    ndcg: list[float], loss: list[float], patience: int, isolate: Any = ()
) -> tuple[BestEpoch, MultiTaskModel, Any]:
    (preprocessor, train), tasks = prepared(), _tasks()
    sizes: dict[str, Any] = {"embedding_dim": 4, "tower_units": (4,), "regularization": NO_NOISE}
    model = MultiTaskModel(build_network(preprocessor, tasks, isolate=isolate, **sizes), tasks, preprocessor)
    model.compile(LazyAdam(1e-2))
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
    assert best.groups == [(["bought", "stars"], 1)]
    assert (model.network.trainable_weights[0].numpy() == 1.0).all()


def test_an_epoch_with_a_diverged_task_is_the_worst() -> None:
    best, model, run = _trained([0.2, 0.9, 0.9], [1.0, math.nan, math.nan], patience=2)
    assert run.history["val_quality"][1:] == [-math.inf, -math.inf]
    assert best.groups[0][1] == 0
    assert (model.network.trainable_weights[0].numpy() == 0.0).all()


def test_a_task_without_labels_on_validation_does_not_count() -> None:
    ndcg, loss = [0.2, 0.3, 0.1], [0.0, 0.0, 0.0]
    best, _, run = _trained(ndcg, loss, patience=3)
    assert run.history["val_quality"] == pytest.approx([math.log(n) for n in ndcg])
    assert best.groups[0][1] == 1
    _, model, _ = _trained(ndcg, loss, patience=3, isolate=[["bought"]])
    assert {w.name.startswith("bought_"): float(w.numpy().ravel()[0]) for w in model.network.weights} == {
        True: 1.0, False: 2.0,
    }  # fmt: skip


def test_each_group_of_tasks_keeps_its_own_best_epoch() -> None:
    ndcg, loss = [0.2, 0.3, 0.2, 0.2, 0.2, 0.2], [1.0, 0.9, 0.8, 0.7, 0.9, 0.9]
    best, model, run = _trained(ndcg, loss, patience=2, isolate=[["bought"]])
    assert sorted(best.groups) == [(["bought"], 1), (["stars"], 3)]
    assert len(run.epoch) == 6  # the last improvement of any group is in epoch 3
    epochs = {w.name.startswith("bought_"): set(w.numpy().ravel()) for w in model.network.weights}
    assert epochs == {True: {1.0}, False: {3.0}}
    assert run.history["val_quality"][1] == pytest.approx((math.log(0.3) - math.log(0.9)) / 2)


def test_a_diverged_task_leaves_the_epochs_of_other_groups_alone() -> None:
    best, _, _ = _trained([0.2, 0.3, 0.4], [1.0, math.nan, math.nan], patience=3, isolate=[["bought"]])
    assert sorted(best.groups) == [(["bought"], 2), (["stars"], 0)]


def test_a_task_that_reads_a_stopped_representation_is_in_its_group() -> None:
    inputs = keras.Input([3])
    hidden = keras.layers.Dense(2)(inputs)
    heads = {"a": keras.layers.Dense(1)(hidden), "b": keras.layers.Dense(1)(tf.stop_gradient(hidden))}
    assert [names for names, _ in independent_groups(keras.Model(inputs, heads))] == [["a", "b"]]


def test_batch_statistics_belong_to_the_group_that_reads_them() -> None:
    inputs = keras.Input([3])
    normal = keras.layers.BatchNormalization()(inputs)
    heads = {"a": keras.layers.Dense(1)(inputs), "b": keras.layers.Dense(1)(normal)}
    found = {names[0]: len(variables) for names, variables in independent_groups(keras.Model(inputs, heads))}
    assert found == {"a": 2, "b": 6}


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


@pytest.mark.parametrize(("part", "kept"), [("training", slice(-5, None)), ("held-out", slice(0, 5))])
def test_a_part_without_labels_of_a_task_is_named_before_the_training(part: str, kept: slice) -> None:
    preprocessor, train = prepared()
    late = train.assign(stars=np.nan)
    late.loc[train.index[kept], "stars"] = 1.0
    with pytest.raises(ValueError, match=rf"The {part} rows have no label of some tasks; .* tasks=\['stars'\]"):
        fit(preprocessor, _tasks(), late, time="day", verbose=0)


def test_two_retrievals_keep_their_networks() -> None:
    preprocessor, train = prepared()
    found = fit(preprocessor, [Retrieval("bought"), Retrieval("stars")], train, epochs=1, boosting=False, verbose=0)
    assert found.joined is None
    assert _value(found, "retrieval") == "network alone"


def test_ids_without_a_frequent_value_keep_the_network_alone() -> None:
    train = prepared()[1]
    schema = Schema(
        [Categorical("user", min_count=1000)], [Categorical("item")], labels=[Label("bought"), Label("stars")]
    )
    tasks: list[Task] = [Retrieval("bought")]
    preprocessor = Preprocessor.fit(schema, train)
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    found = fit(preprocessor, tasks, train, network=network, epochs=1, verbose=0)
    assert found.joined is None
    assert (found.choices[-1].value, found.choices[-1].reason) == (
        "network alone",
        "no value of 'user' is frequent enough for EASE",
    )
