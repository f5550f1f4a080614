"""Values of AdaTT against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, TASKS, expert, gate, randomize, values_of
from tfmtl.layers import AdaTT


@pytest.mark.parametrize("own", [1, 2])
@pytest.mark.parametrize("levels", [1, 3])
def test_it_is_its_definition(own: int, levels: int) -> None:
    layer = AdaTT(TASKS, num_task_experts=own, num_levels=levels, units=[4, 3], activation="tanh")
    values = randomize(layer)
    count = 3 * own
    tasks = [INPUTS] * 3
    for level in range(levels):
        experts = [expert(values, f"experts_{level}", e, tasks[e // own]) for e in range(count)]
        weights = [gate(values, f"gates_{level}", k, tasks[k], slice(None), count) for k in range(3)]
        for k in range(3):
            np.testing.assert_allclose(layer.gate_weights(INPUTS)[f"level_{level}"][:, k], weights[k], rtol=1e-3)
        tasks = [
            sum(weights[k][:, e : e + 1] * experts[e] for e in range(count))
            + sum(values[f"own_weights_{level}"][k, i] * experts[own * k + i] for i in range(own))
            for k in range(3)
        ]
    for found, expected in zip(layer(INPUTS).values(), tasks, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_own_experts_start_with_their_mean() -> None:
    layer = AdaTT(TASKS, num_task_experts=4, num_levels=2)
    layer(INPUTS)
    own = [value for name, value in values_of(layer).items() if "own_weights" in name]
    assert [value.tolist() for value in own] == [[[0.25] * 4] * 3] * 2
