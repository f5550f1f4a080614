from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing.famo import FAMO, logit_gradient

ALL = [True, True]


def bound(*arguments: Any, tasks: int = 2) -> FAMO:
    balancer = FAMO(*arguments)
    balancer.bind(tasks_named(["click", "rating", "age"][:tasks]))
    return balancer


def learn(balancer: FAMO, before: Any, after: Any, observed: list[bool] | None = None) -> np.ndarray:
    mask = tf.constant(observed or [True] * len(before))
    balancer.after_step(tf.constant(before, tf.float32), tf.constant(after, tf.float32), mask)
    logits: np.ndarray = balancer.logits.numpy()
    return logits.copy()


def test_golden_objective_and_weights() -> None:
    # z = (3/4, 1/4), L = (3, 1/2): z / L = (1/4, 1/2), c = 4/3; c (3/4 log 3 + 1/4 log 1/2), weights (1/3, 2/3).
    balancer = bound()
    balancer.logits.assign([np.log(3), 0])
    value = balancer(tf.constant([3.0, 0.5]), training=True)
    assert float(value) == pytest.approx(4 / 3 * (0.75 * np.log(3) + 0.25 * np.log(0.5)), rel=1e-5)
    np.testing.assert_allclose(balancer.current_weights(), [1 / 3, 2 / 3], rtol=1e-5)


def test_the_minimum_loss_is_subtracted() -> None:
    balancer = bound(0.1, 0.0, {"rating": 1.0})
    balancer(tf.constant([2.0, 1.5]), training=True)  # 2 and 1/2 above the minima: weights in proportion to 1/2 and 2
    np.testing.assert_allclose(balancer.current_weights(), [0.2, 0.8], rtol=1e-5)
    other = bound(0.1, 0.0)
    for _ in range(2):
        np.testing.assert_allclose(
            learn(balancer, [2.0, 1.5], [1.0, 1.25]), learn(other, [2.0, 0.5], [1.0, 0.25]), atol=1e-6
        )


def test_golden_gradient_of_the_logits() -> None:
    # z = (1/4, 3/4), d = (2, 1): J^T d = z (d - z.d), z.d = 5/4, so (3/16, -3/16).
    logits = tf.constant([0.0, np.log(3)], tf.float32)
    found = logit_gradient(logits, tf.constant([2.0, 1.0]), tf.constant(ALL))
    np.testing.assert_allclose(found, [3 / 16, -3 / 16], rtol=1e-6)


def test_the_gradient_is_the_product_with_the_jacobian_of_softmax() -> None:
    logits, fell = tf.constant([0.3, -1.0, 2.0]), tf.constant([0.5, -0.25, 0.125])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        z = tf.nn.softmax(logits)
    expected = tape.gradient(z, logits, output_gradients=fell)
    np.testing.assert_allclose(logit_gradient(logits, fell, tf.constant([True] * 3)), expected, rtol=1e-5, atol=1e-7)


def test_logits_follow_adam_with_l2() -> None:
    random = np.random.default_rng(0)
    balancer = bound(0.1, 0.25, tasks=3)
    x, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(1, 6):
        before, after = random.exponential(size=(2, 3))
        z = np.exp(x) / np.exp(x).sum()
        gradient = (np.diag(z) - np.outer(z, z)) @ (np.log(before) - np.log(after)) + 0.25 * x
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - 0.1 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(learn(balancer, before, after), x, atol=1e-5)


def test_the_task_that_fell_most_loses_weight() -> None:
    logits = learn(bound(), [4.0, 100.0], [1.0, 99.0])  # by a factor, not by an amount
    assert logits[0] < 0 < logits[1]


def test_losses_that_fall_alike_are_in_balance() -> None:
    np.testing.assert_allclose(learn(bound(), [4.0, 100.0], [2.0, 50.0]), 0, atol=1e-6)


def test_the_scale_of_a_loss_does_not_matter() -> None:
    one, other = bound(), bound()
    for fallen in (0.5, 0.9, 1.2):
        found = learn(one, [1.0, 1.0], [fallen, 0.8])
        np.testing.assert_allclose(found, learn(other, [1e6, 1e-3], [1e6 * fallen, 0.8e-3]), atol=1e-4)


def test_state_of_unobserved_tasks_stays_and_the_others_learn_as_without_them() -> None:
    wide, narrow = bound(tasks=3), bound()
    learn(wide, [1.0, 1.0, 1.0], [0.5, 0.7, 1.5])
    places = [0, 2]
    for name in ("logits", "_momentum", "_velocity", "_updates"):
        getattr(narrow, name).assign(getattr(wide, name).numpy()[places])
    before = [variable.numpy()[1] for variable in wide.weights]
    for _ in range(3):
        logits = learn(wide, [1.0, 0.0, 2.0], [0.5, 0.0, 1.9], [True, False, True])
        np.testing.assert_allclose(logits[places], learn(narrow, [1.0, 2.0], [0.5, 1.9]), rtol=1e-5)
    assert [variable.numpy()[1] for variable in wide.weights] == before


@pytest.mark.parametrize(
    ("after", "observed"), [([0.5, 0.5], [True, False]), ([np.nan, 0.5], ALL), ([0.5, np.inf], ALL)]
)
def test_without_two_losses_to_compare_nothing_is_learned(after: list[float], observed: list[bool]) -> None:
    balancer = bound()
    learn(balancer, [1.0, 1.0], [0.5, 1.0])
    before = [variable.numpy() for variable in balancer.weights]
    learn(balancer, [1.0, 1.0], after, observed)
    for old, new in zip(before, balancer.weights, strict=True):
        np.testing.assert_array_equal(new, old)


def test_it_learns_when_traced() -> None:
    eager, traced = bound(), bound()
    step = tf.function(traced.after_step, jit_compile=True)
    for after in ([0.5, 0.9], [0.7, 0.2], [1.5, 0.2]):
        step(tf.ones([2]), tf.constant(after), tf.constant(ALL))
        np.testing.assert_allclose(traced.logits, learn(eager, [1.0, 1.0], after), rtol=1e-5, atol=1e-7)


def test_in_a_model_it_learns_from_the_losses_of_the_batch_around_the_update() -> None:
    heard: list[tuple[Any, ...]] = []

    class Listening(FAMO):
        def after_step(self, before: tf.Tensor, after: tf.Tensor, observed: tf.Tensor) -> None:
            heard.append((before.numpy(), after.numpy(), observed.numpy()))
            super().after_step(before, after, observed)

    model = small.model(keras.optimizers.SGD(0.05), balancer=Listening(), eager=True)
    model.fit(small.table().assign(mood=None), batch_size=small.ROWS, epochs=3, shuffle=False, verbose=0)
    assert len(heard) == 3
    for (_, after, observed), (before, _, _) in itertools.pairwise(heard):
        np.testing.assert_allclose(after, before, rtol=1e-5)
        assert observed.tolist() == [True, True, True, False]
    assert (heard[0][0] != heard[0][1])[:3].all()
    reference = bound(tasks=3)
    for before, after, _ in heard:
        expected = learn(reference, before[:3], after[:3])
    np.testing.assert_allclose(model.balancer.logits.numpy(), [*expected, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "`learning_rate` must be a number above 0. Received: learning_rate=0."),
        ((0.1, -1), "`weight_decay` must be a number of at least 0. Received: weight_decay=-1."),
        ((0.1, 0, {"click": float("nan")}), "The minimum loss of task 'click' must be a finite number."),
        ((0.1, 0, {"clck": 0}), "Unknown task ['clck'] in `minimum_losses` of FAMO"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        bound(*arguments)
