"""Promises of every balancer that mixes variable by variable, and training with each method of these files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.balancing.mixing import Given, Mixer, check, generate
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing.balancer import Balancer
from tfmtl.balancing.db_mtl import DBMTL
from tfmtl.balancing.dense_layout import DenseLayout, is_table, task_norms
from tfmtl.balancing.excess_mtl import ExcessMTL
from tfmtl.balancing.gradcraft import GradCraft
from tfmtl.balancing.graddrop import GradDrop
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import TaskGradients
from tfmtl.balancing.metabalance import MetaBalance
from tfmtl.balancing.moco import MoCo
from tfmtl.data import to_batch

MAKERS: dict[str, Callable[[], GradientBalancer]] = {
    "GradDrop": lambda: GradDrop({"b": 0.25}),
    "MetaBalance": lambda: MetaBalance("b"),
    "MoCo": lambda: MoCo(rho=0.1),
    "DBMTL": DBMTL,
    "ExcessMTL": lambda: ExcessMTL(0.5),
}
every = pytest.mark.parametrize("name", MAKERS)


@every
def test_before_the_first_step_the_log_shows_the_plain_sum(name: str) -> None:
    balancer = Mixer(MAKERS[name]()).balancer
    assert float(balancer(tf.constant([1.0, 2.0, 4.0]))) == 7.0


@every
def test_unobserved_tasks_leave_the_problem(name: str) -> None:
    three, two = Mixer(MAKERS[name]()), Mixer(MAKERS[name](), tasks=2)
    for given in generate(4, hidden=[{2}]):
        check(three(given), two(given.of([0, 1])), rtol=1e-5)


@every
def test_state_of_an_unobserved_task_stays(name: str) -> None:
    """A gap in one task's labels changes nothing that the task left behind."""
    mixer = Mixer(MAKERS[name]())
    for given in generate(2):
        mixer(given)
    before = mixer.balancer.get_weights()
    mixer(generate(3, hidden=[{2}])[2])
    for variable, old in zip(mixer.balancer.weights, before, strict=True):
        if "last_weights" not in variable.name and old.ndim:
            by_task = [value.T if old.shape == (3, 3) else value for value in (old, variable.numpy())]  # MetaBalance's
            np.testing.assert_array_equal(by_task[0][2], by_task[1][2], err_msg=variable.name)


@every
def test_nothing_observed_is_no_update_and_no_new_state(name: str) -> None:
    mixer = Mixer(MAKERS[name]())
    mixer(generate(1)[0])
    before = mixer.balancer.get_weights()
    assert all((gradient == 0).all() for gradient in mixer(generate(1, hidden=[{0, 1, 2}])[0]))
    for variable, old in zip(mixer.balancer.weights, before, strict=True):
        if "last_weights" not in variable.name and "draws" not in variable.name:
            np.testing.assert_allclose(variable.numpy(), old, rtol=1e-6, atol=1e-7)


@every
def test_the_order_of_the_tasks_does_not_matter(name: str) -> None:
    one, other = Mixer(MAKERS[name]()), Mixer(MAKERS[name](), names="cab")
    for given in generate(4, hidden=[set(), {1}]):
        check(one(given), other(given.of([2, 0, 1])), rtol=1e-5)


@every
@pytest.mark.parametrize("scale", [1e-10, 1e15, (1e-10, 1.0, 1e15), (1e15, 1e-10, 0.0)])
def test_extreme_gradients_stay_finite(name: str, scale: Any) -> None:
    mixer = Mixer(MAKERS[name]())
    for losses in (1.0, 0.0, 1e15):
        for given in generate(2, scale=scale):
            mixed = mixer(Given(given.gradients, given.losses * losses, given.observed, given.rows))
            assert all(np.isfinite(gradient).all() for gradient in mixed)
            assert np.isfinite(mixer.weights()).all()
    assert all(np.isfinite(value).all() for value in mixer.balancer.get_weights())


@every
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_step_that_overflows_reaches_the_optimizer_but_not_the_state(name: str, bad: float) -> None:
    """Mixed precision skips a step by its gradients, and must find the state as it was."""
    mixer, steps = Mixer(MAKERS[name]()), generate(3)
    mixer(steps[0])
    before = mixer.balancer.get_weights()
    steps[1].gradients[0][1, 0, 2] = bad
    assert not all(np.isfinite(gradient).all() for gradient in mixer(steps[1]))
    for variable, old in zip(mixer.balancer.weights, before, strict=True):
        if "draws" not in variable.name:
            np.testing.assert_array_equal(variable.numpy(), old, err_msg=variable.name)
    assert all(np.isfinite(gradient).all() for gradient in mixer(steps[2]))


@every
def test_zero_gradients_are_no_update(name: str) -> None:
    mixer = Mixer(MAKERS[name]())
    for given in generate(3, scale=0.0):
        assert all((gradient == 0).all() for gradient in mixer(given))
    assert any((gradient != 0).any() for gradient in mixer(generate(1)[0]))


