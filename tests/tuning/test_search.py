from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras_tuner
import pytest

from tests.tuning.models import Scored, values
from tfmtl import tuning
from tfmtl._keras import keras
from tfmtl.models import Regularization


class Wide:
    def __init__(self, task_names: list[str], units: int, activation: str = "relu") -> None:
        self.arguments = (task_names, units, activation)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        return {"units": hp.Choice("units", [8, 16])}


class Deep:
    def __init__(self, task_names: list[str], layers: int, units: int) -> None:
        self.arguments = (task_names, layers, units)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        return {"layers": hp.Choice("layers", [2, 3]), "units": hp.Choice("units", [4])}


def _hp(**chosen: Any) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.values = {name.replace("__", "/"): value for name, value in chosen.items()}
    return hp


def _drawn(declare: Any, directory: Path, **options: Any) -> list[dict[str, Any]]:
    tuner = tuning.RandomSearch(
        Scored(declare, lambda drawn: 1.0), None, directory=directory, overwrite=True, **options
    )
    tuner.search(verbose=0)
    return values(tuner)


def test_loss_weights_are_drawn_by_task_and_evenly_on_the_log_scale(tmp_path: Path) -> None:
    drawn = _drawn(lambda hp: tuning.loss_weights(hp, ["a", "b", "c"], reference="c"), tmp_path, max_trials=40, seed=1)
    assert all(set(one) == {"loss_weight/a", "loss_weight/b"} for one in drawn)
    weights = [weight for one in drawn for weight in one.values()]
    assert len(set(weights)) == 80
    assert all(0.1 <= weight <= 10 for weight in weights)
    # log10 is uniform on [-1, 1]: mean 0, deviation 1/sqrt(3); four standard errors of 80 draws
    assert abs(sum(map(math.log10, weights)) / 80) < 4 / math.sqrt(3 * 80)


def test_loss_weights_are_those_of_the_trial() -> None:
    hp = _hp(loss_weight__a=0.5)
    assert tuning.loss_weights(hp, ["b", "a"], reference="b") == {"b": 1.0, "a": 0.5}
    assert tuning.loss_weights(_hp(), ["a"], low=2.0, high=3.0) == {"a": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_names": ["a", "a"]}, "`task_names` must be distinct names"),
        ({"task_names": []}, "`task_names` must be distinct names"),
        ({"task_names": ["click"], "reference": "clik"}, r"Unknown reference task \['clik'\].*Did you mean 'click'"),
        ({"task_names": ["a"], "low": 0.0}, "must satisfy 0 < low < high"),
        ({"task_names": ["a"], "low": 2.0, "high": 1.0}, "must satisfy 0 < low < high"),
    ],
)
def test_wrong_arguments_of_loss_weights_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tuning.loss_weights(_hp(), **arguments)


def test_regularization_is_that_of_the_trial_and_can_be_none_at_all() -> None:
    assert tuning.sample_regularization(_hp()) == Regularization(l1=0.0, l2=0.0, dropout=0.0)
    found = tuning.sample_regularization(_hp(l1=1e-4, l2=1e-3, dropout=0.2), embedding_l2=0.5)
    assert found == Regularization(l1=1e-4, l2=1e-3, dropout=0.2, embedding_l2=0.5)
    assert tuning.sample_regularization(_hp(), max_dropout=0).dropout == 0.0
    assert tuning.sample_regularization(_hp(), l1=[1e-3], l2=[0.5]) == Regularization(l1=1e-3, l2=0.5)


