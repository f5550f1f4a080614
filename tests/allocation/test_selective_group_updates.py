"""Groups of tasks that step in turn: two linear tasks against numpy, the groups, missing labels, resumed trainings."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.allocation import Affinity, Phase, Schedule, ScheduledTraining, SelectiveGroupUpdates, group_tasks
from tfmtl.allocation.selective_group_updates import groups_of, updated
from tfmtl.balancing import FAMO, MoCo, PCGrad, Uncertainty
from tfmtl.data import Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Regression
from tfmtl.training import LazyAdam

SCHEMA = Schema(query=[Numeric("x"), Numeric("z")], labels=[Label("a"), Label("b")])
ROWS, BATCH, RATE = 40, 10, 0.05


def table(of_b: float | None = None) -> pd.DataFrame:
    """Labels of two different linear functions; those of "b" are `of_b` times those of "a" if it is given."""
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(2, ROWS))
    a = 2 * x - z + 0.1 * rng.normal(size=ROWS)
    return pd.DataFrame({"x": x, "z": z, "a": a, "b": z - 0.5 * x if of_b is None else of_b * a})


def model(
    rows: pd.DataFrame, *, frozen: bool = False, rate: float = RATE, eager: bool = False, balancer: Any = None
) -> MultiTaskModel:
    """Return a model with z_k = u_k (w . features), w of four numbers, u_a = 0.5 and u_b = 0.25, both 1 if frozen."""
    preprocessor = Preprocessor.fit(SCHEMA, rows)
    inputs = {name: keras.Input([2], name=name) for name in ("x", "z")}
    ones = keras.initializers.Constant(0.3)
    hidden = keras.layers.Dense(1, use_bias=False, kernel_initializer=ones, name="shared")(
        keras.layers.Concatenate()([inputs["x"], inputs["z"]])
    )
    heads = {}
    for name, value in {"a": 0.5, "b": 0.25}.items():
        start = keras.initializers.Constant(1.0 if frozen else value)
        head = keras.layers.Dense(1, use_bias=False, kernel_initializer=start, name=f"head_{name}")
        head.trainable = not frozen
        heads[name] = head(hidden)
    built = MultiTaskModel(keras.Model(inputs, heads), [Regression("a"), Regression("b")], preprocessor, balancer)
    built.compile(keras.optimizers.SGD(rate), run_eagerly=eager, steps_per_execution=1)
    return built


def fit(trained: MultiTaskModel, rows: pd.DataFrame, *callbacks: Any, epochs: int = 1, batch: int = BATCH) -> Any:
    options = {"batch_size": batch, "verbose": 0, "shuffle": False}
    return trained.fit(rows, epochs=epochs, callbacks=list(callbacks), **options).history


def affinities(trained: Any) -> np.ndarray:
    return np.asarray(trained.group_updates.affinity.numpy())


def values(trained: MultiTaskModel) -> list[np.ndarray]:
    return [*(variable.numpy() for variable in trained.network.variables), affinities(trained)]


def orders(seed: int, batches: int) -> list[list[int]]:
    """Return the order of two groups on each batch."""
    drawn = tf.random.experimental.stateless_shuffle
    return [drawn(tf.range(2), tf.constant([seed, i], tf.int64)).numpy().tolist() for i in range(batches)]


def by_hand(rows: pd.DataFrame, decay: float, seed: int, batches: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return w, u and B after each task has stepped alone on each batch, by numpy in float64."""
    encoded = to_batch(rows, Preprocessor.fit(SCHEMA, rows)).features
    inputs = np.concatenate([encoded["x"].numpy(), encoded["z"].numpy()], axis=1).astype(np.float64)
    labels = rows[["a", "b"]].to_numpy().T
    shared, heads, affinity = np.full(inputs.shape[1], 0.3), np.array([0.5, 0.25]), np.zeros([2, 2])
    for number, order in enumerate(orders(seed, batches)):
        part = slice(BATCH * number, BATCH * (number + 1))
        features, targets = inputs[part], labels[:, part]

        def errors() -> np.ndarray:
            return np.outer(heads, features @ shared) - targets  # noqa: B023

        for task in order:
            before, error = np.square(errors()).mean(axis=1), errors()[task]
            slope = 2 * (error * (features @ shared)).mean()
            shared = shared - RATE * 2 * heads[task] * (error @ features) / BATCH
            heads[task] -= RATE * slope
            after = np.square(errors()).mean(axis=1)
            gain = 1 - after / before
            for other in range(2):
                if other != task or gain[task] >= 0:
                    affinity[task, other] = (1 - decay) * affinity[task, other] + decay * gain[other]
    return shared, heads, affinity


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_linear_tasks_step_as_in_numpy(seed: int, eager: bool) -> None:
    """Four batches, eight updates; the tasks disagree, so that a wrong sign or order is visible."""
    rows, callback = table(), SelectiveGroupUpdates(100, decay=0.2, seed=seed)
    trained = model(rows, eager=eager)
    history = fit(trained, rows, callback)
    shared, heads, affinity = by_hand(rows, 0.2, seed, 4)
    assert len({tuple(order) for order in orders(seed, 4)}) == 2
    found = {variable.name.split("/")[0]: variable.numpy().ravel() for variable in trained.network.variables}
    np.testing.assert_allclose(found["shared"], shared, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([found["head_a"][0], found["head_b"][0]], heads, rtol=1e-4)
    np.testing.assert_allclose(affinities(trained), affinity, rtol=1e-3, atol=1e-6)
    assert affinity[0, 0] > 0.05 > 0 > affinity[0, 1]
    assert abs(affinity[0, 1] - affinity[1, 0]) > 1e-3
    assert int(trained.optimizer.iterations) == 8
    assert callback.groups == (("a",), ("b",))
    np.testing.assert_allclose(callback.affinity.values[0, 1], affinity[0, 1], rtol=1e-3)
    assert history["unweighted_loss"][0] == pytest.approx(history["a_loss"][0] + history["b_loss"][0], rel=1e-5)


def test_groups_change_after_n_batches_and_then_step_together() -> None:
    """Heads frozen at 1, equal labels: a step on one task helps the other as much, so that two batches join them.

    The third and fourth batch make one update each, equal to a step on the sum of both losses.
    """
    rows = table(of_b=1.0)
    joined, callback = model(rows, frozen=True), SelectiveGroupUpdates(2, decay=0.5)
    fit(joined, rows, callback)
    assert callback.history == [(0, (("a",), ("b",))), (2, (("a", "b"),))]
    assert int(joined.optimizer.iterations) == 2 * 2 + 2 * 1
    plain = model(rows, frozen=True)
    for number, names in enumerate([["a"], ["b"], ["a"], ["b"], ["a", "b"], ["a", "b"]]):
        start = BATCH * (number // 2 if number < 4 else number - 2)
        plain.make_step(to_batch(rows.iloc[start : start + BATCH], plain.preprocessor), names)
    np.testing.assert_allclose(
        joined.network.get_layer("shared").get_weights()[0],
        plain.network.get_layer("shared").get_weights()[0], rtol=1e-4,
    )  # fmt: skip


def test_a_swapped_sign_of_the_labels_keeps_the_tasks_apart() -> None:
    """The same tasks with labels of opposite signs: the gain of one task is the loss of the other."""
    rows = table(of_b=-1.0)
    trained, callback = model(rows, frozen=True), SelectiveGroupUpdates(2, decay=0.5)
    fit(trained, rows, callback)
    assert callback.history == [(0, (("a",), ("b",)))]
    assert int(trained.optimizer.iterations) == 8
    assert (affinities(trained)[[0, 1], [1, 0]] < 0).all()


def test_golden_affinities_of_a_group() -> None:
    """Tasks 0 and 1 step: gains 0.5, 0.2 and -1 become 0.25, 0.1 and -0.5 by |G| = 2; B 1 becomes 0.9 + 0.1 r."""
    everything, group = tf.constant([True] * 3), tf.constant([True, True, False])
    before, after = tf.constant([2.0, 10.0, 1.0]), tf.constant([1.0, 8.0, 2.0])
    found = updated(tf.ones([3, 3]), before, after, group, everything, 0.1)
    np.testing.assert_allclose(found, [[0.925, 0.91, 0.85], [0.925, 0.91, 0.85], [1, 1, 1]], rtol=1e-6)


def test_two_tasks_of_a_group_that_disagree_harm_each_other() -> None:
    """Gains 0.5 and -1 by |G| = 2: r_01 = r_10 = -0.25; task 0 helps itself, task 1 does not count its own loss."""
    everything = tf.constant([True, True])
    found = updated(tf.zeros([2, 2]), tf.constant([2.0, 1.0]), tf.constant([1.0, 2.0]), everything, everything, 0.1)
    np.testing.assert_allclose(found, [[0.025, -0.025], [-0.025, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (-2.0, -3.0, 0.05),  # it falls by half of its size
        (-2.0, -1.0, -0.05),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 0.0),
        (np.nan, 1.0, 0.0),
        (1.0, np.nan, 0.0),
        (1.0, np.inf, 0.0),
    ],
)
def test_losses_below_0_count_and_losses_that_are_0_or_not_finite_do_not(
    before: float, after: float, expected: float
) -> None:
    everything, group = tf.constant([True, True]), tf.constant([True, False])
    found = updated(tf.zeros([2, 2]), tf.constant([1.0, before]), tf.constant([0.5, after]), group, everything, 0.1)
    np.testing.assert_allclose(found, [[0.05, expected], [0.0, 0.0]], rtol=1e-6)


def test_unobserved_tasks_are_neither_measured_nor_members() -> None:
    """Task 1 of the group {0, 1} has no label: |G| = 1; task 2 is measured, task 3 is not."""
    observed, group = tf.constant([True, False, True, False]), tf.constant([True, False, False, False])
    before, after = tf.constant([1.0, 0.0, 2.0, 0.0]), tf.constant([0.5, 0.0, 1.5, 0.0])
    found = updated(tf.ones([4, 4]), before, after, group, observed, 0.1).numpy()
    np.testing.assert_allclose(found[0], [0.95, 1.0, 0.925, 1.0], rtol=1e-6)
    assert (found[1:] == 1).all()


def test_groups_of_a_hand_made_affinity() -> None:
    """B_ij / B_jj: tasks 0 and 1 help each other fully; 2 harms 0 more than it gains from it; 3 has not helped itself.

    Task 2 is on a scale of its own: 0.001 of 0.002 is as much as 0.1 of 0.2.
    """
    affinity = np.array(
        [[0.2, 0.4, 0.001, 0.3], [0.2, 0.4, -0.001, 0.3], [-0.2, 0.1, 0.002, 0.3], [0.2, 0.4, 0.002, 0.0]]
    )
    assert groups_of(affinity) == [[0, 1], [2], [3]]
    affinity[2, :2], affinity[1, 2] = [0.2, 0.4], 0.001
    assert groups_of(affinity) == [[0, 1, 2], [3]]
    assert groups_of(np.zeros([3, 3])) == [[0], [1], [2]]
    assert groups_of(-np.abs(affinity)) == [[0], [1], [2], [3]]


def test_a_task_without_labels_neither_steps_nor_changes_its_affinities() -> None:
    rows = table()
    rows.loc[BATCH:, "b"] = np.nan  # only the first of four batches has labels of "b"
    callback, trained = SelectiveGroupUpdates(100, decay=0.2), model(rows)
    fit(trained, rows.iloc[:BATCH], callback)
    first, head = affinities(trained), trained.network.get_layer("head_b").get_weights()[0]
    assert int(trained.optimizer.iterations) == 2
    fit(trained, rows.iloc[BATCH:], callback)
    assert int(trained.optimizer.iterations) == 2 + 3
    np.testing.assert_array_equal(trained.network.get_layer("head_b").get_weights()[0], head)
    second = affinities(trained)
    changed = first != second
    assert changed.tolist() == [[True, False], [False, False]]


def test_losses_that_are_not_finite_leave_finite_affinities() -> None:
    """At a rate of 1e30 the second step has no finite loss; training goes on as `fit` always does."""
    rows = table()
    trained, callback = model(rows, rate=1e30), SelectiveGroupUpdates(2, decay=0.5)
    history = fit(trained, rows, callback)
    assert not np.isfinite(history["unweighted_loss"][0])
    assert np.isfinite(affinities(trained)).all()
    assert isinstance(callback.affinity, Affinity)


class Stop(keras.callbacks.Callback):
    """Interrupts the training at the start of the second epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("first", [False, True])
def test_a_resumed_training_goes_on_with_its_groups_and_affinities(tmp_path: Any, first: bool) -> None:
    """Interrupted after four of eight batches, with a change of the groups after each third one.

    The backup stands before or behind the callback, which restores the model before or after it starts.
    """
    rows = table(of_b=1.0)

    def callbacks() -> list[Any]:
        both = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup")), SelectiveGroupUpdates(3, decay=0.5)]
        return both if first else both[::-1]

    whole = model(rows, frozen=True)
    fit(whole, rows, SelectiveGroupUpdates(3, decay=0.5), epochs=2)
    killed = model(rows, frozen=True)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, rows, *callbacks(), Stop(), epochs=2)
    assert killed.step_schedule is None
    resumed = model(rows, frozen=True)
    fit(resumed, rows, *callbacks(), epochs=2)
    assert int(resumed.optimizer.iterations) == int(whole.optimizer.iterations) == 3 * 2 + 5
    assert [int(m.group_updates.batches) for m in (whole, resumed)] == [8, 8]
    for one, other in zip(values(resumed), values(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_training_of_a_model_continues_and_a_copy_of_the_callback_is_unused() -> None:
    rows = table()
    callback, twice, once = SelectiveGroupUpdates(3, decay=0.2), model(rows), model(rows)
    fit(twice, rows, callback)
    fit(once, rows, callback, epochs=2)
    assert callback.history[0] == (0, (("a",), ("b",)))
    fit(twice, rows, callback)
    for one, other in zip(values(twice), values(once), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    unused = copy.deepcopy(callback)
    assert (unused.every_n_batches, unused.decay, unused.history) == (3, 0.2, [])
    assert len(once.weights) == len(model(rows).weights)  # the state is no weight of the model
    before = int(once.optimizer.iterations)
    fit(once, rows)
    assert int(once.optimizer.iterations) == before + 4
    assert once.step_schedule is None


@pytest.mark.parametrize("balancer", [FAMO, MoCo, functools.partial(PCGrad, at="shared"), Uncertainty])
def test_a_balancer_sees_one_group_at_a_time(balancer: Any) -> None:
    """Two networks with groups of one task: the updates are those of `make_step`, one task after the other."""
    rows = table()
    trained, other = (model(rows, eager=eager, balancer=balancer()) for eager in (False, True))
    fit(trained, rows, SelectiveGroupUpdates(100))
    other.build_optimizer()
    for number, order in enumerate(orders(0, 4)):
        part = to_batch(rows.iloc[BATCH * number : BATCH * (number + 1)], other.preprocessor)
        for task in order:
            other.make_step(part, ["ab"[task]])
    for one, two in zip(trained.network.variables, other.network.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-4, atol=1e-6)


def test_all_kinds_of_tasks_and_calls_of_several_steps() -> None:
    """Retrieval, tables and heads over queries, with five batches in one call: the groups change after the call."""
    trained, callback = small.model(optimizer=LazyAdam(0.02)), SelectiveGroupUpdates(3, decay=0.1)
    fit(trained, small.table(), callback)
    assert int(trained.optimizer.iterations) == 4 * 5
    names = ["seen", "rating", "liked", "mood"]
    assert sorted(name for group in callback.groups for name in group) == sorted(names)
    assert [batches for batches, _ in callback.history][:1] == [0]
    assert all(batches in (0, 5) for batches, _ in callback.history)
    assert (np.diag(affinities(trained)) > 0).all()
    assert len(group_tasks(callback.affinity, 2).groups) <= 2


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match="`every_n_batches` must be a positive integer"):
        SelectiveGroupUpdates(0)
    for decay in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="`decay` must be above 0 and at most 1"):
            SelectiveGroupUpdates(decay=decay)
    rows = table()
    with pytest.raises(ValueError, match="No training has begun; give the callback to `fit` first"):
        _ = SelectiveGroupUpdates().affinity
    schedule = ScheduledTraining(Schedule(["a", "b"], [Phase(8, ("a", "b"))]))
    for pair in ([schedule, SelectiveGroupUpdates()], [SelectiveGroupUpdates(), schedule]):
        with pytest.raises(ValueError, match="One callback chooses the tasks of the steps"):
            fit(model(rows), rows, *pair)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        mirrored = small.model()
    with pytest.raises(ValueError, match="`SelectiveGroupUpdates` takes one replica; train without a strategy"):
        fit(mirrored, small.table(), SelectiveGroupUpdates())
    network = model(rows).network
    alone = MultiTaskModel(
        keras.Model(network.input, {"a": network.output["a"]}), [Regression("a")], Preprocessor.fit(SCHEMA, rows)
    )
    alone.compile("sgd")
    with pytest.raises(ValueError, match="A model of one task has no groups"):
        fit(alone, rows, SelectiveGroupUpdates())