@every
def test_one_task_descends_along_its_gradient(name: str) -> None:
    mixer, given = Mixer(MAKERS[name](), tasks=1, names="b"), generate(1, tasks=1)[0]
    mixed = np.concatenate([gradient.ravel() for gradient in mixer(given)])
    flat = given.flat()[0]
    assert mixed @ flat / np.linalg.norm(mixed) / np.linalg.norm(flat) == pytest.approx(1)


@every
def test_a_variable_that_no_loss_reaches_gets_nothing(name: str) -> None:
    balancer = MAKERS[name]()
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable(tf.ones([2])), tf.Variable(tf.ones([3]))])
    reached = TaskGradients(tf.constant([[1.0, 2.0], [2.0, -1.0]]), None, None)
    mixed = balancer.mix([reached, None], tf.ones([2]), tf.constant([True, True]))
    assert mixed[1] is None
    assert np.abs(mixed[0]).sum() > 0


@every
def test_sparse_gradients_of_what_is_no_table_by_name_stay_sparse(name: str) -> None:
    balancer = MAKERS[name]()
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable(tf.ones([9, 1]), name="rows"), tf.Variable(tf.ones([1]), name="bias")])
    sparse = TaskGradients(tf.constant([[[1.0], [2.0]], [[2.0], [3.0]]]), tf.constant([4, 8]), tf.constant([9, 1]))
    dense = TaskGradients(tf.constant([[1.0], [2.0]]), None, None)
    mixed = balancer.mix([sparse, dense], tf.ones([2]), tf.constant([True, True]))
    assert mixed[0].indices.numpy().tolist() == [4, 8]
    assert (mixed[0].values.numpy() > 0).all()


@every
def test_a_network_may_share_nothing_but_tables(name: str) -> None:
    balancer = MAKERS[name]()
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable(tf.ones([9, 1]), name="item/embeddings")])
    values = tf.constant([[[1.0], [2.0]], [[2.0], [3.0]]])
    given = TaskGradients(values, tf.constant([4, 8]), tf.constant([9, 1]))
    mixed = balancer.mix([given], tf.ones([2]), tf.constant([True, True]))[0]
    assert (mixed.values.numpy() > 0).all()


def of_small(name: str) -> Balancer:
    special = {"GradDrop": GradDrop({"liked": 0.5}), "MetaBalance": MetaBalance("rating"), "GradCraft": GradCraft()}
    return special[name] if name in special else MAKERS[name]()


@pytest.mark.parametrize("name", ["MoCo", "GradCraft"])
def test_mixed_precision_finds_its_scale(name: str) -> None:
    """The first steps overflow in half precision."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**28)
        model = small.model(optimizer, balancer=of_small(name))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    before = model.network.get_weights()
    model.fit(small.table(), batch_size=10, epochs=4, verbose=0)
    assert float(optimizer.loss_scale) < 2.0**28
    assert all(np.isfinite(value).all() for value in model.balancer.get_weights())
    assert any((new != old).any() for new, old in zip(model.network.get_weights(), before, strict=True))


@pytest.mark.parametrize("name", [*MAKERS, "GradCraft"])
def test_tables_of_a_model_get_sparse_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.model(balancer=of_small(name), eager=True)
    compute, returned = model.balancer.gradients, []
    monkeypatch.setattr(model.balancer, "gradients", lambda step: returned.extend(compute(step)) or returned)
    model.make_step(to_batch(small.table(), small.preprocessor()))
    kinds = {v.name: isinstance(g, tf.IndexedSlices) for v, g in zip(model.trainable_variables, returned, strict=True)}
    assert {label for label, sparse in kinds.items() if sparse} == {
        v.name for v in model.shared_variables if is_table(v)
    }
    assert sum(kinds.values()) == 2


def test_the_layout_joins_and_splits_what_is_dense() -> None:
    given = generate(1, tasks=2)[0]
    variables = [
        tf.Variable(tf.zeros([2, 3])),
        tf.Variable(tf.zeros([7, 2]), name="embeddings"),
        tf.Variable([0.0] * 3),
    ]
    layout = DenseLayout.of(variables)
    gradients = [TaskGradients(tf.constant(g, tf.float32), None, None) for g in given.gradients]
    joined = layout.join(gradients, 2)
    np.testing.assert_allclose(joined, given.flat([0, 2]), rtol=1e-6)
    assert layout.others(gradients) == [gradients[1]]
    first, table, last = layout.split(joined[1], tf.constant([2.0, 0.0]), gradients)
    check([first, table, last], [given.gradients[0][1], 2 * given.gradients[1][0], given.gradients[2][1]])


def test_norms_of_huge_and_of_no_values() -> None:
    norms = task_norms([tf.constant([[3e20], [0.0], [3e-25]]), tf.constant([[4e20], [0.0], [4e-25]])])
    np.testing.assert_allclose(norms, [5e20, 0, 5e-25], rtol=1e-5)
    assert task_norms([tf.zeros([2, 0])]).numpy().tolist() == [0, 0]
