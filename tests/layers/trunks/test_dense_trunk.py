"""Properties of every trunk of levels of dense layers."""

from __future__ import annotations

import itertools
import pathlib
import re
from typing import Any

import keras_tuner
import numpy as np
import pytest

from tests.layers.probes import ROWS, TRUNKS, Make, forward, matrices, name_in, number_of_tasks, randomize
from tfmtl._keras import keras, tf
from tfmtl.compression import prune, strip

SMALL: dict[str, Any] = {"units": [4, 3], "activation": "tanh"}


@pytest.fixture(params=TRUNKS)
def case(request: pytest.FixtureRequest) -> tuple[Make, Any]:
    return TRUNKS[request.param]


def network_of(layer: Any, inputs: Any) -> keras.Model:
    symbolic = tf.nest.map_structure(lambda x: keras.Input(x.shape[1:]), inputs)
    return keras.Model(symbolic, layer(symbolic))


def test_shared_variables_are_those_that_more_than_one_loss_reaches(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = make(**SMALL)
    randomize(layer, inputs)
    tasks = number_of_tasks(layer, inputs)
    assert min(tasks.values()) == 1
    assert {name_in(layer, v) for v in layer.shared_variables} == {name for name, number in tasks.items() if number > 1}


def test_what_is_marked_is_all_that_tasks_read_of_shared_variables(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = make(**SMALL)
    randomize(layer, inputs)
    tape, losses, marks = forward(layer, inputs)
    for loss in losses.values():
        at_marks = tape.gradient(loss, marks.trunk)
        through = tape.gradient(marks.trunk, layer.shared_variables, at_marks)
        direct = tape.gradient(loss, layer.shared_variables)
        for found, expected in zip(through, direct, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CrossStitch", "LearningToBranch", "STEM"])
def test_a_gated_representation_gives_the_inner_products_of_the_gradients_at_the_shared_tensor(name: str) -> None:
    make, inputs = TRUNKS[name]
    layer = make(**SMALL)
    randomize(layer, inputs)
    tape, losses, marks = forward(layer, inputs)
    (gated,), (mixed,) = marks.gated, marks.trunk
    at_mixed = np.stack([tape.gradient(loss, mixed) for loss in losses.values()])
    at_outputs = np.stack([tape.gradient(losses[task], output) for task, output in gated.outputs.items()])
    gates = gated.gates.numpy()
    assert gates.shape == (ROWS, 3, mixed.shape[1])
    np.testing.assert_allclose(at_mixed, np.einsum("bke,kbu->kbeu", gates, at_outputs), rtol=1e-4, atol=1e-6)
    found = np.einsum("bie,bje,ibu,jbu->ij", gates, gates, at_outputs, at_outputs)
    np.testing.assert_allclose(found, np.einsum("ibeu,jbeu->ij", at_mixed, at_mixed), rtol=1e-4)


@pytest.mark.parametrize("name", ["MTAN", "PEPNet"])
def test_a_trunk_without_gated_sums_marks_none(name: str) -> None:
    make, inputs = TRUNKS[name]
    assert forward(make(), inputs)[2].gated == []


@pytest.mark.parametrize(
    "initializer", ["glorot_uniform", keras.initializers.HeNormal(seed=7)], ids=["named", "seeded"]
)
@pytest.mark.parametrize("clone", [False, True], ids=["original", "clone"])
def test_no_two_matrices_are_alike_at_the_start(case: tuple[Make, Any], initializer: Any, clone: bool) -> None:
    make, inputs = case
    layer = make(units=[5, 5, 5], kernel_initializer=initializer)
    layer = type(layer).from_config(layer.get_config()) if clone else layer
    layer(inputs)
    kernels = [matrix for v in layer.trainable_weights if "kernel" in v.name for matrix in matrices(v.numpy(), 5)]
    assert len(kernels) > 8
    for left, right in itertools.combinations(kernels, 2):
        assert left.shape != right.shape or np.abs(left - right).max() > 0.05


def test_the_seed_decides_initial_values_and_draws(case: tuple[Make, Any]) -> None:
    make, inputs = case

    def steps(seed: int) -> list[np.ndarray]:
        layer = make(units=[8, 4], activation="tanh", dropout=0.5, seed=seed)
        return [value.numpy() for _ in range(2) for value in layer(inputs, training=True).values()]

    first = steps(1)
    tf.random.set_seed(999)  # the global state does not matter
    for same, again, other in zip(first, steps(1), steps(2), strict=True):
        np.testing.assert_array_equal(same, again)
        assert np.abs(same - other).max() > 0.01


def test_dropout_acts_in_training_only(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = make(units=[64], activation="linear", dropout=0.5)
    randomize(layer, inputs)
    plain, first, second = (layer(inputs, training=training)["a"].numpy() for training in (False, True, True))
    np.testing.assert_array_equal(layer(inputs)["a"], plain)
    for left, right in itertools.combinations([plain, first, second], 2):
        assert np.abs(left - right).max() > 0.1


def test_every_level_and_seed_has_dropout_draws_of_its_own() -> None:
    kept = []
    for seed in (1, 2):
        layer = TRUNKS["CrossStitch"][0](units=[50, 50], dropout=0.5, seed=seed)
        kept += [layer.make_experts(name, 1, [50])._dropout(tf.ones([50]), training=True) > 0 for name in ("x", "y")]
    for left, right in itertools.combinations(kept, 2):
        assert np.any(left != right)


def test_regularizer_is_that_of_the_prunable_weights(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = make(kernel_regularizer=keras.regularizers.L2(0.5), **SMALL)
    randomize(layer, inputs)
    kernels = layer.get_prunable_weights()
    assert kernels
    assert all("kernel" in v.name for v in kernels)
    assert float(tf.add_n(layer.losses)) == pytest.approx(0.5 * sum(np.sum(v.numpy() ** 2) for v in kernels), rel=1e-4)


def test_one_tensor_may_serve_as_all_inputs(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = make(**SMALL)
    tensor = np.random.default_rng(5).normal(size=(ROWS, 5)).astype(np.float32)
    found = layer(tensor)
    for task, output in layer(tf.nest.map_structure(lambda _: tensor, inputs)).items():
        np.testing.assert_array_equal(found[task], output)


def test_a_single_task_shares_nothing_with_itself_but_works(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = type(make()).from_config({**make(**SMALL).get_config(), "task_names": ["a"]})
    inputs = {k: v for k, v in inputs.items() if k not in ("b", "c")} if isinstance(inputs, dict) else inputs
    assert list(layer(inputs, training=True)) == ["a"]


def test_it_compiles_with_xla(case: tuple[Make, Any]) -> None:
    make, inputs = case
    layer = make(**SMALL, dropout=0.2)
    randomize(layer, inputs)
    compiled = tf.function(layer, jit_compile=True)
    for task, output in compiled(inputs).items():
        np.testing.assert_allclose(output, layer(inputs)[task], rtol=1e-4, atol=1e-5)
        assert np.abs(compiled(inputs, training=True)[task] - output).max() > 0.01


def test_half_precision(case: tuple[Make, Any]) -> None:
    make, inputs = case
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = make(**SMALL)
        tape, losses, _ = forward(layer, inputs)
        assert {loss.dtype for loss in losses.values()} == {tf.float16}
        gradients = tape.gradient(losses["a"], layer.shared_variables)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {v.dtype for v in layer.trainable_weights} == {tf.float32}
    assert all(np.isfinite(g).all() for g in gradients)


def test_weights_survive_hdf5(case: tuple[Make, Any], tmp_path: pathlib.Path) -> None:
    make, inputs = case
    network, other = (network_of(make(**SMALL, seed=seed), inputs) for seed in (1, 2))
    network.save_weights(tmp_path / "weights.h5")
    other.load_weights(tmp_path / "weights.h5")
    tf.nest.map_structure(np.testing.assert_array_equal, other(inputs), network(inputs))


def test_it_can_be_pruned(case: tuple[Make, Any]) -> None:
    make, inputs = case
    network = network_of(make(**SMALL), inputs)
    stripped = strip(prune(network, 0.5, end_step=10))
    tf.nest.map_structure(np.testing.assert_array_equal, stripped(inputs), network(inputs))


def test_the_search_space_is_one_of_arguments(case: tuple[Make, Any]) -> None:
    make, inputs = case
    hp = keras_tuner.HyperParameters()
    found = make(**type(make()).search_space(hp))
    assert len(hp.space) > 3
    assert found(inputs)["a"].shape == (ROWS, found.units[-1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"units": []}, "`units` must name at least one width. Received: units=[]."),
        ({"units": [4, 0]}, "`units` must be a positive integer. Received: units=0."),
        ({"dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
    ],
)
def test_bad_argument_is_named(case: tuple[Make, Any], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        case[0](**arguments)
