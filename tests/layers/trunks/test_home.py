"""Values of HoME against plain numpy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, TASKS, Values, expert_layer, gate, randomize, values_of
from tfmtl.layers import HoME

GROUPS = {"alone": ["b"], "pair": ["c", "a"]}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def read(values: Values, name: str, index: int, x: np.ndarray) -> np.ndarray:
    """Return the output of one expert: low-rank gate, then normalised layers with swish."""
    gates, experts = f"{name}_feature_gates", f"{name}_experts"
    low = expert_layer(values, gates, index, 0, x)
    x = x * 2 * sigmoid(expert_layer(values, gates, index, 1, low))
    for level in (0, 1):
        x = expert_layer(values, experts, index, level, x)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
        x = x * sigmoid(x)
    return x


def mixed(weights: np.ndarray, experts: list[np.ndarray]) -> np.ndarray:
    return np.einsum("be,ebu->bu", weights, np.stack(experts))


def test_it_is_its_definition() -> None:
    """Two experts per set; sets of the first level: pair, all, alone; of the second: pair, all, a, b, c, alone."""
    layer = HoME(TASKS, groups=GROUPS, num_experts=2, rank=2, units=[5, 4])
    values = randomize(layer)
    meta = [read(values, "meta", e, INPUTS) for e in range(6)]
    pair = mixed(gate(values, "meta_gates", 0, INPUTS, [0, 1, 2, 3], 6), meta[:4])
    shared = mixed(gate(values, "meta_gates", 1, INPUTS, slice(None), 6), meta)
    alone = mixed(gate(values, "lone_gates", 0, INPUTS, [2, 3, 4, 5], 6), meta[2:])
    common = [read(values, "common", e, x) for e, x in enumerate([pair, pair, shared, shared])]
    inputs = {"a": pair, "b": alone, "c": pair}
    private = [read(values, "private", e, [pair, alone, pair, alone][e // 2]) for e in range(8)]
    experts = [*common, *private]
    readable = {"a": [0, 1, 2, 3, 4, 5], "b": [2, 3, 6, 7, 10, 11], "c": [0, 1, 2, 3, 8, 9]}
    found, gates = layer(INPUTS), layer.gate_weights(INPUTS)
    for k, task in enumerate(TASKS):
        weights = gate(values, "task_gates", k, inputs[task], readable[task], 12)
        expected = mixed(weights, [experts[e] for e in readable[task]])
        np.testing.assert_allclose(found[task], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(gates["task"].numpy()[:, k, readable[task]], weights, rtol=1e-3, atol=1e-6)
    for place, (name, row, columns) in enumerate(
        [("meta", 0, [0, 1, 2, 3]), ("lone", 0, [2, 3, 4, 5]), ("meta", 0, [0, 1, 2, 3]), ("meta", 1, [*range(6)])]
    ):
        weights = gate(values, f"{name}_gates", row, INPUTS, columns, 6)
        np.testing.assert_allclose(gates["meta"].numpy()[:, place, columns], weights, rtol=1e-3)


def test_the_order_of_the_groups_does_not_matter() -> None:
    """A saved configuration may be read with its keys in another order."""
    one, other = (HoME(TASKS, groups=dict(order), units=[4]) for order in (GROUPS.items(), reversed(GROUPS.items())))
    first, second = one(INPUTS), other(INPUTS)
    for task in TASKS:
        np.testing.assert_array_equal(first[task], second[task])


def test_a_feature_gate_starts_near_one() -> None:
    """An expert then reads its input nearly unchanged before training."""
    layer = HoME(TASKS, groups=GROUPS, units=[4])
    layer(INPUTS)
    assert all((value == 0).all() for name, value in values_of(layer).items() if "bias" in name)
    gates = 2 * sigmoid(layer._feature_gates["meta"](INPUTS).numpy())
    assert abs(gates.mean() - 1) < 0.2


@pytest.mark.parametrize(
    "groups",
    [{}, {"x": ["a", "b"]}, {"x": TASKS, "y": ["a"]}, {"x": TASKS, "y": []}, {"": TASKS}, {"x": "abc"},
     {"x": [*TASKS, "d"]}],
)  # fmt: skip
def test_groups_hold_each_task_once(groups: Any) -> None:
    sentence = f"`groups` must hold each of the tasks ['a', 'b', 'c'] once, in lists by name. Received: groups={groups}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        HoME(TASKS, groups=groups)
