"""Affinities of tasks by a step ahead and to first order, against a computation by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.allocation import Affinity, TaskAffinity, group_tasks
from tfmtl.allocation.task_affinity import first_order
from tfmtl.balancing import PCGrad
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.training import ConflictMonitor

NAMES = ["rating", "liked", "seen"]


def model(**arguments: Any) -> MultiTaskModel:
    heads = [task for task in small.tasks() if task.name in NAMES]
    heads.sort(key=lambda task: NAMES.index(task.name))
    return small.model(heads=heads, **arguments)


def fit(trained: MultiTaskModel, *callbacks: Any, epochs: int = 1, batch: int = small.ROWS) -> Any:
    options = {"batch_size": batch, "verbose": 0, "shuffle": False}
    return trained.fit(small.table(), epochs=epochs, callbacks=list(callbacks), **options).history


def by_hand(rate: float) -> np.ndarray:
    """Return 1 - L_j(theta_s - eta g_i) / L_j(theta_s), each from a fresh model moved along one dense gradient."""
    rows = to_batch(small.table(), small.preprocessor())

    def losses(built: MultiTaskModel) -> np.ndarray:
        found = built.compute_losses(rows, training=False)
        return np.array([float(found[name][0]) for name in NAMES])

    fresh = model(eager=True)
    fresh.compute_losses(rows, training=True)  # counts the candidates, as the step does
    before, values = losses(fresh), []
    for name in NAMES:
        moved = model(eager=True)
        with tf.GradientTape() as tape:
            loss = moved.compute_losses(rows, training=True)[name][0]
        gradients = tape.gradient(loss, moved.shared_variables, unconnected_gradients="zero")
        for variable, gradient in zip(moved.shared_variables, gradients, strict=True):
            variable.assign_sub(rate * tf.convert_to_tensor(gradient))
        values.append(1 - losses(moved) / before)
    return np.array(values)


@pytest.mark.parametrize("eager", [False, True])
def test_a_step_ahead_is_that_by_hand(eager: bool) -> None:
    """The user table is sparse, the towers are dense; 50 rows are one step."""
    monitor, trained = TaskAffinity(1, "lookahead", learning_rate=0.5), model(eager=eager)
    log = fit(trained, monitor)
    expected = by_hand(0.5)
    np.testing.assert_allclose(monitor.history[0]["affinity"], expected, rtol=2e-3, atol=2e-5)
    assert log["affinity/rating~liked"] == [pytest.approx(expected[0, 1], rel=2e-3, abs=2e-5)]
    assert log["affinity/liked~rating"] == [pytest.approx(expected[1, 0], rel=2e-3, abs=2e-5)]
    assert np.abs(expected[0, 1] - expected[1, 0]) > 1e-4  # not symmetric, so that the order matters


def test_the_first_order_form_is_the_limit_of_small_steps() -> None:
    found = {}
    for form in ("lookahead", "first_order"):
        monitor = TaskAffinity(1, form, at="shared", learning_rate=0.02)
        fit(model(), monitor)
        found[form] = monitor.history[0]["affinity"] / 0.02
    np.testing.assert_allclose(found["first_order"], found["lookahead"], rtol=0.1, atol=5e-3)
    assert np.abs(found["first_order"]).max() > 0.05


@pytest.mark.parametrize("form", ["lookahead", "first_order"])
def test_frozen_variables_are_not_moved(form: str) -> None:
    """With the user's table frozen the effects are those of the other shared variables alone."""
    found = []
    for frozen in (False, True):
        trained, monitor = model(), TaskAffinity(1, form, at="shared")
        layer = next(layer for layer in trained.network.layers if "user_embedding" in layer.name)
        layer.trainable = not frozen
        trained.compile(keras.optimizers.SGD(0.0))
        before = layer.get_weights()
        fit(trained, monitor)
        np.testing.assert_array_equal(layer.get_weights()[0], before[0])
        found.append(monitor.history[0]["affinity"])
    assert found[0][0, 0] > found[1][0, 0] > 0  # a task helps itself less


def test_first_order_golden_values() -> None:
    """Gradients (1, 0), (2, 2), losses 0.5, 4: Z_01 = 0.1 * 2 / 4, Z_10 = 0.1 * 2 / 0.5."""
    rows = np.array([[1, 0], [2, 2]], np.float32)
    found = first_order(tf.constant(rows @ rows.T), tf.constant([0.5, 4.0]), 0.1)
    np.testing.assert_allclose(found, [[0.2, 0.05], [0.4, 0.2]], rtol=1e-6)


