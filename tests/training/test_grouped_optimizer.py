from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tests.training.sparse import START, dense, draw, run, run_dense, slices, table
from tfmtl._keras import keras, tf
from tfmtl.balancing.dense_layout import is_table
from tfmtl.training import GroupedOptimizer, LazyAdam, LazySGD, RowWiseAdagrad

ROWS, VALUES = draw([3, 1, 3])[0]


def gradients() -> tuple[list, list]:
    """Return a table, a kernel and a bias, and their gradients."""
    variables = [table(), tf.Variable(START, name="kernel"), tf.Variable(START[0], name="bias")]
    whole = tf.constant(dense(ROWS, VALUES), tf.float32)
    return variables, [slices(ROWS, VALUES), whole, whole[3]]


def test_each_group_takes_the_steps_of_its_optimizer() -> None:
    variables, grads = gradients()
    optimizer = GroupedOptimizer(RowWiseAdagrad(0.3), LazySGD(0.2, 0.9))
    for _ in range(2):
        optimizer.apply_gradients(zip(grads, variables, strict=True))
    steps = [(ROWS, VALUES)] * 2
    np.testing.assert_allclose(variables[0].numpy(), run(RowWiseAdagrad(0.3), steps), atol=1e-6)
    expected = run_dense(LazySGD(0.2, 0.9), steps)
    np.testing.assert_allclose(variables[1].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(variables[2].numpy() - START[0], (expected - START)[3], atol=1e-6)
    assert [int(part.iterations) for part in (optimizer, optimizer.embeddings, optimizer.dense)] == [2, 2, 2]


def test_the_global_norm_is_that_of_both_groups() -> None:
    variables, grads = gradients()
    optimizer = GroupedOptimizer(LazySGD(1.0), LazySGD(1.0), global_clipnorm=0.5)
    optimizer.apply_gradients(zip(grads, variables, strict=True))
    whole = dense(ROWS, VALUES)
    norm = np.sqrt(2 * (whole**2).sum() + (whole[3] ** 2).sum())
    np.testing.assert_allclose(START - variables[0].numpy(), whole * 0.5 / norm, atol=1e-6)
    np.testing.assert_allclose(START - variables[1].numpy(), whole * 0.5 / norm, atol=1e-6)


def test_a_part_clips_its_own_group() -> None:
    variables, grads = gradients()
    optimizer = GroupedOptimizer(LazySGD(1.0, clipvalue=0.1), LazySGD(1.0))
    optimizer.apply_gradients(zip(grads, variables, strict=True))
    whole = dense(ROWS, VALUES)
    np.testing.assert_allclose(START - variables[0].numpy(), np.clip(whole, -0.1, 0.1), atol=1e-6)
    np.testing.assert_allclose(START - variables[1].numpy(), whole, atol=1e-6)


def test_a_group_without_gradients_counts_its_steps() -> None:
    optimizer = GroupedOptimizer(LazyAdam(0.1), LazyAdam(0.1))
    run(optimizer, draw([1], [2]))
    assert int(optimizer.dense.iterations) == int(optimizer.iterations) == 2


def test_other_names_make_a_table() -> None:
    optimizer = GroupedOptimizer(LazySGD(1.0), LazySGD(2.0), tables=["quotients", "embeddings"])
    names = ["x/quotients:0", "y/embeddings:0", "z/kernel:0", "embeddings/bias:0"]
    variables = [tf.Variable(0.0, name=name.split(":")[0]) for name in names]
    (_, tables), (_, others) = optimizer.split(variables)
    assert [v.name for v in tables] == names[:2]
    assert [v.name for v in others] == names[2:]


def test_the_learning_rate_is_that_of_the_dense_weights() -> None:
    optimizer = GroupedOptimizer(LazySGD(1.0), LazySGD(2.0))
    optimizer.learning_rate = 0.5
    assert (float(optimizer.learning_rate), float(optimizer.embeddings.learning_rate)) == (0.5, 1.0)


def test_it_refuses_what_is_no_pair_of_optimizers() -> None:
    one = LazySGD()
    with pytest.raises(ValueError, match="two optimisers"):
        GroupedOptimizer(one, one)
    with pytest.raises(TypeError, match=r"`dense` must be Optimizer\. Received: dense='adam'"):
        GroupedOptimizer(one, "adam")


@pytest.mark.parametrize("scaled", [False, True])
def test_a_model_trains_by_groups_and_under_a_loss_scale(scaled: bool) -> None:
    optimizer = GroupedOptimizer(RowWiseAdagrad(0.5), LazyAdam(0.0), global_clipnorm=10.0)
    given = keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=4.0) if scaled else optimizer
    model = small.model(given, eager=True)
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(small.table(), epochs=1, batch_size=25, verbose=0)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert is_table(variable) == (variable.numpy() != old).any(), variable.name  # a dense rate of 0
    assert int(given.iterations) == 2


def test_a_callback_sets_the_dense_weights_rate() -> None:
    model = small.model(GroupedOptimizer(RowWiseAdagrad(0.5), LazyAdam(0.1)), eager=True)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(small.table(), epochs=2, verbose=0, callbacks=[schedule])
    np.testing.assert_allclose(history.history["lr"], [0.05, 0.025], rtol=1e-6)
    assert float(model.optimizer.embeddings.learning_rate) == 0.5


def test_a_traced_step_of_several_variables_is_the_eager_one() -> None:
    made = []
    for traced in (False, True):
        variables, grads = gradients()
        optimizer = GroupedOptimizer(RowWiseAdagrad(0.3), LazySGD(0.2), global_clipnorm=0.5)
        optimizer.build(variables)
        apply = optimizer.apply_gradients

        def step(grads: list = grads, variables: list = variables, apply: Callable[..., Any] = apply) -> None:
            apply(zip(grads, variables, strict=True))

        (tf.function(step) if traced else step)()
        made.append([variable.numpy() for variable in variables])
    for eager, graph in zip(*made, strict=True):
        np.testing.assert_allclose(graph, eager, atol=1e-6)
