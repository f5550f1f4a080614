from __future__ import annotations

import copy
import pathlib
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import Uncertainty
from tfmtl.balancing.pcgrad import PCGrad
from tfmtl.data import from_frame, to_batch
from tfmtl.layers import MMoE
from tfmtl.layers.marks import marking
from tfmtl.models import MultiTaskModel
from tfmtl.training import ConflictMonitor, conflicts, step_observer
from tfmtl.training.conflicts import pair_measures

TABLE = small.table()
TRUNK_ONLY = ["rating", "liked"]
PAIR = "rating~liked"


def model(names: list[str] | None = None, **arguments: Any) -> MultiTaskModel:
    heads = [task for task in small.tasks() if task.name in (names or TRUNK_ONLY)]
    return small.model(heads=heads, **arguments)


def fit(trained: MultiTaskModel, *callbacks: Any, table: Any = TABLE, batch: int = 10, epochs: int = 1) -> Any:
    rows = None if isinstance(table, tf.data.Dataset) else batch
    return trained.fit(table, batch_size=rows, epochs=epochs, callbacks=list(callbacks), verbose=0).history


class Trained(NamedTuple):
    """A model after a traced training of three epochs of five steps, all of an epoch in one call."""

    model: MultiTaskModel
    log: dict[str, list[float]]
    weights: list[np.ndarray]


def train(*callbacks: Any) -> Trained:
    trained = model()
    log = fit(trained, *callbacks, epochs=3)
    assert int(trained.steps_per_execution) == 5
    return Trained(trained, log, [variable.numpy() for variable in trained.network.variables])


@pytest.fixture(scope="module")
def monitor() -> ConflictMonitor:
    return ConflictMonitor(4, ["query_tower_0"])


@pytest.fixture(scope="module")
def watched(monitor: ConflictMonitor) -> Trained:
    """Trained under the monitor; no test may rely on the model's weights or on the monitor's history."""
    return train(monitor)


def gradients_by_hand(at: Any, **arguments: Any) -> np.ndarray:
    """Return each task's gradient [2, size] of the whole table, densely, before the first step."""
    fresh = model(eager=True, **arguments)
    with marking() as marks, tf.GradientTape(persistent=True) as tape:
        losses = fresh.compute_losses(to_batch(TABLE, small.preprocessor()), training=True)
    if isinstance(at, str):
        sources: Any = {"representation": marks.trunk, "shared": fresh.shared_variables}[at]
    else:
        sources = fresh.network.get_layer(at[0]).trainable_variables
    of_tasks = [tape.gradient(losses[name][0], sources, unconnected_gradients="zero") for name in TRUNK_ONLY]
    return np.stack([np.concatenate([tf.convert_to_tensor(g).numpy().ravel() for g in gs]) for gs in of_tasks])


def by_hand(rows: np.ndarray) -> dict[str, float]:
    first, second = (np.linalg.norm(row) for row in rows)
    cosine = rows[0] @ rows[1] / first / second
    return {
        "cosine": cosine,
        "conflict": float(cosine < 0),
        "magnitude": 2 * first * second / (first**2 + second**2),
    }


def test_golden_measures() -> None:
    """Gradients (3, 0), (-3, 4), (0, 2): cosines -9/15, 0, 8/10; magnitudes 30/34, 12/13, 20/29."""
    rows = np.array([[3, 0], [-3, 4], [0, 2]], np.float32)
    conflict, cosine, magnitude, count = pair_measures(tf.constant(rows @ rows.T), tf.constant([True] * 3)).numpy()
    upper = np.triu_indices(3, 1)
    np.testing.assert_allclose(cosine[upper], [-0.6, 0, 0.8], rtol=1e-6)
    np.testing.assert_allclose(magnitude[upper], [30 / 34, 12 / 13, 20 / 29], rtol=1e-6)
    assert conflict[upper].tolist() == [1, 0, 0]
    assert (count == 1).all()
    for matrix in (conflict, cosine, magnitude):
        np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize("scale", [1e-20, 1e-10, 1e15, 1e30])
def test_measures_do_not_depend_on_the_unit(scale: float) -> None:
    rows = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    gramian, observed = tf.constant(rows @ rows.T), tf.constant([True] * 4)
    found = pair_measures(gramian * scale, observed)
    np.testing.assert_allclose(found, pair_measures(gramian, observed), rtol=1e-5, atol=1e-6)


