"""Properties of every registered balancer in a model that trains."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.balancing import tiny
from tests.conformance.balancers import BALANCERS
from tfmtl._keras import keras, tf
from tfmtl.balancing import RLW, Exp3S, GradDrop

DRAWING = (Exp3S, GradDrop, RLW)  # XLA draws other random numbers from a seed than TensorFlow's kernels


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


def check_equal(model: Any, expected: list[np.ndarray], **tolerance: float) -> None:
    for found, value in zip(values(model), expected, strict=True):
        np.testing.assert_allclose(found, value, **{"rtol": 0.0, **tolerance})


def train(model: Any, step: Any) -> list[dict[str, float]]:
    """Make an epoch of the first and last batch and return the log of each step; the last has no label of task b."""
    logs = []
    for start in (0, tiny.BATCH * (tiny.BATCHES - 1)):
        batch = tf.nest.map_structure(lambda column, at=start: column[at : at + tiny.BATCH], tiny.whole())
        logs.append({name: float(value) for name, value in step(batch).items()})
    model.balancer.end_epoch()
    return logs


def compiled_step(model: Any) -> Any:
    """Return `make_step` with XLA up to the optimizer, which no balancer changes and which compiles slowly."""
    compiled = tf.function(lambda batch: model.balanced_gradients(batch)[1:], jit_compile=True)

    def step(batch: Any) -> dict[str, Any]:
        before = model.compute_losses(batch, training=False) if model.balancer.needs_losses_after_step else None
        gradients, losses = compiled(batch)
        pairs = zip(gradients, model.trainable_variables, strict=True)
        model.optimizer.apply_gradients([pair for pair in pairs if pair[0] is not None])
        if before is not None:
            after = model.compute_losses(batch, training=False)
            values = [tf.stack([losses[task][0] for task in tiny.TASKS]) for losses in (before, after)]
            observed = tf.stack([before[task][1] for task in tiny.TASKS]) > 0
            model.balancer.after_step(*values, observed)
        return {"loss": losses.objective}

    return step


def clipped() -> Any:
    return keras.optimizers.SGD(0.1, clipnorm=1.0)


def test_its_steps_resume_exactly_and_compile_and_a_copy_keeps_its_state(make: Any, tmp_path: pathlib.Path) -> None:
    """With penalties, clipping, and a task without a label in one batch of two."""
    model = tiny.model(make(), clipped())
    before = values(model)
    first = train(model, model.make_step)
    halfway, checkpoint = values(model), tf.train.Checkpoint(model=model)
    path = checkpoint.save(str(tmp_path / "state"))
    model.reset_metrics()
    second = train(model, model.make_step)
    assert all(np.isfinite(value) for log in (*first, *second) for value in log.values())
    assert {"loss", "a_loss", "b_loss", "a_weight", "b_weight"} <= set(first[0])
    assert any((old != new).any() for old, new in zip(before, values(model), strict=True))
    assert all(np.isfinite(value).all() for value in values(model))

    expected_end = values(model)
    checkpoint.restore(path).assert_existing_objects_matched()
    model.reset_metrics()
    assert train(model, model.make_step) == second  # all state is in the variables
    check_equal(model, expected_end)
    copy = model.with_network(model.network)
    for found, expected in zip(copy.balancer.weights, model.balancer.weights, strict=True):
        np.testing.assert_array_equal(found, expected)  # a copy of a trained model keeps its state

    compiled = restored(make, path, optimizer=clipped())
    check_equal(compiled, halfway)
    logs = train(compiled, compiled_step(compiled))
    assert all(np.isfinite(log["loss"]) for log in logs)
    if type(compiled.balancer) not in DRAWING:
        check_equal(compiled, expected_end, rtol=1e-2, atol=1e-3)  # XLA sums in another order


@pytest.mark.parametrize("name", ["DBMTL", "DWA", "FAMO", "PCGrad"])
def test_fit_resumes_exactly_and_compiles(name: str, tmp_path: pathlib.Path) -> None:
    """One of each kind in Keras' loop, with Adam, clipping, and several steps per call."""
    make = BALANCERS[name]
    model = tiny.model(make(), steps_per_execution=2)
    tiny.fit(model, epochs=1)
    halfway, checkpoint = values(model), tf.train.Checkpoint(model=model)
    path = checkpoint.save(str(tmp_path / "state"))
    second = tiny.fit(model, epochs=2, initial_epoch=1)
    check_equal(restored(make, path), halfway)
    expected_end = values(model)
    checkpoint.restore(path).assert_existing_objects_matched()
    assert tiny.fit(model, epochs=2, initial_epoch=1) == second
    check_equal(model, expected_end)

    compiled = restored(make, path, jit_compile=True)
    assert np.isfinite(tiny.fit(compiled, epochs=2, initial_epoch=1)["loss"]).all()
    check_equal(compiled, expected_end, rtol=1e-2, atol=1e-3)