def test_further_fields_are_searched_where_they_are_named(tmp_path: Path) -> None:
    names = ["embedding_dropout", "feature_dropout", "modality_dropout", "expert_dropout", "embedding_l2", "mixup"]
    assert tuning.sample_regularization(_hp(), further=[*names, "sequence"]) == Regularization()
    chosen = {"embedding_dropout": 0.5, "feature_dropout": 0.15, "modality_dropout": 0.2, "expert_dropout": 0.4}
    other = {"embedding_l2": 1e-5, "mixup": 0.2}
    assert tuning.sample_regularization(_hp(**chosen, **other), further=names) == Regularization(**chosen, **other)
    hp = _hp(sequenceaugmentation_crop=0.4, sequenceaugmentation_reorder=0.6)
    found = tuning.sample_regularization(hp, further=["sequence"]).sequence
    assert found is not None
    assert (found.crop, found.mask, found.reorder) == (0.4, 0.0, 0.6)
    for drawn in _drawn(lambda hp: tuning.sample_regularization(hp, further=names), tmp_path, max_trials=20, seed=1):
        assert set(drawn) == {"l1", "l2", "dropout", *names}
        Regularization(**drawn)  # every draw is a valid one


@pytest.mark.parametrize(
    "arguments",
    [
        {"l1": []},
        {"l2": [-1.0]},
        {"max_dropout": 1.0},
        {"further": ["mixupp"]},
    ],
)
def test_wrong_arguments_of_regularization_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        tuning.sample_regularization(_hp(), **arguments)


def test_a_field_cannot_be_searched_and_fixed() -> None:
    with pytest.raises(ValueError, match=r"The fields \['mixup'\] are searched and fixed"):
        tuning.sample_regularization(_hp(), further=["mixup"], mixup=0.2)


def test_an_optimizer_is_a_new_instance_of_the_chosen_class() -> None:
    hp = _hp(optimizer="Adagrad", learning_rate=0.05)
    first, second = tuning.sample_optimizer(hp), tuning.sample_optimizer(hp)
    assert type(first) is keras.optimizers.Adagrad
    assert float(first.learning_rate) == pytest.approx(0.05)
    assert first is not second
    assert float(tuning.sample_optimizer(_hp()).learning_rate) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="`kinds` must be classes with distinct names"):
        tuning.sample_optimizer(_hp(), kinds=[])
    with pytest.raises(ValueError, match="0 < low < high"):
        tuning.sample_optimizer(_hp(), low=1.0)


def test_a_trunk_is_made_of_its_own_search_space() -> None:
    made = tuning.sample_trunk(_hp(trunk="Deep", Deep__layers=3, Deep__units=4), [Wide, Deep], task_names=["a"])
    assert type(made) is Deep
    assert made.arguments == (["a"], 3, 4)
    fixed = tuning.sample_trunk(_hp(), [Wide, Deep], task_names=["a"], units=99, activation="tanh")
    assert fixed.arguments == (["a"], 99, "tanh")
    with pytest.raises(ValueError, match="`trunks` must be classes with distinct names"):
        tuning.sample_trunk(_hp(), [Wide, Wide])


def test_a_grid_over_trunks_has_every_combination_of_each_once(tmp_path: Path) -> None:
    model = Scored(lambda hp: tuning.sample_trunk(hp, [Wide, Deep], task_names=["a"]), lambda drawn: 1.0)
    tuner = tuning.GridSearch(model, None, directory=tmp_path)
    tuner.search(verbose=0)
    assert values(tuner) == [
        {"trunk": "Wide", "Wide/units": 8},
        {"trunk": "Wide", "Wide/units": 16},
        {"trunk": "Deep", "Deep/layers": 2, "Deep/units": 4},
        {"trunk": "Deep", "Deep/layers": 3, "Deep/units": 4},
    ]


def test_random_draws_of_a_whole_space_are_distinct_and_repeatable(tmp_path: Path) -> None:
    def declare(hp: Any) -> None:
        tuning.loss_weights(hp, ["a", "b"])
        tuning.sample_regularization(hp)
        tuning.sample_optimizer(hp)
        tuning.sample_trunk(hp, [Wide, Deep], task_names=["a"])

    first = _drawn(declare, tmp_path, max_trials=12, seed=5)
    assert first == _drawn(declare, tmp_path, max_trials=12, seed=5)
    assert first != _drawn(declare, tmp_path, max_trials=12, seed=6)
    assert len({tuple(sorted(one.items())) for one in first}) == 12
    assert {one["trunk"] for one in first} == {"Wide", "Deep"}
    assert all(any(name.startswith("Deep/") for name in one) == (one["trunk"] == "Deep") for one in first)
