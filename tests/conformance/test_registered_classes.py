"""Properties of every registered class, found through the Keras registry: a new class needs no new test."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pathlib
import pkgutil
from typing import Any

import numpy as np
import pytest

import tfmtl
from tests.conformance.kinds import network_of, outputs_of
from tests.conformance.recipes import MODELS, OTHERS, PARTS, RECIPES
from tfmtl._keras import keras, tf
from tfmtl.tuning._keras_tuner import keras_tuner

SET_ELSEWHERE = {"embedding_distance", "full_softmax", "extra_losses", "interest_sharpness", "shared_interest"}
"""Arguments that the test leaves out: a function has no configuration, a full softmax and a shared or soft choice of
interests exclude other arguments, and tasks with several outputs have no `GroupLoss`; others set it."""


def registered() -> dict[str, type]:
    """Import every module and return the classes that they register, by name; metrics have tests of their own."""
    for module in pkgutil.walk_packages(tfmtl.__path__, "tfmtl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known = keras.saving.get_custom_objects()
    ours = {name: kind for name, kind in known.items() if kind.__module__.startswith("tfmtl.")}  # no class of a test
    own = {name.removeprefix("tfmtl>"): kind for name, kind in ours.items()}
    return {name: kind for name, kind in own.items() if not issubclass(kind, keras.metrics.Metric)}


def check_equal(found: Any, expected: Any, rtol: float = 0.0) -> None:
    tf.nest.assert_same_structure(found, expected)
    for left, right in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol)


def through_json(instance: Any) -> Any:
    config = keras.saving.serialize_keras_object(instance)
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))


@functools.cache
def first(make: Any) -> tuple[Any, list[np.ndarray]]:
    """Return outputs and weights of an instance, from which no other may differ."""
    keras.utils.set_random_seed(20)
    return outputs_of(make())


@functools.cache
def shared_network(make: Any) -> tuple[keras.Model, Any]:
    """Return a network and its inputs, for tests that neither train nor change it."""
    return network_of(make())


@pytest.fixture(params=sorted(RECIPES))
def make(request: pytest.FixtureRequest) -> Any:
    return RECIPES[request.param]


@pytest.fixture(params=sorted(PARTS))
def make_part(request: pytest.FixtureRequest) -> Any:
    return PARTS[request.param]


@pytest.fixture(params=sorted({**PARTS, **OTHERS}))
def make_configured(request: pytest.FixtureRequest) -> Any:
    return RECIPES[request.param]


@pytest.fixture(params=sorted(MODELS))
def make_model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]


def test_every_registered_class_has_a_recipe() -> None:
    kinds = registered()
    missing, stale = sorted(set(kinds) - set(RECIPES)), sorted(set(RECIPES) - set(kinds))
    assert not missing, f"{missing} are registered without a recipe: add their lines to tests/conformance/recipes.py."
    assert not stale, f"{stale} are not registered: remove their recipes from tests/conformance/recipes.py."
    for name, recipe in RECIPES.items():
        assert type(recipe()) is kinds[name]


def test_every_argument_is_an_attribute_other_than_its_default(make: Any) -> None:
    instance = make()
    for kind in type(instance).__mro__:
        if not kind.__module__.startswith("tfmtl.") or "__init__" not in vars(kind):
            continue
        for name, parameter in inspect.signature(kind.__init__).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name == "self":
                continue
            assert hasattr(instance, name), f"the argument {name!r} is no attribute"
            if parameter.default is not parameter.empty and name not in SET_ELSEWHERE:
                assert getattr(instance, name) != parameter.default, f"the recipe leaves {name!r} at its default"


def test_config_survives_json(make_configured: Any) -> None:
    instance = make_configured()
    again = through_json(instance)
    assert type(again) is type(instance)
    configs = [keras.saving.serialize_keras_object(part) for part in (again, instance)]
    assert json.dumps(configs[0]) == json.dumps(configs[1])


def test_a_rebuilt_instance_with_the_same_weights_gives_the_same(make_configured: Any) -> None:
    expected, weights = first(make_configured)
    check_equal(outputs_of(through_json(make_configured()), weights)[0], expected)


def test_a_model_around_a_clone_of_its_network_gives_the_same_with_the_same_weights(make_model: Any) -> None:
    model = make_model()
    again = model.with_network(keras.models.clone_model(model.network))
    assert type(again) is type(model)
    expected, weights = outputs_of(model)
    check_equal(outputs_of(again, weights)[0], expected)


def test_the_arguments_decide_the_initial_values(make: Any) -> None:
    expected, _ = first(make)
    keras.utils.set_random_seed(987)
    found, _ = outputs_of(make())
    check_equal(found, expected)


def test_a_clone_of_its_network_is_equal_and_independent(make_part: Any) -> None:
    network, inputs = shared_network(make_part)
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    check_equal(clone(inputs), network(inputs))
    assert not {id(v) for v in clone.variables} & {id(v) for v in network.variables}
    assert [type(layer) for layer in clone.layers] == [type(layer) for layer in network.layers]


def test_it_is_traced_once_for_every_batch_size(make_part: Any) -> None:
    network, inputs = shared_network(make_part)
    traces = []

    @tf.function(input_signature=[{n: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for n, v in inputs.items()}])
    def traced(values: dict[str, tf.Tensor]) -> Any:
        traces.append(1)
        return network(values)

    for rows in (6, 1, 4):
        few = {name: value[:rows] for name, value in inputs.items()}
        check_equal(traced(few), network(few), rtol=1e-6)
    assert len(traces) == 1


def test_a_saved_network_gives_the_same(make_part: Any, tmp_path: pathlib.Path) -> None:
    network, inputs = shared_network(make_part)
    expected = network(inputs)
    network.save(tmp_path / "model", save_format="tf")
    loaded = keras.models.load_model(tmp_path / "model")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in network.layers]
    check_equal(loaded(inputs), expected, rtol=1e-6)
    served = tf.saved_model.load(str(tmp_path / "model"))(inputs, training=False)
    check_equal(tf.nest.flatten(served), tf.nest.flatten(expected), rtol=1e-6)


def test_prunable_weights_are_trainable_matrices(make_part: Any) -> None:
    network, _ = shared_network(make_part)
    for layer in network.layers:
        for weight in getattr(layer, "get_prunable_weights", list)():
            assert any(weight is variable for variable in layer.trainable_weights)
            assert weight.shape.rank >= 2


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if hasattr(registered()[name], "search_space")))
def test_defaults_of_a_search_space_are_arguments(name: str) -> None:
    instance = RECIPES[name]()
    drawn = type(instance).search_space(keras_tuner.HyperParameters())
    found = type(instance).from_config({**instance.get_config(), **drawn}).get_config()
    assert {name: found[name] for name in drawn} == {
        n: list(v) if isinstance(v, tuple) else v for n, v in drawn.items()
    }


def test_every_layer_with_a_width_or_a_rate_can_be_searched() -> None:
    """Layers inside other layers, and those with arguments that the data decides, have no search space."""
    parts = {
        "Adversarial",
        "BoostedTrees",
        "AtInference",
        "Calibration",
        "CategoryRates",
        "DomainAdversary",
        "Dropout",
        "EncodingMark",
        "Experts",
        "FeatureDropout",
        "FreeAdversarial",
        "GateNU",
        "HistoryMatch",
        "JoinedEmbedding",
        "MaskedMean",
        "Mixup",
        "MixupPartners",
        "NumberBins",
        "PiecewiseLinear",
        "Presence",
        "RandomMissing",
        "RandomUnknown",
        "TreeColumns",
        "VirtualAdversarial",
    }
    gates = {"SoftmaxGate", "DSelectKGate", "TaskDense"}
    kinds = {name: kind for name, kind in registered().items() if kind.__module__.startswith("tfmtl.layers.")}
    layers = {name for name, kind in kinds.items() if issubclass(kind, keras.layers.Layer)}
    assert sorted(n for n in layers - parts - gates if not hasattr(kinds[n], "search_space")) == []
