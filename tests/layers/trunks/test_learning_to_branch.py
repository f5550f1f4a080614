from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.probes import PAIR, TASKS, dense, forward, randomize, softmax
from tfmtl._keras import keras, seed_of, tf
from tfmtl.layers import LearningToBranch

SMALL: dict[str, Any] = {"units": [4, 3], "num_nodes": 2, "activation": "tanh"}


def outputs(values: dict[str, np.ndarray], choices: list[np.ndarray]) -> np.ndarray:
    """Return the tasks' sums [tasks, B, units], given the children's weights of their parents at each level."""
    read = [PAIR] * 2
    for level, choice in enumerate(choices):
        nodes = [np.tanh(dense(read[c], values, f"level_{level}", c)) for c in range(2)]
        read = [sum(row[p] * nodes[p] for p in range(2)) for row in choice]
    return np.stack(read)


def test_serving_takes_the_most_likely_parents() -> None:
    layer = LearningToBranch(TASKS, **SMALL)
    values = randomize(layer, PAIR)
    chosen = [values[f"logits_{level}"].argmax(1) for level in (0, 1)]
    assert {tuple(parents) for parents in chosen} != {(0, 0), (0, 0, 0)}  # otherwise the test would see no choice
    found = layer(PAIR, training=False)
    for k, task in enumerate(TASKS):
        expected = outputs(values, [np.eye(2)[parents] for parents in chosen])[k]
        np.testing.assert_allclose(found[task], expected, rtol=1e-4, atol=1e-6)
    assert layer.branches() == [parents.tolist() for parents in chosen]


def test_training_mixes_parents_by_gumbel_softmax() -> None:
    layer = LearningToBranch(
        TASKS, **SMALL, initial_temperature=4.0, final_temperature=0.25, decay_steps=2, seed=6
    )  # fmt: skip
    values = randomize(layer, PAIR)
    for step, temperature in enumerate([4.0, 1.0, 0.25, 0.25], start=1):
        choices = []
        for level in (0, 1):
            logits = values[f"logits_{level}"]
            uniform = tf.random.stateless_uniform(logits.shape, [seed_of(f"level_{level}", 6), step]).numpy()
            choices.append(softmax((logits - np.log(-np.log(uniform))) / temperature))
        found = layer(PAIR, training=True)
        for k, task in enumerate(TASKS):
            np.testing.assert_allclose(found[task], outputs(values, choices)[k], rtol=1e-3, atol=1e-5)


def test_draws_choose_parents_with_the_softmax_of_the_logits() -> None:
    """Gumbel-max: the largest of theta + gumbel is parent p with probability softmax(theta)_p."""
    layer = LearningToBranch(["a"], units=[1], num_nodes=3, initial_temperature=1e-3, final_temperature=1e-3)
    layer(PAIR)
    (logits,) = layer._logits
    logits.assign([[0.0, 1.0, -1.0]])
    kernel, bias = layer._nodes[0].trainable_weights
    kernel.assign(tf.zeros([5, 3]))
    bias.assign([[0.0], [1.0], [2.0]])
    step = tf.function(lambda: layer(PAIR[:1], training=True)["a"][0, 0])
    drawn = np.round([float(step()) for _ in range(600)]).astype(int)
    expected = softmax(logits.numpy()[0])
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 600, expected, atol=0.06)  # a deviation of 0.02


def test_temperature_falls_geometrically() -> None:
    layer = LearningToBranch(TASKS, initial_temperature=8.0, final_temperature=0.5, decay_steps=4)
    found = [float(layer.temperature(tf.constant(step))) for step in range(7)]
    np.testing.assert_allclose(found, [8, 4, 2, 1, 0.5, 0.5, 0.5], rtol=1e-5)


def test_low_temperature_chooses_and_high_temperature_averages() -> None:
    cold, hot = (
        LearningToBranch(TASKS, **SMALL, initial_temperature=t, final_temperature=t, seed=2) for t in (1e-3, 1e4)
    )
    gates = [forward(layer, PAIR)[2].gated[0].gates.numpy() for layer in (cold, hot)]
    np.testing.assert_allclose(np.sort(gates[0], 2)[0], [[0, 1]] * 3, atol=1e-3)
    np.testing.assert_allclose(gates[1], 0.5, atol=1e-2)


def test_draws_are_a_function_of_seed_and_step() -> None:
    def steps(layer: LearningToBranch, count: int = 3) -> list[np.ndarray]:
        return [layer(PAIR, training=True)["a"].numpy() for _ in range(count)]

    original = LearningToBranch(TASKS, **SMALL)
    first = steps(original)
    for left, right in itertools.combinations(first, 2):
        assert np.abs(left - right).max() > 1e-3
    resumed = LearningToBranch.from_config(original.get_config())
    resumed(PAIR)
    resumed.set_weights(original.get_weights())
    np.testing.assert_array_equal(steps(resumed, 1)[0], steps(original, 1)[0])


def test_levels_draw_differently() -> None:
    layer = LearningToBranch(TASKS, units=[4, 4, 4], num_nodes=3)  # every level has logits [3, 3], all 0
    layer(PAIR)
    choices = [layer._chosen(level, layer._logits[level], tf.constant(1)).numpy() for level in range(3)]
    for left, right in itertools.combinations(choices, 2):
        assert np.abs(left - right).max() > 0.01


def test_inference_counts_no_step() -> None:
    layer = LearningToBranch(TASKS, **SMALL)
    steps = []
    for training in (False, True, None, True):
        layer(PAIR, training=training)
        steps.append(int(layer._step))
    assert steps == [0, 1, 1, 2]


def test_half_precision_keeps_the_logits() -> None:
    """In float16, 1 and 1.0001 are equal."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = LearningToBranch(["a"], units=[2], num_nodes=2)
        layer(PAIR)
        layer._logits[0].assign([[1.0, 1.0001]])
        found = layer(PAIR)["a"]
        hidden = layer._nodes[0](tf.cast(PAIR, tf.float16))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert layer.branches() == [[1]]
    np.testing.assert_array_equal(found, hidden[:, 1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_nodes": 0}, "`num_nodes` must be a positive integer. Received: num_nodes=0."),
        ({"decay_steps": 0}, "`decay_steps` must be a positive integer. Received: decay_steps=0."),
        (
            {"final_temperature": 0},
            "Temperatures must satisfy 0 < final_temperature <= initial_temperature. Received: final_temperature=0, "
            "initial_temperature=5.0.",
        ),
        ({"initial_temperature": 0.01}, "Temperatures must satisfy 0 < final_temperature <= initial_temperature."),
        ({"initial_temperature": float("inf")}, "Temperatures must satisfy"),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        LearningToBranch(TASKS, **arguments)


def test_branches_need_a_built_trunk() -> None:
    with pytest.raises(ValueError, match="A trunk has branches once it is built"):
        LearningToBranch(TASKS).branches()
