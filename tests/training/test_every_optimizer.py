"""What holds for every optimiser of the package."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.training.sparse import (
    OF_LARGE_TABLES,
    OPTIMIZERS,
    START,
    WIDTH,
    draw,
    random_steps,
    run,
    shapes_in,
    table,
)  # fmt: skip
from tfmtl._keras import keras, tf

EVERY = pytest.mark.parametrize("name", OPTIMIZERS)


@EVERY
def test_untouched_rows_are_bit_identical(name: str) -> None:
    for weight_decay in (None, 0.5):
        optimizer = OF_LARGE_TABLES[name]()
        optimizer.weight_decay = weight_decay
        found = run(optimizer, draw([3, 1, 3], [3], [1]))
        np.testing.assert_array_equal(found[[0, 2, 4, 5, 6]], START[[0, 2, 4, 5, 6]])
        assert (found[[1, 3]] != START[[1, 3]]).all()


@EVERY
@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 0.5}])
def test_no_tensor_of_a_large_table_is_made(name: str, options: dict[str, float]) -> None:
    size = 20_011  # beyond the tables that are updated as a whole
    weights, optimizer = tf.Variable(tf.zeros([size, WIDTH]), name="user/embeddings"), OPTIMIZERS[name](**options)
    optimizer.build([weights])

    @tf.function
    def step(rows: tf.Tensor, values: tf.Tensor) -> None:
        optimizer.apply_gradients([(tf.IndexedSlices(values, rows, tf.constant([size, WIDTH])), weights)])

    found = shapes_in(step, tf.TensorSpec([5], tf.int32), tf.TensorSpec([5, WIDTH]))
    assert [5, WIDTH] in [shape for _, shape in found]  # it looks where the work is done
    assert [(kind, shape) for kind, shape in found if shape and shape[0] in (size, size * WIDTH)] == []


def test_the_look_into_a_graph_finds_what_keras_makes_of_a_table() -> None:
    weights, optimizer = tf.Variable(tf.zeros([20_011, WIDTH])), keras.optimizers.SGD(0.1)
    optimizer.build([weights])

    @tf.function
    def step(values: tf.Tensor) -> None:
        gradient = tf.IndexedSlices(values, tf.constant([1, 1, 2, 3, 4]), tf.constant([20_011, WIDTH]))
        optimizer.apply_gradients([(gradient, weights)])

    assert [20_011, WIDTH] in [shape for _, shape in shapes_in(step, tf.TensorSpec([5, WIDTH]))]


@EVERY
def test_a_schedule_is_followed(name: str) -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.0])  # both parts of a group take it
    steps = draw([1, 3], [0])
    found, start = run(OF_LARGE_TABLES[name](schedule), steps), run(OF_LARGE_TABLES[name](0.5), steps[:1])
    np.testing.assert_array_equal(found[[0, 2]], start[[0, 2]])
    np.testing.assert_array_equal(found[[1, 3]], start[[1, 3]])
    assert np.abs(start - START).max() > 0.01


@EVERY
def test_its_configuration_makes_the_same_steps(name: str) -> None:
    optimizer = OF_LARGE_TABLES[name](0.3, global_clipnorm=0.5)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again is not optimizer
    assert again.get_config() == optimizer.get_config()
    steps = random_steps(5)
    np.testing.assert_array_equal(run(again, steps), run(optimizer, steps))


@EVERY
def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(name: str, tmp_path: pathlib.Path) -> None:
    steps = random_steps(8)
    optimizer, weights = OF_LARGE_TABLES[name](), table()
    run(optimizer, steps[:5], weights)
    path = tf.train.Checkpoint(optimizer=optimizer, weights=weights).save(str(tmp_path / "c"))
    expected = run(optimizer, steps[5:], weights)
    later, fresh = OF_LARGE_TABLES[name](), tf.Variable(tf.zeros_like(weights), name="user/embeddings")
    later.build([fresh])
    tf.train.Checkpoint(optimizer=later, weights=fresh).restore(path).assert_consumed()
    assert int(later.iterations) == 5
    np.testing.assert_array_equal(run(later, steps[5:], fresh), expected)


@EVERY
def test_its_variables_are_its_whole_state(name: str) -> None:
    steps = random_steps(8)
    optimizer, weights = OF_LARGE_TABLES[name](), table()
    run(optimizer, steps[:5], weights)
    later, copy = OF_LARGE_TABLES[name](), tf.Variable(weights, name="user/embeddings")
    later.build([copy])
    later.set_weights([variable.numpy() for variable in optimizer.variables])
    np.testing.assert_array_equal(run(later, steps[5:], copy), run(optimizer, steps[5:], weights))


@EVERY
def test_the_loss_scale_skips_steps_that_are_not_finite(name: str) -> None:
    scaled = keras.mixed_precision.LossScaleOptimizer(OF_LARGE_TABLES[name](), initial_scale=8.0)
    weights, plain, steps = table(), table(), random_steps(3)
    optimizer = OF_LARGE_TABLES[name]()
    optimizer.build([plain])

    @tf.function
    def step(rows: tf.Tensor, values: tf.Tensor) -> None:
        gradient = tf.IndexedSlices(8.0 * values, rows, tf.constant(START.shape))
        scaled.apply_gradients(zip(scaled.get_unscaled_gradients([gradient]), [weights], strict=True))

    for rows, values in steps:
        scaled.get_scaled_loss(tf.constant(1.0))
        step(tf.constant(rows), tf.constant(values, tf.float32))
    expected = run(optimizer, steps, plain)
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-6)
    step(tf.constant([1, 1]), tf.fill([2, WIDTH], float("nan")))
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-6)


@EVERY
def test_a_traced_step_is_the_eager_one(name: str) -> None:
    weights, optimizer, steps = table(), OF_LARGE_TABLES[name](), random_steps(4)
    optimizer.build([weights])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, WIDTH])])
    def step(rows: tf.Tensor, values: tf.Tensor) -> None:
        optimizer.apply_gradients([(slices_of(rows, values), weights)])

    def slices_of(rows: tf.Tensor, values: tf.Tensor) -> tf.IndexedSlices:
        return tf.IndexedSlices(values, rows, tf.constant(START.shape))

    for rows, values in steps:
        step(tf.constant(rows), tf.constant(values, tf.float32))
    np.testing.assert_allclose(weights.numpy(), run(OF_LARGE_TABLES[name](), steps), atol=1e-6)


RUN = """
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # some distributions install a package of this name
sys.modules["tests"].__path__ = ["tests"]
runpy.run_module("tests.training.distributed", run_name="__main__")
"""


def test_two_replicas_together_make_the_step_of_one() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", RUN, *OPTIMIZERS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == sorted(OPTIMIZERS)
    assert {name: difference for name, difference in found.items() if difference > 2e-6} == {}