def test_lengths_far_apart_have_magnitude_zero() -> None:
    found = pair_measures(tf.constant([[1e30, -1e5], [-1e5, 1e-20]]), tf.constant([True, True])).numpy()[:, 0, 1]
    np.testing.assert_allclose(found, [1, -1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("spoiled", ["unobserved", "zero", "nan", "inf"])
def test_a_pair_without_two_directions_is_not_counted(spoiled: str) -> None:
    gramian = np.array([[4, -1, 2], [-1, 9, -3], [2, -3, 5]], np.float32)
    alone = pair_measures(tf.constant(gramian[:2, :2]), tf.constant([True, True]))
    gramian[2] = gramian[:, 2] = {"unobserved": 3.0, "zero": 0.0, "nan": np.nan, "inf": np.inf}[spoiled]
    found = pair_measures(tf.constant(gramian), tf.constant([True, True, spoiled != "unobserved"])).numpy()
    np.testing.assert_array_equal(found[:, :2, :2], alone)
    assert (found[:, 2] == 0).all()
    assert (found[:, :, 2] == 0).all()


@pytest.mark.parametrize("at", ["representation", "shared", ["query_tower_0"]])
def test_the_first_measurement_is_that_of_gradients_by_hand(at: Any) -> None:
    monitor = ConflictMonitor(1, at)
    log = fit(model(eager=True), monitor, batch=small.ROWS)
    expected = by_hand(gradients_by_hand(at))
    assert 0.01 < abs(expected["cosine"]) < 0.99
    for measure, value in expected.items():
        assert log[f"{measure}/{PAIR}"] == pytest.approx([value], rel=1e-4)
        matrix = monitor.history[0][measure]
        assert [matrix[0, 1], matrix[1, 0]] == pytest.approx([value] * 2, rel=1e-4)
    assert monitor.history[0]["count"].tolist() == [[1, 1], [1, 1]]
    np.testing.assert_allclose(np.diag(monitor.history[0]["cosine"]), 1, rtol=1e-5)


def test_the_order_of_the_tasks_is_the_models_and_not_the_trunks() -> None:
    arguments = {"trunk": MMoE(TRUNK_ONLY[::-1], num_experts=2, units=[4], seed=0)}
    norms = np.linalg.norm(gradients_by_hand("representation", **arguments), axis=1)
    table = TABLE.assign(rating=np.nan)
    monitor = ConflictMonitor(1)
    fit(model(eager=True, **arguments), monitor, table=table, batch=small.ROWS)
    assert (norms > 0).all()
    assert monitor.task_names == tuple(TRUNK_ONLY)
    assert monitor.history[0]["count"].tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("balancer", [Uncertainty, PCGrad, lambda: PCGrad(at="shared")])
def test_gradients_are_those_of_the_unweighted_losses_whatever_the_balancer(balancer: Any) -> None:
    log = fit(model(eager=True, balancer=balancer()), ConflictMonitor(1, "shared"), batch=small.ROWS)
    for measure, value in by_hand(gradients_by_hand("shared")).items():
        assert log[f"{measure}/{PAIR}"] == pytest.approx([value], rel=1e-4)


def test_an_epoch_without_a_measurement_has_nan() -> None:
    # Three steps per epoch, every sixth measured: step 0 | none | step 6.
    monitor = ConflictMonitor(6)
    log = fit(model(eager=True), monitor, batch=20, epochs=3)
    assert [int(epoch["count"][0, 1]) for epoch in monitor.history] == [1, 0, 1]
    for name in (f"{measure}/{PAIR}" for measure in ("conflict", "cosine", "magnitude")):
        assert np.isnan(log[name]).tolist() == [False, True, False]


def test_a_traced_training_measures_what_an_eager_one_does(watched: Trained) -> None:
    eager = ConflictMonitor(4, ["query_tower_0"])
    expected = fit(model(eager=True), eager, epochs=3)
    assert [int(epoch["count"][0, 1]) for epoch in eager.history] == [2, 1, 1]  # steps 0, 4 | 8 | 12
    for measure in ("conflict", "cosine", "magnitude"):
        name = f"{measure}/{PAIR}"
        assert watched.log[name] == pytest.approx(expected[name], rel=1e-3)
        assert 0 < np.mean(expected[name]) < 1


def test_batches_without_labels_of_both_tasks_are_not_counted() -> None:
    trained = model(eager=True)
    table = TABLE.assign(liked=TABLE["liked"].where(np.arange(small.ROWS) >= 25))  # missing in the first batch of two
    monitor = ConflictMonitor(1)
    fit(trained, monitor, table=from_frame(table, small.preprocessor(), 25))
    assert monitor.history[0]["count"].tolist() == [[2, 1], [1, 1]]
    log = fit(trained, monitor, table=from_frame(TABLE.assign(liked=np.nan), small.preprocessor(), 25))
    assert monitor.history[0]["count"].tolist() == [[2, 0], [0, 0]]
    assert np.isnan(log[f"conflict/{PAIR}"]).all()
    assert np.isfinite(log["loss"]).all()


def test_retrieval_and_ranking_meet_and_every_pair_is_logged(tmp_path: pathlib.Path) -> None:
    loggers = [
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.TensorBoard(str(tmp_path / "board")),
    ]
    log = fit(model(["seen", *TRUNK_ONLY, "mood"], eager=True), ConflictMonitor(1), *loggers, batch=50, epochs=2)
    pairs = ["seen~rating", "seen~liked", "seen~mood", "rating~liked", "rating~mood", "liked~mood"]
    names = [f"{measure}/{pair}" for measure in ("conflict", "cosine", "magnitude") for pair in pairs]
    assert [name for name in log if "/" in name] == names
    written = pd.read_csv(tmp_path / "log.csv")
    for name in names:
        assert len(log[name]) == 2
        assert written[name].tolist() == pytest.approx(log[name])
    (events,) = (tmp_path / "board" / "train").glob("events*")
    assert b"epoch_conflict/rating~liked" in events.read_bytes()


def test_training_with_and_without_a_monitor_is_the_same_bit_by_bit(watched: Trained) -> None:
    plain = train()
    for name, values in plain.log.items():
        assert watched.log[name] == values, name
    for variable, one, other in zip(plain.model.network.variables, plain.weights, watched.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=variable.name)


def test_a_second_training_starts_again_and_traces_nothing_again(monitor: ConflictMonitor, watched: Trained) -> None:
    first = monitor.history
    watched.model.optimizer.iterations.assign(0)
    log = fit(watched.model, monitor, epochs=2)
    assert monitor.history is not first
    assert [epoch["cosine"][0, 1] for epoch in monitor.history] == pytest.approx(log[f"cosine/{PAIR}"])
    assert [epoch["count"][0, 0] for epoch in monitor.history] == [2, 1]
    assert watched.model._hooked_train_on.experimental_get_tracing_count() == 1
    assert watched.model._traced_train_on.experimental_get_tracing_count() == 0


def test_the_observation_ends_with_the_training() -> None:
    trained, monitor = model(eager=True), ConflictMonitor(1)
    fit(trained, monitor, batch=small.ROWS)
    assert trained.step_observer is None
    kept = monitor.history
    assert f"cosine/{PAIR}" not in fit(trained, batch=small.ROWS)
    assert monitor.history is kept
    trained.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    for other in (trained, model(["rating", "liked", "mood"], eager=True)):
        log = fit(other, monitor, batch=small.ROWS)
        assert monitor.task_names == tuple(task.name for task in other.tasks)
        assert np.isfinite(log[f"cosine/{PAIR}"]).all()


class Failing(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise KeyboardInterrupt


def test_a_training_that_was_interrupted_does_not_hinder_the_next() -> None:
    trained = model(eager=True)
    interrupted, monitor = ConflictMonitor(1), ConflictMonitor(1)
    with pytest.raises(KeyboardInterrupt):
        fit(trained, interrupted, Failing(), batch=small.ROWS)
    for callback in (interrupted, monitor):
        fit(trained, callback, batch=small.ROWS)
        assert callback.history[0]["count"][0, 1] == 1
        assert trained.step_observer is None


@pytest.mark.parametrize("replicas", [1, 2])
def test_only_due_steps_enter_the_sums(replicas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several replicas measure every step, since they cannot communicate in a branch, and add zeros in between."""
    monitor = ConflictMonitor(3)
    optimizer = SimpleNamespace(iterations=tf.Variable(0))
    monitor.model = SimpleNamespace(optimizer=optimizer)
    monitor._sums = tf.Variable(tf.zeros([4, 2, 2]))
    gramian, measured = tf.constant([[1.0, -1.0], [-1.0, 2.0]]), []

    def look(*_: Any) -> tf.Tensor:
        measured.append(int(optimizer.iterations))
        return gramian

    monkeypatch.setattr(step_observer, "replicas", lambda: replicas)
    monkeypatch.setattr(conflicts, "gramian_at", look)
    step = SimpleNamespace(output_gradients=lambda: None, observed=tf.constant([True, True]))
    for number in range(5):
        optimizer.iterations.assign(number)
        monitor.measure(step)
    assert measured == ([0, 3] if replicas == 1 else [0, 1, 2, 3, 4])
    conflict, cosine, magnitude, count = monitor._sums.numpy()[:, 0, 1]
    assert (conflict, count) == (2, 2)  # steps 0 and 3
    assert cosine == pytest.approx(-2 / np.sqrt(2))
    assert magnitude == pytest.approx(2 * 2 * np.sqrt(2) / 3)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="`every_n_steps` must be a positive integer"):
        ConflictMonitor(0)
    for at in ("nowhere", [], [3]):
        with pytest.raises(ValueError, match="`at` must be one of"):
            ConflictMonitor(at=at)  # type: ignore[arg-type]
    trained = model(eager=True)
    with pytest.raises(ValueError, match="no_such_layer"):
        fit(trained, ConflictMonitor(at=["no_such_layer"]))
    with pytest.raises(ValueError, match="One callback observes the steps of a training"):
        fit(trained, ConflictMonitor(), ConflictMonitor())
    assert trained.step_observer is None


def test_a_copy_is_unused() -> None:
    monitor = ConflictMonitor(3, ["one", "two"])
    monitor.history.append({})
    twin = copy.deepcopy(monitor)
    assert (twin.every_n_steps, twin.at, twin.history) == (3, ("one", "two"), [])


def test_mixed_precision_measures_nearly_the_same() -> None:
    expected = by_hand(gradients_by_hand("shared"))
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam())
        log = fit(model(eager=True, optimizer=optimizer), ConflictMonitor(1, "shared"), batch=small.ROWS)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for measure, value in expected.items():
        assert log[f"{measure}/{PAIR}"] == pytest.approx([value], rel=0.05)
