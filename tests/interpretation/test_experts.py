from __future__ import annotations

import re

import numpy as np
import pytest

from tests.models import small
from tfmtl.data import to_batch
from tfmtl.interpretation import expert_usage
from tfmtl.layers import PLE, MMoE, SharedBottom

ON_PAIRS = ["rating", "liked"]


def test_load_and_entropy_are_those_of_the_gates() -> None:
    model = small.model(trunk=MMoE(ON_PAIRS, num_experts=3, units=[4]))
    gate = next(v for v in model.network.trainable_variables if "gate" in v.name)
    gate.assign(np.zeros(gate.shape))  # every expert alike
    usage = expert_usage(model, small.table(), batch_size=7)["experts"]
    np.testing.assert_allclose(usage.load, np.full([2, 3], 1 / 3), rtol=1e-5)
    np.testing.assert_allclose(usage.entropy, np.log(3), rtol=1e-5)
    assert usage.dead == []


def test_an_expert_that_nobody_reads_is_dead() -> None:
    model = small.model(trunk=MMoE(ON_PAIRS, num_experts=3, units=[4], gate_temperature=1e-3))
    usage = expert_usage(model, to_batch(small.table().iloc[:1], small.preprocessor()))["experts"]
    # One row at a low temperature: each task reads one expert, so that at least one of the three has no reader.
    np.testing.assert_allclose(usage.load.max(axis=1), 1, rtol=1e-3)
    np.testing.assert_allclose(usage.entropy, 0, atol=1e-3)
    assert usage.dead == [e for e in range(3) if (usage.load[:, e] < 0.003).all()]
    assert usage.dead


def test_levels_have_names() -> None:
    model = small.model(trunk=PLE(ON_PAIRS, num_levels=2, units=[4]))
    usage = expert_usage(model, small.table())
    assert list(usage) == ["level_0", "level_1"]
    for level in usage.values():
        np.testing.assert_allclose(level.load.sum(axis=1), 1, rtol=1e-4)


def test_each_isolated_group_has_its_own_experts() -> None:
    model = small.model(trunk=MMoE(num_experts=2, units=[4]), isolate=[["rating"]])
    usage = expert_usage(model, small.table())
    assert sorted(usage) == ["liked/experts", "rating/experts"]
    assert usage["rating/experts"].load.shape == (1, 2)


def test_a_trunk_without_gates_is_refused() -> None:
    model = small.model(trunk=SharedBottom(ON_PAIRS, units=[4], name="bottom"))
    with pytest.raises(ValueError, match=re.escape("The trunk 'bottom' (SharedBottom) has no gates.")):
        expert_usage(model, small.table())
