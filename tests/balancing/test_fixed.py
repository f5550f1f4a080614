from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing import FixedWeights

NAMES = ["click", "rating", "age"]


def bound(task_weights: dict[str, Any] | None = None) -> FixedWeights:
    balancer = FixedWeights(task_weights)
    balancer.bind(tasks_named(NAMES))
    return balancer


@pytest.mark.parametrize(
    ("task_weights", "expected", "weights"),
    [
        (None, 2 + 4 + 8, [1, 1, 1]),
        ({"rating": 0.5}, 2 + 0.5 * 4 + 8, [1, 0.5, 1]),
        ({"age": 3, "click": 0}, 0 * 2 + 4 + 3 * 8, [0, 1, 3]),  # by name, not by the order they are given in
        ({"age": np.float32(2)}, 2 + 4 + 2 * 8, [1, 1, 2]),
    ],
)
def test_objective_is_the_weighted_sum(task_weights: Any, expected: float, weights: list[float]) -> None:
    balancer, losses = bound(task_weights), tf.constant([2.0, 4.0, 8.0])
    with tf.GradientTape() as tape:
        tape.watch(losses)
        objective = balancer(losses)
    assert float(objective) == expected
    assert tape.gradient(objective, losses).numpy().tolist() == weights
    assert balancer.current_weights().numpy().tolist() == weights
    assert balancer.weights == []


def test_what_else_is_known_of_a_step_does_not_matter() -> None:
    observed = tf.constant([True, False, True])
    assert float(bound()(tf.constant([2.0, 0.0, 8.0]), observed=observed, gramian=None)) == 10


def test_gradients_are_those_of_the_objective() -> None:
    used, unused = tf.Variable(3.0), tf.Variable(1.0)
    balancer = bound({"rating": 0.5})
    with tf.GradientTape() as tape:
        losses = [used**2, 2 * used, tf.constant(1.0)]
        objective = balancer(tf.stack(losses))
    gradient, nothing = balancer.gradients(SimpleNamespace(tape=tape, objective=objective, variables=[used, unused]))
    assert float(gradient) == 2 * 3 + 0.5 * 2
    assert nothing is None


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "1", None])
def test_a_bad_weight_names_its_task(weight: Any) -> None:
    sentence = f"The weight of task 'click' must be a number of at least 0. Received: given={weight!r}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        FixedWeights({"click": weight})


def test_an_unknown_task_is_named() -> None:
    known = "known: ['click', 'rating', 'age']. Did you mean 'click'?"
    sentence = f"Unknown task ['clck'] in `task_weights` of FixedWeights; {known}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        bound({"clck": 1.0})


def test_some_task_must_count() -> None:
    with pytest.raises(ValueError, match="At least one task must have a weight above 0"):
        bound(dict.fromkeys(NAMES, 0.0))
