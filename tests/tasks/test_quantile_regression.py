"""Quantile regression: pinball loss, order of the outputs, served values, reports."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import keras, tf
from tfmtl.tasks import HeadInputs, LossInputs, QuantileRegression
from tfmtl.tasks.ascending import Ascending, before_ascending

RNG = np.random.default_rng(2)


def test_golden_loss() -> None:
    """Targets (5 - 3) / 2 = 1 and -1. Errors 1, -1 give 0.2 * 1, 0.4 * 1; errors -1, -3 give 0.8 * 1, 0.4 * 3."""
    task = QuantileRegression("t", offset=3, scale=2, quantiles=[0.2, 0.6])
    loss, weight, gradient = loss_of(task, [5, 1], [[0, 2], [0, 2]], [1.0, 3.0])
    assert loss == pytest.approx(((0.2 + 0.4) / 2 + 3 * (0.8 + 1.2) / 2) / 4)
    assert weight == 4
    # -tau above the quantile and 1 - tau below it, divided by two quantiles and by the weight.
    np.testing.assert_allclose(gradient, np.array([[-0.2, 0.4], [3 * 0.8, 3 * 0.4]]) / 8, rtol=1e-6)


def test_the_best_constants_are_the_quantiles_of_the_labels() -> None:
    task, labels = QuantileRegression("t"), RNG.exponential(size=101)
    best = task.constant_prediction(labels, np.ones(101), 101)
    np.testing.assert_array_equal(best[0], np.quantile(labels, task.quantiles, method="inverted_cdf"))
    loss = loss_of(task, labels, best, np.ones(101))[0]
    for column in range(3):
        for shift in (-0.05, 0.05):
            assert loss < loss_of(task, labels, best + shift * np.eye(3)[column], np.ones(101))[0]


@pytest.mark.parametrize("extreme", [0.0, 1e4])
def test_outputs_ascend_for_any_input(extreme: float) -> None:
    inputs = tf.constant(RNG.normal(size=[20, 5]) * extreme, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = Ascending()(inputs)
    assert (np.diff(outputs) >= 0).all()
    assert np.isfinite(tape.gradient(outputs, inputs)).all()


def test_ascending_outputs_have_inputs() -> None:
    outputs = [-3.0, -2.5, 10.0, 300.0]
    np.testing.assert_allclose(Ascending()(tf.constant([before_ascending(outputs)]))[0], outputs, rtol=1e-5)
    equal = Ascending()(tf.constant([before_ascending([1.0, 1.0])])).numpy()[0]
    np.testing.assert_allclose(equal, [1, 1.001], rtol=1e-5)


@pytest.mark.parametrize("transform", ["none", "log1p"])
@pytest.mark.parametrize("rows", [999, 1500])  # above 1,000 distinct labels their shares are unknown
def test_the_head_starts_at_the_quantiles_of_the_training_labels(transform: Any, rows: int) -> None:
    labels = np.exp(RNG.normal(size=rows)) - 1 if transform == "log1p" else RNG.normal(3.0, 2.0, rows)
    task = QuantileRegression.from_statistics("t", summary(labels), transform=transform, units=[])
    query = keras.Input([3])
    output = task.connect(HeadInputs(query, None, {"t": query}, labels={"t": summary(labels)}))  # type: ignore[dict-item]
    served = task.predict(keras.Model(query, output)(tf.zeros([1, 3]))).numpy()[0]
    expected = np.quantile(labels, task.quantiles)
    np.testing.assert_allclose(served, expected, atol=0.15 * labels.std())
    assert isinstance(task, QuantileRegression)


def test_served_quantiles_keep_their_order_and_are_inside_the_range() -> None:
    options: dict[str, Any] = {"offset": 1.0, "scale": 2.0, "transform": "log1p", "clip": (0.0, 50.0)}
    outputs = tf.constant([[-9.0, 0.5, 9.0]])
    expected = [0.0, np.e**2 - 1, 50.0]
    np.testing.assert_allclose(QuantileRegression("t", **options).predict(outputs)[0], expected, rtol=1e-6)
    task = QuantileRegression("t", **options, serve=0.5)
    np.testing.assert_allclose(task.predict(outputs), [expected[1]], rtol=1e-6)


def test_streaming_metrics_are_those_of_the_central_quantile() -> None:
    task = QuantileRegression("t", quantiles=[0.1, 0.4, 0.9])
    task.update_metrics(tf.constant([3.0, 1.0]), tf.constant([[0.0, 2.0, 9.0]] * 2), tf.constant([3.0, 1.0]))
    assert {metric.name: float(metric.result()) for metric in task.metrics} == {"t_rmse": 1, "t_mae": 1}


def test_a_report_measures_the_served_quantiles() -> None:
    labels, weights = np.array([1.0, 4.0]), np.ones(2)
    every = QuantileRegression("t", quantiles=[0.2, 0.5]).report(labels, np.array([[0.0, 2.0]] * 2), weights)
    assert every["pinball_0.5"] == pytest.approx((0.5 + 1) / 2)
    assert (every["coverage_0.5"], every["interval_coverage"], every["mae"]) == (0.5, 0.5, 1.5)
    one = QuantileRegression("t", quantiles=[0.2, 0.5], serve=0.5).report(labels, np.array([2.0, 2.0]), weights)
    assert one == {name: every[name] for name in ("pinball_0.5", "coverage_0.5", "mae")} | {"pinball": 0.75}


def test_one_number_per_row_counts_for_every_quantile() -> None:
    """Baselines predict one number: 3 against 1 is above both quantiles, with losses 0.8 * 2 and 0.5 * 2."""
    found = QuantileRegression("t", quantiles=[0.2, 0.5]).report(np.array([1.0]), np.array([3.0]), np.ones(1))
    assert (found["pinball"], found["interval_width"]) == (pytest.approx((1.6 + 1) / 2), 0)


def test_distillation_compares_every_quantile() -> None:
    task, teacher = QuantileRegression("t"), tf.constant([[0.0, 1.0, 2.0], [9.0, 9.0, 9.0]])
    loss = task.distillation_loss(teacher + tf.range(1.0, 4.0), teacher, tf.constant([1.0, 0.0]), LossInputs({}), 2.0)
    assert float(loss) == pytest.approx((1 + 4 + 9) / 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"quantiles": [0.5, 1.0]},
            "`quantiles` of task 't' must be ascending numbers between 0 and 1, both",
        ),
        ({"quantiles": [0.0, 0.5]}, "Received: quantiles=[0.0, 0.5]."),
        ({"quantiles": [0.5, 0.1]}, "Received: quantiles=[0.5, 0.1]."),
        ({"quantiles": []}, "Received: quantiles=[]."),
        ({"serve": 0.2}, "`serve` of task 't' must be one of [0.1, 0.5, 0.9], or None. Received: serve=0.2."),
    ],
)
def test_bad_arguments_are_named(arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        QuantileRegression("t", **arguments)
