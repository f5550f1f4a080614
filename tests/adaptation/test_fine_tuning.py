"""Frozen and unfrozen parts: which weights move, also in a step that was traced before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl import balancing
from tfmtl._keras import keras
from tfmtl.adaptation import GradualUnfreezing, freeze, layers_of, unfreeze
from tfmtl.adaptation.parts import PARTS
from tfmtl.layers import MMoE
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import BinaryClassification, Retrieval
from tfmtl.training import LazyAdam

FIT: dict[str, Any] = {"batch_size": 25, "verbose": 0}


def moved(model: MultiTaskModel, before: dict[str, list[np.ndarray]]) -> set[str]:
    """Return the layers with trainable weights that differ from those before."""
    return {
        layer.name
        for layer in layers_of(model.network)
        if any(not np.array_equal(a, b) for a, b in zip(layer.get_weights(), before[layer.name], strict=True))
    }


def weights(model: MultiTaskModel) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in layers_of(model.network)}


def names(model: MultiTaskModel, *parts: str) -> set[str]:
    return {layer.name for layer in layers_of(model.network, parts)}


def test_every_layer_with_weights_is_in_one_part() -> None:
    network = small.network()
    found = [layer.name for part in PARTS for layer in layers_of(network, part)]
    assert sorted(found) == sorted({layer.name for layer in layers_of(network)})
    assert names(small.model(), "towers") == {f"{s}_tower_{i}" for s in ("query", "candidate") for i in (0, 1)}
    assert names(small.model(), "embeddings") == {"user_embedding", "item_embedding"}


def test_a_task_names_its_own_head_and_not_those_it_comes_after() -> None:
    heads = [
        BinaryClassification("liked"),
        BinaryClassification("rating", after="liked", order_penalty=0.5),
        Retrieval("seen"),
    ]
    network = small.network(heads, trunk=MMoE(small.ON_PAIRS, 2, units=[4]))
    assert [layer.name for layer in layers_of(network, "liked")] == ["liked_output"]
    assert {layer.name.split("_")[0] for layer in layers_of(network, "rating")} == {"rating"}
    with pytest.raises(ValueError, match="'seen' has no weights of its own"):
        layers_of(network, "seen")
    with pytest.raises(ValueError, match=r"Unknown part.*Did you mean 'towers'"):
        layers_of(network, "tower")


def test_a_change_after_a_traced_step_takes_effect_and_the_rest_goes_on() -> None:
    model = small.model()
    model.fit(small.table(), **FIT)
    freeze(model, ["embeddings", "towers"])
    before = weights(model)
    model.fit(small.table(), **FIT)
    assert moved(model, before) == names(model, "trunk", "heads")
    before = weights(model)
    assert unfreeze(model, "query_tower_*") == ["query_tower_0", "query_tower_1"]
    model.fit(small.table(), **FIT)
    assert moved(model, before) == names(model, "trunk", "heads", "query_tower_*")


def test_an_optimizer_built_while_parts_were_frozen_learns_of_them() -> None:
    model = small.model(LazyAdam(0.125))
    freeze(model, "towers")
    model.fit(small.table(), **FIT)
    unfreeze(model)
    before = weights(model)
    model.fit(small.table(), **FIT)
    assert moved(model, before) == names(model, "all")
    assert float(model.optimizer.learning_rate) == 0.125


@pytest.mark.parametrize("name", ["DBMTL", "GradNorm", "MetaBalance", "UPGrad", "Uncertainty"])
@pytest.mark.parametrize("parts", [["embeddings"], ["embeddings", "towers", "trunk"]])
def test_balancers_go_on_with_what_is_still_trained(name: str, parts: list[str]) -> None:
    balancer = getattr(balancing, name)(*(["rating"] if name == "MetaBalance" else []))
    model = small.model(balancer=balancer, heads=small.tasks()[1:3], eager=True)
    freeze(model, parts)
    before = weights(model)
    model.fit(small.table(), batch_size=50, verbose=0)
    assert moved(model, before) == names(model, "all") - names(model, *parts)
    assert all(np.isfinite(w).all() for ws in weights(model).values() for w in ws)


def test_what_a_model_was_made_frozen_with_is_shared_once_it_is_trained() -> None:
    model = small.model(heads=small.tasks()[1:3], balancer=balancing.MetaBalance("rating"))
    freeze(model, "towers")
    frozen = model.with_network(keras.models.clone_model(model.network))
    frozen.compile(LazyAdam(0.1), run_eagerly=True)
    assert len(frozen.shared_variables) < len(model.shared_variables)
    unfreeze(frozen)
    assert len(frozen.shared_variables) == len(model.shared_variables)
    frozen.fit(small.table(), **FIT)


def test_gradual_unfreezing_trains_from_the_heads_down() -> None:
    seen: list[set[str]] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.before = weights(self.model)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(moved(self.model, self.before))

    model = small.model()
    schedule = {0: "heads", 1: ["trunk"], 2: ["towers"]}
    model.fit(small.table(), epochs=3, callbacks=[GradualUnfreezing(schedule), Watch()], **FIT)
    heads, trunk, towers = (names(model, part) for part in ("heads", "trunk", "towers"))
    assert seen == [heads, heads | trunk, heads | trunk | towers]
    assert all(layer.trainable for layer in layers_of(model.network))


def test_a_training_that_goes_on_knows_the_epochs_before() -> None:
    model = small.model()
    before = weights(model)
    callback = GradualUnfreezing({0: "heads", 1: "trunk", 5: "all"})
    model.fit(small.table(), epochs=3, initial_epoch=2, callbacks=[callback], **FIT)
    assert moved(model, before) == names(model, "heads", "trunk")


@pytest.mark.parametrize("schedule", [{}, {-1: "heads"}, {"0": "heads"}])
def test_schedules_are_checked(schedule: Any) -> None:
    with pytest.raises(ValueError, match="by epochs from 0 on"):
        GradualUnfreezing(schedule)
