"""Values of CGC and PLE against plain numpy."""

from __future__ import annotations

import itertools

import tfmtl

# isort: split
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.layers.expert_trunks import INPUTS, TASKS, Values, expert, gate, randomize
from tfmtl.layers import CGC, PLE, MultiTaskLayer
from tfmtl.layers.marks import marking
from tfmtl.layers.trunks.ple import overlap

Rows = list[np.ndarray]


def level(values: Values, number: int, tasks: Rows, shared: np.ndarray, own: int, common: int) -> tuple[Rows, Rows]:
    """Return each task's mixture and the outputs of all experts, own ones by task before shared ones."""
    count = len(TASKS) * own + common
    of_tasks = [
        [expert(values, f"own_experts_{number}", own * k + i, tasks[k]) for i in range(own)] for k in range(len(TASKS))
    ]
    of_all = [expert(values, f"shared_experts_{number}", i, shared) for i in range(common)]
    mixed = []
    for k, x in enumerate(tasks):
        readable = [*range(own * k, own * k + own), *range(len(TASKS) * own, count)]
        weights = gate(values, f"task_gates_{number}", k, x, readable, count)
        mixed.append(sum(weights[:, e : e + 1] * f for e, f in enumerate([*of_tasks[k], *of_all])))
    return mixed, [*itertools.chain(*of_tasks), *of_all]


@pytest.mark.parametrize("make", [CGC, lambda *args, **given: PLE(*args, **given, num_levels=1)], ids=["CGC", "PLE-1"])
def test_one_level_is_its_definition(make: type[MultiTaskLayer]) -> None:
    layer = make(TASKS, num_task_experts=2, num_shared_experts=3, units=[4, 3], activation="tanh")
    values = randomize(layer)
    expected, _ = level(values, 0, [INPUTS] * 3, INPUTS, own=2, common=3)
    for found, mixed in zip(layer(INPUTS).values(), expected, strict=True):
        np.testing.assert_allclose(found, mixed, rtol=1e-4, atol=1e-5)


