"""Trunks that read more of a network than the encoded pair."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import UPGrad
from tfmtl.compression import prune
from tfmtl.data import Batch, to_batch
from tfmtl.layers import STEM, MultiTaskLayer, PEPNet
from tfmtl.models import MultiTaskModel
from tfmtl.models.network import shared_variables
from tfmtl.tasks import BinaryClassification, Retrieval, Task

ON_PAIRS = ["liked", "mood"]


def heads() -> list[Task]:
    return [Retrieval("seen", num_uniform_negatives=3), *map(BinaryClassification, ON_PAIRS)]


def stem() -> MultiTaskLayer:
    return STEM(ON_PAIRS, units=[4])


def pepnet(**arguments: Any) -> MultiTaskLayer:
    given: dict[str, Any] = {"domain": ["position"], "personal": ["user", "item", "recent"], "units": [4], **arguments}
    return PEPNet(ON_PAIRS, **given)


def model_of(trunk: MultiTaskLayer, **arguments: Any) -> MultiTaskModel:
    return small.model(heads=heads(), trunk=trunk, **arguments)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return to_batch(small.table(), small.preprocessor())


def reached(model: MultiTaskModel, batch: Batch) -> dict[str, set[str]]:
    """Return the names of the variables that the loss of each task reaches."""
    with tf.GradientTape(persistent=True) as tape:
        losses = model.compute_losses(batch, training=True)
    variables = model.network.trainable_variables
    return {
        task: {
            v.name for v, g in zip(variables, tape.gradient(loss, variables), strict=True)
            if g is not None and np.any(tf.convert_to_tensor(g) != 0)
        }
        for task, (loss, _) in losses.items()
    }  # fmt: skip


@pytest.mark.parametrize("trunk", [stem, pepnet])
def test_shared_variables_of_the_network_are_those_that_losses_share(trunk: Any, batch: Batch) -> None:
    model = model_of(trunk(), eager=True)
    names = reached(model, batch)
    found = {v.name for v in model.shared_variables}
    every = {v.name for v in model.network.trainable_variables}
    expected = {name for name in every if sum(name in of_task for of_task in names.values()) > 1}
    parts = {"task_experts", "gates", "tower_0/expert", "tower_gate"}  # stacked, one slice per task
    assert found == {name for name in expected if not any(part in name for part in parts)}


@pytest.mark.parametrize("wrap", [lambda network: network, keras.models.clone_model, lambda n: prune(n, end_step=10)])
def test_tables_of_a_task_are_its_own(wrap: Any, batch: Batch) -> None:
    network = wrap(small.network(heads(), trunk=stem()))
    tables = {v.name.split("/")[-2]: v for v in network.trainable_variables if "embedding" in v.name}
    tables = {name.removeprefix("prune_low_magnitude_"): table for name, table in tables.items()}
    assert set(tables) == {f"{owner}{name}_embedding" for owner in ("", "liked_", "mood_") for name in ("user", "item")}
    shared = {id(v) for v in shared_variables(network)}
    assert {name for name, table in tables.items() if id(table) in shared} == {"user_embedding", "item_embedding"}


def test_tables_of_a_task_learn_from_that_task_alone(batch: Batch) -> None:
    names = reached(model_of(stem(), eager=True), batch)
    for task in ON_PAIRS:
        readers = [other for other, found in names.items() if f"{task}_item_embedding/embeddings:0" in found]
        assert readers == [task]


@pytest.mark.parametrize("trunk", [stem, pepnet])
def test_every_task_and_every_variable_learns(trunk: Any) -> None:
    model = model_of(trunk(), balancer=UPGrad(at="shared"))
    before = {v.name: v.numpy() for v in model.network.trainable_variables}
    log = model.fit(small.table(), batch_size=25, epochs=25, verbose=0).history
    for task in ("seen", *ON_PAIRS):
        assert log[f"{task}_loss"][-1] < 0.95 * log[f"{task}_loss"][0], task
    assert [v.name for v in model.network.trainable_variables if np.array_equal(v, before[v.name])] == []
    assert model.predict(small.table(), verbose=0)["liked"].shape == (small.ROWS,)


@pytest.mark.parametrize("names", [["user"], ["user", "item", "recent"]])
def test_priors_may_be_the_same_features(names: list[str], batch: Batch) -> None:
    network = small.network(heads(), trunk=pepnet(domain=names, personal=names))
    assert network(batch.features)["liked"].shape == (small.ROWS, 1)


def test_priors_must_be_features() -> None:
    with pytest.raises(ValueError, match=re.escape("Unknown feature ['usr'] in the schema")):
        small.network(heads(), trunk=pepnet(domain=["usr"]))
