from __future__ import annotations

import re

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras
from tfmtl.data import to_batch
from tfmtl.interpretation import expert_ablation, expert_usage, usage_by_slice
from tfmtl.layers import PLE, MMoE, SharedBottom


def test_an_expert_that_all_gates_leave_out_is_dispensable_and_the_only_one_is_not() -> None:
    model = small.model(trunk=MMoE(small.ON_PAIRS, num_experts=3, units=[4], gate_temperature=1e-3))
    frame = small.table()
    found = expert_ablation(model, frame, tasks=small.ON_PAIRS)
    assert found.names == ["gate/0", "gate/1", "gate/2"]
    usage = expert_usage(model, frame)["experts"]
    unread = usage.load.max(axis=0) == 0
    np.testing.assert_allclose(found.values[unread], 0, atol=1e-7)
    read = usage.load.T > 0.5
    assert (np.abs(found.values[read]) > 1e-6).all()


def test_gates_are_renormalized() -> None:
    model = small.model(trunk=MMoE(small.ON_PAIRS, num_experts=2, units=[4]))
    frame = small.table()
    trunk = next(layer for layer in model.network.layers if isinstance(layer, MMoE))
    found = expert_ablation(model, frame, tasks=["rating"], blocks=2)
    before = keras.Model(model.network.input, trunk.input)
    head = model.network.get_layer("rating_output")
    encoded = to_batch(frame, model.preprocessor)
    inputs = before({name: encoded.features[name] for name in model.network.input})
    alone = head(trunk._experts(inputs)[:, 1])[:, 0].numpy()  # the task without expert 0 reads expert 1 with weight 1
    task = model.tasks[1]
    z = (encoded.labels["rating"].numpy() - task.offset) / task.scale
    weights = encoded.weights["rating"].numpy()
    full = model.network({name: encoded.features[name] for name in model.network.input})["rating"].numpy()[:, 0]
    blocks = np.array_split(np.random.default_rng(0).permutation(small.ROWS), 2)
    expected = np.mean([np.average((alone[b] - z[b]) ** 2 - (full[b] - z[b]) ** 2, weights=weights[b]) for b in blocks])
    np.testing.assert_allclose(found.values[0, 0], expected, rtol=1e-4)


def test_the_model_is_unchanged_afterwards() -> None:
    model = small.model(trunk=PLE(small.ON_PAIRS, num_levels=2, units=[4]))
    before = model.predict(small.table(), verbose=0)
    found = expert_ablation(model, small.table(), tasks=["liked"], metrics={"liked": "log_loss"}, blocks=2)
    assert {name.split("/")[0] for name in found.names} == {"0", "1"}
    model.retrace()
    for name, values in model.predict(small.table(), verbose=0).items():
        np.testing.assert_array_equal(values, before[name])


def test_slices_have_their_own_maps() -> None:
    model = small.model(trunk=MMoE(small.ON_PAIRS, num_experts=3, units=[4]))
    frame = small.table()
    found = usage_by_slice(model, frame, "user")
    assert sorted(found) == [f"u{k}" for k in range(small.USERS)]
    alone = expert_usage(model, frame[frame["user"] == "u2"])["experts"]
    np.testing.assert_allclose(found["u2"]["experts"].load, alone.load)


def test_wrong_arguments_are_named() -> None:
    model = small.model(trunk=SharedBottom(small.ON_PAIRS, units=[4]))
    with pytest.raises(ValueError, match=re.escape("its trunks are ['SharedBottom']")):
        expert_ablation(model, small.table())
    with pytest.raises(ValueError, match="Unknown task"):
        expert_ablation(model, small.table(), tasks=["like"])
    with pytest.raises(ValueError, match="Unknown column"):
        usage_by_slice(model, small.table(), "users")