def test_three_levels_are_their_definition() -> None:
    layer = PLE(TASKS, num_task_experts=2, num_shared_experts=1, num_levels=3, units=[4], activation="tanh")
    values = randomize(layer)
    tasks, shared = [INPUTS] * 3, INPUTS
    for number in range(3):
        mixed, experts = level(values, number, tasks, shared, own=2, common=1)
        if number < 2:
            weights = gate(values, f"shared_gate_{number}", 0, shared, slice(None), 7)
            np.testing.assert_allclose(layer.gate_weights(INPUTS)[f"level_{number}"][:, 3], weights, rtol=1e-4)
            shared = sum(weights[:, e : e + 1] * f for e, f in enumerate(experts))
        tasks = mixed
    for found, expected in zip(layer(INPUTS).values(), tasks, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_task_does_not_read_the_experts_of_another() -> None:
    weights = CGC(TASKS, 2, 1).gate_weights(INPUTS)["level_0"].numpy()
    for k in range(3):
        own = slice(2 * k, 2 * k + 2)
        assert (weights[:, k, own] > 0).all()
        assert (weights[:, k, 6] > 0).all()
        np.testing.assert_allclose(weights[:, k, own].sum(1) + weights[:, k, 6], 1.0, rtol=1e-6)


def test_the_gates_temperature_evens_them_out() -> None:
    layers = [CGC(TASKS, 1, 1, seed=1, gate_temperature=temperature) for temperature in (1e6, 1.0)]
    flat, plain = (layer.gate_weights(INPUTS)["level_0"].numpy()[:, 0, [0, 3]] for layer in layers)
    np.testing.assert_allclose(flat, 0.5, atol=1e-4)
    assert np.abs(plain - 0.5).max() > 0.01


@pytest.mark.parametrize(("levels", "width"), [(1, 2), (2, 8), (3, 8)])
def test_the_mark_is_on_the_shared_experts_or_below_the_last_level(levels: int, width: int) -> None:
    layer = PLE(TASKS, num_task_experts=2, num_shared_experts=2, num_levels=levels, units=[4])
    with marking() as marks:
        layer(INPUTS)
    assert [tensor.shape for tensor in marks.trunk] == [(6, width, 4)]
    assert len(marks.gated) == (levels == 1)


def test_dropout_of_experts_is_not_that_of_other_experts() -> None:
    layer = PLE(TASKS, num_task_experts=1, num_shared_experts=3, units=[50], activation="linear", dropout=0.5)
    randomize(layer)
    own, common = (part(INPUTS, training=True).numpy() for part in (layer._own[0], layer._shared[0]))
    assert np.mean((own == 0) == (common == 0)) < 0.6


def _overlap(own: Rows, shared: Rows) -> float:
    """Return the mean of |S'P|^2 / (|S|^2 |P|^2) over all pairs, by loops."""
    pairs = [
        np.square(s.T @ p).sum() / (np.square(s).sum() * np.square(p).sum()) for p, s in itertools.product(own, shared)
    ]
    return float(np.mean(pairs))


def test_orthogonality_is_the_mean_overlap_of_own_and_shared_experts_in_training() -> None:
    layer = CGC(TASKS, num_task_experts=2, num_shared_experts=3, units=[4, 3], activation="tanh", orthogonality=0.7)
    values = randomize(layer)
    _, experts = level(values, 0, [INPUTS] * 3, INPUTS, own=2, common=3)
    layer(INPUTS)
    assert layer.losses == []
    layer(INPUTS, training=True)
    (found,) = layer.losses
    assert float(found) == pytest.approx(0.7 * _overlap(experts[:6], experts[6:]), rel=1e-4)
    assert 0.05 < float(found) < 0.7


def test_every_level_has_its_loss_and_weight_0_has_none() -> None:
    losses = []
    for weight in (0.0, 0.5):
        layer = PLE(TASKS, num_levels=3, units=[4], activation="tanh", orthogonality=weight, seed=1)
        layer(INPUTS, training=True)
        losses.append([float(loss) for loss in layer.losses])
    assert losses[0] == []
    assert len(losses[1]) == 3
    assert len(set(losses[1])) == 3


def test_an_expert_without_an_output_has_no_overlap() -> None:
    nothing, something = tf.zeros([2, 1, 3]), tf.ones([2, 1, 3])
    assert float(overlap(nothing, something)) == 0.0
    assert float(overlap(something, something)) == pytest.approx(1.0)


def test_training_lowers_the_overlap_and_balancers_see_the_tasks_alone() -> None:
    table = pd.DataFrame({"user": list("abcdefgh") * 8, "a": np.arange(64) % 7, "b": np.arange(64) % 3})
    data = tfmtl.Preprocessor.fit(
        tfmtl.Schema([tfmtl.Categorical("user")], labels=[tfmtl.Label("a"), tfmtl.Label("b")]), table
    )
    ended, logs = [], []
    for weight in (0.0, 1.0):
        tasks = [tfmtl.Regression("a"), tfmtl.Regression("b")]
        trunk = CGC(units=[4], activation="tanh", orthogonality=weight, seed=1)
        network = tfmtl.build_network(data, tasks, trunk, embedding_dim=4, tower_units=[4], seed=0)
        model = tfmtl.MultiTaskModel(network, tasks, data)
        model.compile(keras.optimizers.Adam(0.02))
        logs.append(model.fit(table, epochs=30, batch_size=32, verbose=0).history)
        (layer,) = [layer for layer in network.layers if isinstance(layer, CGC)]
        reader = keras.Model(network.input, layer.input)
        inputs = reader(tfmtl.data.to_batch(table, data).features)
        ended.append(float(overlap(layer._own[0](inputs), layer._shared[0](inputs))))
    assert ended[1] < 0.5 * ended[0]
    assert max(logs[0]["regularization_loss"]) == 0
    assert 0 < logs[1]["regularization_loss"][-1] < logs[1]["regularization_loss"][0]
    sums = np.add(logs[1]["a_loss"], logs[1]["b_loss"])
    np.testing.assert_allclose(logs[1]["unweighted_loss"], sums, rtol=1e-4)


@pytest.mark.parametrize("weight", [-0.1, float("inf"), "1"])
def test_orthogonality_is_a_number_of_0_or_more(weight: object) -> None:
    with pytest.raises(ValueError, match="`orthogonality` must be a number of 0 or more"):
        CGC(TASKS, orthogonality=weight)
