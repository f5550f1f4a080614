"""Events that follow other events: the order of their probabilities, and their precision."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, loss_of
from tfmtl._keras import keras, tf
from tfmtl.tasks import BinaryClassification, EntireSpaceConversion, HeadInputs, Regression, Retrieval, Task
from tfmtl.tasks.binary_task import given_parent, joint_logit, share_with_parent
from tfmtl.tasks.dependencies import in_order


def sigmoid(z: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def column(values: Any) -> tf.Tensor:
    return tf.constant(values, tf.float32)[:, tf.newaxis]


def test_the_joint_logit_is_that_of_the_product() -> None:
    first, second = np.random.default_rng(1).normal(scale=3, size=(2, 50))
    product = sigmoid(first) * sigmoid(second)
    found = joint_logit(column(first), column(second))[:, 0]
    np.testing.assert_allclose(found, np.log(product / (1 - product)), rtol=1e-5, atol=1e-5)


@dataclasses.dataclass
class Summary:
    """The statistics of a label."""

    count: int
    mean: float
    deviation: float = 0.0


@pytest.mark.parametrize(
    ("click", "buy", "share"),
    [
        (Summary(100, 0.2), Summary(80, 0.1), 0.25),  # 20 clicks among 80 labels
        (Summary(100, 0.2), Summary(20, 0.1), 1.0),
        (Summary(100, 0.2), Summary(10, 0.1), 1.0),  # a share is at most 1
        (Summary(100, 0.0), Summary(80, 0.0), None),
    ],
)
def test_the_share_of_labels_with_the_preceding_event(click: Summary, buy: Summary, share: float | None) -> None:
    assert share_with_parent({"click": click, "buy": buy}, "buy", "click") == share
    assert share_with_parent({"buy": buy}, "buy", "click") is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1e4, 1e4, 1e4 - np.log(2)),  # 1 - p = 2 exp(-1e4)
        (1e4, -1e4, -1e4),
        (-1e4, -1e4, -2e4),
        (1e4, 0.3, 0.3),  # a certain preceding event: the logit of the other
        (20.0, 20.0, 20 - np.log(2)),  # 1 - p = 4e-9 is below the precision of 1 - 0.99... in float32
    ],
)
def test_extreme_logits_keep_their_digits_and_gradients(first: float, second: float, expected: float) -> None:
    inputs = tf.constant([[first, second]])
    for label in (0.0, 1.0):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            logit = joint_logit(inputs[:, :1], inputs[:, 1:])
            loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=[[label]], logits=logit)
        assert float(logit[0, 0]) == pytest.approx(expected, rel=1e-6)
        gradient = tape.gradient(loss, inputs).numpy()
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() <= 1
        assert np.isfinite(loss).all()


def test_weights_given_a_parent_are_those_of_its_rows() -> None:
    labels = {"click": tf.constant([1.0, 0.0, NAN])}
    assert given_parent(tf.constant([2.0, 3.0, 4.0]), labels, "click").numpy().tolist() == [2, 0, 0]
    with pytest.raises(ValueError, match=re.escape("Unknown label ['clik'] in the batch; known: ['click'].")):
        given_parent(tf.ones([3]), labels, "clik")


def test_the_order_penalty_is_its_definition() -> None:
    """Weights 1, 3, 0; sigma 1/2, 3/4, 1/2, of the preceding event 1/4, 4/5, 1/8: only row 1 is penalized."""
    outputs = [[0.0, -np.log(3)], [np.log(3), np.log(4)], [0.0, -np.log(7)]]
    labels, weights = [1, 0, NAN], [1.0, 3.0, 0.0]
    plain, _, _ = loss_of(BinaryClassification("buy"), labels, [row[:1] for row in outputs], weights)
    task = BinaryClassification("buy", after="click", order_penalty=8.0)
    found, total, gradient = loss_of(task, labels, outputs, weights)
    assert found - plain == pytest.approx(8 * (1 * (1 / 2 - 1 / 4)) / 4, rel=1e-5)
    assert total == 4
    # First row: the gradient of the penalty is 8 * 1/4 * sigma (1 - sigma), negative for the preceding event.
    assert gradient[0, 1] == pytest.approx(-8 / 4 * (1 / 4) * (3 / 4), rel=1e-5)
    assert gradient[0, 0] == pytest.approx((1 / 2 - 1) / 4 + 8 / 4 * (1 / 4), rel=1e-5)
    np.testing.assert_array_equal(gradient[1:, 1], 0)
    np.testing.assert_allclose(task.predict(tf.constant(outputs, tf.float32)), [1 / 2, 3 / 4, 1 / 2], rtol=1e-6)


def connected(tasks: list[Task]) -> HeadInputs:
    """Connect tasks one by one and return the inputs of the next head."""
    query, pair = keras.Input([3], name="query"), {t.name: keras.Input([2], name=t.name) for t in tasks}
    encodings = HeadInputs(query, query, pair)
    for task in tasks:
        logit = task.event_logit(task.connect(encodings))
        logits = {**encodings.logits, **({} if logit is None else {task.name: logit})}
        encodings = HeadInputs(query, query, pair, logits=logits)
    return encodings


def test_a_task_can_only_come_after_an_event() -> None:
    tasks = [Regression("stars"), BinaryClassification("click")]
    encodings = connected(tasks)
    assert list(encodings.logits) == ["click"]
    encodings = HeadInputs(encodings.query, None, {"buy": keras.Input([2])}, logits=encodings.logits)
    sentence = "Task 'buy' comes after 'stars', which is no event. Received: events=['click']."
    for kind in (EntireSpaceConversion, lambda *a, **k: BinaryClassification(*a, **k, order_penalty=1.0)):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            kind("buy", after="stars").connect(encodings)


def test_tasks_come_in_the_order_of_their_dependence() -> None:
    names = ["buy", "stars", "cart", "click"]
    tasks = [EntireSpaceConversion("buy", "cart"), Regression("stars"), EntireSpaceConversion("cart", "click")]
    found = [task.name for task in in_order([*tasks, BinaryClassification("click")])]
    assert sorted(found) == sorted(names)
    assert found.index("click") < found.index("cart") < found.index("buy")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: in_order([EntireSpaceConversion("buy", "click"), Regression("stars")]),
            "Task 'buy' comes after 'click', which is not among ['buy', 'stars'].",
        ),
        (
            lambda: in_order([EntireSpaceConversion("buy", "cart"), EntireSpaceConversion("cart", "buy")]),
            "No label can come after itself: buy -> cart -> buy.",
        ),
        (lambda: in_order([EntireSpaceConversion("buy", "buy")]), "No label can come after itself: buy -> buy."),
        (
            lambda: in_order([EntireSpaceConversion("buy", "click", scope="query"), BinaryClassification("click")]),
            "Task 'buy' reads the query alone and cannot come after 'click', which reads pairs.",
        ),
        (
            lambda: BinaryClassification("buy", after="click"),
            "`order_penalty` of task 'buy' must be above 0 with `after`, and 0 without. "
            "Received: after='click', order_penalty=0.0.",
        ),
        (lambda: BinaryClassification("buy", order_penalty=1.0), "must be above 0 with `after`, and 0 without."),
        (lambda: BinaryClassification("buy", after="click", order_penalty=-1.0), "must be above 0 with `after`"),
        (
            lambda: EntireSpaceConversion("buy", "click", serve="all"),  # type: ignore[arg-type]
            "`serve` of task 'buy' must be 'entire' or 'conditional'. Received: serve='all'.",
        ),
    ],
)
def test_bad_argument_is_named(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


def test_most_tasks_are_no_events() -> None:
    assert Retrieval("seen").event_logit({}) is None
    assert Regression("stars").event_logit(tf.zeros([1, 1])) is None
