"""What holds for every registered balancer in a model that trains."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.balancing import tiny
from tests.conformance.balancers import BALANCERS
from tfmtl._keras import tf
from tfmtl.balancing import RLW, GradDrop

DRAWING = (GradDrop, RLW)  # XLA turns a seed into other numbers than TensorFlow's own kernels


@pytest.fixture(params=sorted(BALANCERS))
def make(request: pytest.FixtureRequest) -> Any:
    return BALANCERS[request.param]


def values(model: Any) -> list[np.ndarray]:
    return [v.numpy() for v in (*model.network.weights, *model.balancer.weights)]


def restored(make: Any, path: str, **arguments: Any) -> Any:
    """Return a new model with the state of a checkpoint."""
    model = tiny.model(make(), **arguments)
    model.optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(model=model).restore(path).assert_existing_objects_matched()
    return model


def test_it_trains_resumes_exactly_and_compiles(make: Any, tmp_path: pathlib.Path) -> None:
    """With penalties, clipping, several steps a call, and a task without a label in one batch of four."""
    model = tiny.model(make(), steps_per_execution=2)
    before = values(model)
    first = tiny.fit(model, epochs=1)
    halfway, checkpoint = values(model), tf.train.Checkpoint(model=model)
    path = checkpoint.save(str(tmp_path / "state"))
    second = tiny.fit(model, epochs=2, initial_epoch=1)
    for log in (first, second):
        assert all(np.isfinite(log[kind]).all() for kind in ("loss", "a_loss", "b_loss", "a_weight", "b_weight"))
    assert any((old != new).any() for old, new in zip(before, values(model), strict=True))
    assert all(np.isfinite(value).all() for value in values(model))

    for found, expected in zip(values(restored(make, path)), halfway, strict=True):
        np.testing.assert_array_equal(found, expected)
    expected_end = values(model)
    checkpoint.restore(path).assert_existing_objects_matched()
    assert tiny.fit(model, epochs=2, initial_epoch=1) == second  # all state is in the variables
    for found, expected in zip(values(model), expected_end, strict=True):
        np.testing.assert_array_equal(found, expected)

    compiled = restored(make, path, jit_compile=True)
    assert np.isfinite(tiny.fit(compiled, epochs=2, initial_epoch=1)["loss"]).all()
    if type(compiled.balancer) in DRAWING:
        return
    for found, expected in zip(values(compiled), expected_end, strict=True):  # XLA sums in another order
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)


def test_a_copy_of_a_trained_model_keeps_its_state(make: Any) -> None:
    model = tiny.model(make(), run_eagerly=True)
    model.make_step(tf.nest.map_structure(lambda column: column[: tiny.BATCH], tiny.whole()))
    copy = model.with_network(model.network)
    for found, expected in zip(copy.balancer.weights, model.balancer.weights, strict=True):
        np.testing.assert_array_equal(found, expected)
