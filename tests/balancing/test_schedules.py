from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights
from tfmtl.balancing.schedules import (
    CosineWeight,
    LinearWeight,
    PiecewiseConstantWeight,
    ScheduledWeights,
    WeightSchedule,
)

NAMES = ["click", "rating", "age"]
SCHEDULES: list[WeightSchedule] = [
    LinearWeight(2, 0.5, epochs=3, first_epoch=1),
    CosineWeight(0.5, 2, epochs=4, first_epoch=2),
    PiecewiseConstantWeight({4: 0.25, 0: 1, 2: 3.0}),
]


def bound(schedules: dict[str, Any]) -> ScheduledWeights:
    balancer = ScheduledWeights(schedules)
    balancer.bind(tasks_named(NAMES))
    return balancer


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (SCHEDULES[0], [2, 2, 1.5, 1, 0.5, 0.5]),
        (CosineWeight(1, 0, epochs=2), [1, 0.5, 0, 0]),
        # x = 0, 1/4, 1/2, 3/4, 1 from epoch 2 on: (1 - cos(pi / 4)) / 2 = 0.1464466.
        (SCHEDULES[1], [0.5, 0.5, 0.5, 0.5 + 1.5 * 0.1464466, 1.25, 2 - 1.5 * 0.1464466, 2, 2]),
        (SCHEDULES[2], [1, 1, 3, 3, 0.25, 0.25]),
    ],
)
def test_golden_weights_by_epoch(schedule: WeightSchedule, expected: list[float]) -> None:
    np.testing.assert_allclose([schedule.at(epoch) for epoch in range(len(expected))], expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_settled_weight_changes_no_more(schedule: WeightSchedule) -> None:
    last = schedule.at(schedule.settled)
    assert [schedule.at(schedule.settled + later) for later in (1, 10, 1000)] == [last] * 3
    assert schedule.at(schedule.settled - 1) != last


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_survives_json(schedule: WeightSchedule) -> None:
    config = json.dumps(keras.saving.serialize_keras_object(schedule))
    again = keras.saving.deserialize_keras_object(json.loads(config))
    assert again == schedule
    assert json.dumps(keras.saving.serialize_keras_object(again)) == config
    with pytest.raises(AttributeError):
        again.start = 3  # frozen


def test_golden_objective_and_gradients_by_epoch() -> None:
    balancer, losses = bound({"rating": SCHEDULES[0], "age": 0.5}), tf.constant([2.0, 4.0, 8.0])
    step = tf.function(lambda given: balancer(given, training=True))
    for rating in (2, 2, 1.5, 1, 0.5, 0.5, 0.5):
        with tf.GradientTape() as tape:
            tape.watch(losses)
            objective = step(losses)
        assert float(objective) == 2 + 4 * rating + 8 * 0.5
        assert tape.gradient(objective, losses).numpy().tolist() == [1, rating, 0.5]
        assert balancer.current_weights().numpy().tolist() == [1, rating, 0.5]
        balancer.end_epoch()


def test_numbers_are_fixed_weights() -> None:
    numbers, losses = {"rating": 0.25, "click": np.float32(2)}, tf.constant([2.0, 4.0, 8.0])
    fixed = FixedWeights(numbers)
    fixed.bind(tasks_named(NAMES))
    assert float(bound(numbers)(losses)) == float(fixed(losses))


def test_the_epoch_is_state() -> None:
    one, other = (bound({"rating": SCHEDULES[0]}) for _ in range(2))
    for _ in range(3):
        one.end_epoch()
    other.set_weights(one.get_weights())
    assert other.current_weights().numpy().tolist() == one.current_weights().numpy().tolist() == [1, 1, 1]


def test_the_log_of_a_fit_shows_the_schedule() -> None:
    model = small.model(balancer=ScheduledWeights({"liked": LinearWeight(1, 0, epochs=2)}))
    log = model.fit(small.table(), batch_size=25, epochs=2, verbose=0).history
    log2 = model.fit(small.table(), batch_size=25, epochs=1, verbose=0).history  # the epochs go on
    assert log["liked_weight"] + log2["liked_weight"] == [1, 0.5, 0]
    assert log["rating_weight"] == [1, 1]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LinearWeight(-1, 0, 2), "`start` must be a number of at least 0. Received: given=-1."),
        (lambda: CosineWeight(1, float("inf"), 2), "`end` must be a number of at least 0. Received: given=inf."),
        (lambda: LinearWeight(1, 0, 0), "`epochs` must be a positive integer. Received: epochs=0."),
        (lambda: LinearWeight(1, 0, 2, -1), "`first_epoch` must be an integer of at least 0."),
        (lambda: PiecewiseConstantWeight({}), "`weights` must map epochs from 0 on, and 0 among them, to weights."),
        (
            lambda: PiecewiseConstantWeight({1: 1.0}),
            "`weights` must map epochs from 0 on, and 0 among them, to weights.",
        ),
        (lambda: PiecewiseConstantWeight({0: 1.0, -1: 1.0}), "`weights` must map epochs from 0 on"),
        (lambda: PiecewiseConstantWeight({0: 1.0, "x": 1.0}), "`weights` must map epochs from 0 on"),
        (lambda: PiecewiseConstantWeight({0: None}), "The weight of epoch 0 must be a number of at least 0."),
        (lambda: ScheduledWeights({"click": "1"}), "The weight of task 'click' must be a number of at least 0."),
        (lambda: bound({"clck": 1}), "Unknown task ['clck'] in `schedules` of ScheduledWeights; known:"),
    ],
)
def test_bad_arguments_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
