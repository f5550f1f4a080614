"""Values of CGC and PLE against plain numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, TASKS, Values, expert, gate, randomize
from tfmtl.layers import CGC, PLE, MultiTaskLayer
from tfmtl.layers.marks import marking

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
