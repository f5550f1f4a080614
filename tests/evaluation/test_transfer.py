"""The transfer report: joint against alone, by task, with intervals and a cure."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.evaluation import delta_m, evaluate, transfer_report
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Regression, Retrieval, Task
from tfmtl.training import LazyAdam

USERS, ITEMS = 40, 8


@functools.cache
def prepared() -> tuple[Preprocessor, pd.DataFrame]:
    rng = np.random.default_rng(0)
    user, item = np.repeat(np.arange(USERS), ITEMS), np.tile(np.arange(ITEMS), USERS)
    liked = (user + item) % 2
    table = pd.DataFrame(
        {
            "user": [f"u{u}" for u in user],
            "item": [f"i{i}" for i in item],
            "bought": np.where(item == user % ITEMS, 1.0, 0.0),
            "stars": 1.0 + item % 4 + 0.1 * rng.normal(size=len(user)),
            "liked": np.where(user % 5 == 0, np.nan, liked),
        }
    )
    schema = Schema(
        [Categorical("user")], [Categorical("item")], labels=[Label(n) for n in ("bought", "stars", "liked")]
    )
    return Preprocessor.fit(schema, table), table


def _tasks() -> dict[str, Task]:
    return {"bought": Retrieval("bought"), "stars": Regression("stars"), "liked": BinaryClassification("liked")}


@functools.cache
def trained(names: tuple[str, ...], epochs: int) -> MultiTaskModel:
    preprocessor, table = prepared()
    tasks = [_tasks()[name] for name in names]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(8,), regularization=NO_NOISE)
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam(0.03))
    if epochs:
        model.fit(table, epochs=epochs, batch_size=64, verbose=0)
    return model


@functools.cache
def report() -> pd.DataFrame:
    alone = {"bought": trained(("bought",), 8), "stars": trained(("stars",), 0), "liked": trained(("liked",), 0)}
    return transfer_report(trained(("bought", "stars", "liked"), 0), alone, prepared()[1], samples=50)


def test_values_are_those_of_evaluate() -> None:
    _, table = prepared()
    joint = evaluate(trained(("bought", "stars", "liked"), 0), table, ks=ITEMS)
    assert list(report().index) == ["bought", "stars", "liked"]
    assert list(report()["metric"]) == [f"ndcg@{ITEMS}", "rmse", "auc"]
    for task, metric in report()["metric"].items():
        assert report().loc[task, "joint"] == pytest.approx(joint[task, metric], abs=1e-6)
    single = evaluate(trained(("bought",), 8), table, ks=ITEMS)
    assert report().loc["bought", "alone"] == pytest.approx(single["bought", f"ndcg@{ITEMS}"], abs=1e-6)


def test_a_trained_model_alone_beats_an_untrained_joint_model_and_the_report_says_what_to_do() -> None:
    row = report().loc["bought"]
    assert row["verdict"] == "worse"
    assert row["gain_low"] <= row["gain"] <= row["gain_high"] < 0
    assert "FixedWeights" in row["cure"]


def test_gains_are_above_0_where_the_joint_model_is_better() -> None:
    joint = trained(("bought", "stars", "liked"), 8)
    alone = {name: trained((name,), 0) for name in ("bought", "stars", "liked")}
    found = transfer_report(joint, alone, prepared()[1], samples=50)
    assert list(found["verdict"][["bought", "stars"]]) == ["better", "better"]
    assert (found.loc[["bought", "stars"], "gain_low"] > 0).all()
    assert found.loc["stars", "joint"] < found.loc["stars", "alone"]  # an error: the gain is its fall
    assert found.loc["stars", "gain"] == pytest.approx(found.loc["stars", "alone"] - found.loc["stars", "joint"])
    assert (found["cure"][["bought", "stars"]] == "").all()
    better: Any = {"bought": "max", "stars": "min", "liked": "max"}
    wanted = delta_m(found["joint"].to_dict(), found["alone"].to_dict(), better)
    assert found.attrs["delta_m"] == pytest.approx(wanted)


def test_equal_models_are_level() -> None:
    model = trained(("bought", "stars", "liked"), 0)
    found = transfer_report(model, lambda task: model, prepared()[1], samples=20)
    assert list(found["verdict"]) == ["level"] * 3
    assert (found[["gain", "gain_low", "gain_high"]].to_numpy() == 0).all()
    assert found.attrs["delta_m"] == 0


def test_a_task_without_labels_is_left_out_and_its_model_is_not_trained() -> None:
    model, table = trained(("bought", "stars", "liked"), 0), prepared()[1]
    asked = []

    def train(task: str) -> MultiTaskModel:
        asked.append(task)
        return model

    found = transfer_report(model, train, table.assign(liked=np.nan), samples=5)
    assert asked == list(found.index) == ["bought", "stars"]


def test_wrong_models_are_named() -> None:
    model, table = trained(("bought", "stars", "liked"), 0), prepared()[1]
    with pytest.raises(ValueError, match="no model of task 'bought'"):
        transfer_report(model, {}, table)
    with pytest.raises(ValueError, match="model of task 'bought' in `alone` lacks it"):
        transfer_report(model, {"bought": trained(("stars",), 0)}, table)