def test_losses_below_zero_help_where_they_fall() -> None:
    """A common gradient (1) with losses -2 and 4: both fall, so that all effects are above 0."""
    found = first_order(tf.ones([2, 2]), tf.constant([-2.0, 4.0]), 0.1)
    np.testing.assert_allclose(found, [[0.05, 0.025], [0.05, 0.025]], rtol=1e-6)


@pytest.mark.parametrize("form", ["lookahead", "first_order"])
@pytest.mark.parametrize("balancer", [None, PCGrad])
def test_training_is_the_same_with_the_callback(form: str, balancer: Any) -> None:
    watched, plain = (model(balancer=balancer and balancer()) for _ in range(2))
    fit(watched, TaskAffinity(2, form), epochs=2, batch=10)
    fit(plain, epochs=2, batch=10)
    for one, other in zip(watched.network.variables, plain.network.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-4)


def test_every_nth_step_is_measured_and_the_mean_is_over_all() -> None:
    """Ten steps of two epochs, every third: 0 and 3, then 6 and 9."""
    monitor = TaskAffinity(3)
    fit(model(), monitor, epochs=2, batch=10)
    assert [epoch["count"].max() for epoch in monitor.history] == [2, 2]
    expected = np.mean([epoch["affinity"] for epoch in monitor.history], axis=0)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(monitor.affinity.values[off], expected[off], rtol=1e-6)
    assert monitor.affinity.tasks == tuple(NAMES)
    assert len(group_tasks(monitor.affinity, 2).groups) <= 2


def test_mixed_precision_measures_unscaled_gradients() -> None:
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.0), dynamic=False, initial_scale=512.0)
    found = []
    for given in (optimizer, keras.optimizers.SGD(0.0)):
        monitor = TaskAffinity(1, at="shared")
        ahead = TaskAffinity(1, "lookahead")
        fit(model(optimizer=given), monitor)
        fit(model(optimizer=type(given).from_config(given.get_config())), ahead)
        found.append([monitor.history[0]["affinity"], ahead.history[0]["affinity"]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-6)


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown form \['exact'\] in `form`"):
        TaskAffinity(form="exact")
    with pytest.raises(ValueError, match="`learning_rate` must be a number above 0"):
        TaskAffinity(learning_rate=0.0)
    with pytest.raises(ValueError, match="No epoch has been measured"):
        _ = TaskAffinity().affinity
    with pytest.raises(ValueError, match="One callback observes the steps of a training"):
        fit(model(), TaskAffinity(), ConflictMonitor())
    late = TaskAffinity(100)
    trained = model()
    trained.optimizer.iterations.assign(1)
    fit(trained, late)
    with pytest.raises(ValueError, match=r"The pairs \[\('rating', 'liked'\), .* were never measured"):
        _ = late.affinity
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        mirrored = model()
    with pytest.raises(ValueError, match='The form "lookahead" takes one replica'):
        fit(mirrored, TaskAffinity(form="lookahead"))


def test_a_copy_is_unused_and_keeps_its_arguments() -> None:
    monitor = TaskAffinity(3, "lookahead", "shared", 0.2)
    fit(model(), monitor)
    copied = copy.deepcopy(monitor)
    assert copied.history == []
    assert (copied.every_n_steps, copied.form, copied.at, copied.learning_rate) == (3, "lookahead", "shared", 0.2)
    fit(model(), copied)
    np.testing.assert_allclose(copied.affinity.values, monitor.affinity.values, rtol=1e-4, atol=1e-6)


def test_an_affinity_is_saved_and_loaded(tmp_path: Any) -> None:
    affinity = Affinity(["click", "buy"], [[0.0, 0.2], [-0.1, 0.0]])
    affinity.save(tmp_path / "affinity.json")
    loaded = Affinity.load(tmp_path / "affinity.json")
    assert loaded.tasks == affinity.tasks
    np.testing.assert_array_equal(loaded.values, affinity.values)
    (tmp_path / "affinity.json").write_text("[]")
    with pytest.raises(ValueError, match="holds no affinity of this version"):
        Affinity.load(tmp_path / "affinity.json")
