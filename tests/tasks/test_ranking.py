from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, loss_of, tfrs
from tfmtl._keras import keras, tf
from tfmtl.tasks import (
    BinaryClassification,
    DurationQuantiles,
    HeadInputs,
    HuberRegression,
    MultiClassClassification,
    OrdinalRegression,
    PoissonRegression,
    QuantileRegression,
    Ranking,
    Regression,
    RowLoss,
    TweedieRegression,
    WatchTime,
    ZeroInflatedLognormal,
)

LOG_2 = np.log(2)
TASKS: dict[str, tuple[Ranking, list[list[float]], list[float]]] = {  # task, outputs and labels of three rows
    "binary": (BinaryClassification("t"), [[0.3], [-2.0], [1.5]], [1, 0, 1]),
    "regression": (Regression("t", offset=1.0, scale=2.0), [[0.3], [-2.0], [1.5]], [4.0, -7.0, 0.5]),
    "log1p": (Regression("t", offset=1.0, scale=2.0, transform="log1p"), [[0.3], [-2.0], [1.5]], [4.0, -0.5, 0.5]),
    "huber": (HuberRegression("t", delta=0.5), [[0.3], [-2.0], [1.5]], [0.5, 3.0, 1.0]),
    "poisson": (PoissonRegression("t", dispersion=2.0), [[0.3], [-2.0], [1.5]], [4.0, 0.0, 0.5]),
    "tweedie": (TweedieRegression("t", power=1.25), [[0.3], [-2.0], [1.5]], [4.0, 0.0, 0.5]),
    "lognormal": (ZeroInflatedLognormal("t"), [[0.3, 1, 2], [-2.0, 0, 1], [1.5, 1, 1]], [1.5, 0.5, 2.0]),
    "ordinal": (OrdinalRegression("t", [1, 2, 4]), [[0.3, -1], [-2.0, -3], [1.5, 1]], [1.0, 4.0, 2.0]),
    "watch time": (WatchTime("t", scale=2.0), [[0.3], [-2.0], [1.5]], [4.0, 0.0, 0.5]),
    "duration quantiles": (
        DurationQuantiles("t", "length", [9.0], [[0, 1, 3], [0, 2, 9], [0, 2, 8]]),
        [[0.3, 0], [-2.0, 1], [1.5, 2]],
        [1.0, 3.0, 2.5],
    ),
    "quantile": (QuantileRegression("t"), [[0.3, 1, 2], [-2.0, 0, 1], [1.5, 1, 1]], [1.5, -1.0, 2.0]),
    "multi-class": (MultiClassClassification("t", 3), [[0.3, 1, 2], [-2.0, 0, 1], [1.5, 1, 1]], [2, 0, 1]),
}


@pytest.fixture(params=TASKS.values(), ids=TASKS.keys())
def case(request: pytest.FixtureRequest) -> tuple[Ranking, list[list[float]], list[float]]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("task", "labels", "outputs", "expected"),
    [
        # Rows with a loss of log 2 (a logit of 0) and of -log(1 - 3/4) = 2 log 2 (the logit of 3/4), weights 1 and 3.
        (BinaryClassification("t"), [1, 0], [[0], [np.log(3)]], (LOG_2 + 3 * 2 * LOG_2) / 4),
        # Probabilities 1/8, 2/8, 5/8: losses log 8/5 and log 8.
        (MultiClassClassification("t", 3), [2, 0], [[0, LOG_2, np.log(5)]] * 2, (np.log(8 / 5) + 3 * np.log(8)) / 4),
        # Targets (5 - 3) / 2 = 1 and (1 - 3) / 2 = -1 against 0 and 1: squares 1 and 4.
        (Regression("t", offset=3, scale=2), [5, 1], [[0], [1]], (1 + 3 * 4) / 4),
        # Targets (log e^2 - 1) / 0.5 = 2 and (log 1 - 1) / 0.5 = -2 against 0 and 1: squares 4 and 9.
        (Regression("t", offset=1, scale=0.5, transform="log1p"), [np.exp(2) - 1, 0], [[0], [1]], (4 + 3 * 9) / 4),
    ],
    ids=["binary", "multi-class", "regression", "log1p"],
)
def test_golden_loss(task: Ranking, labels: list[float], outputs: Any, expected: float) -> None:
    loss, weight, _ = loss_of(task, labels, outputs, [1.0, 3.0])
    assert loss == pytest.approx(expected, rel=1e-6)
    assert weight == 4


def test_missing_rows_touch_neither_loss_nor_gradient(case: Any) -> None:
    task, outputs, labels = case
    some, _, gradient = loss_of(task, [labels[0], NAN, labels[2]], outputs, [1.0, 0.0, 2.0])
    without, _, expected = loss_of(task, [labels[0], labels[2]], [outputs[0], outputs[2]], [1.0, 2.0])
    assert some == pytest.approx(without, rel=1e-6)
    np.testing.assert_array_equal(gradient[1], 0)
    np.testing.assert_allclose(gradient[[0, 2]], expected, rtol=1e-6)
    assert (np.abs(expected).max(axis=1) > 0).all()


def test_without_a_label_loss_weight_and_gradient_are_zero(case: Any) -> None:
    task, outputs, _ = case
    loss, weight, gradient = loss_of(task, [NAN] * 3, outputs, [0.0] * 3)
    assert (loss, weight) == (0, 0)
    np.testing.assert_array_equal(gradient, 0)


def test_loss_is_that_of_tfrs_on_observed_rows(case: Any) -> None:
    task, outputs, labels = case
    if isinstance(task.keras_loss(), RowLoss):
        pytest.skip("no loss of Keras")
    loss = type(task.keras_loss())(**{k: v for k, v in task.keras_loss().get_config().items() if k == "from_logits"})
    targets = task.targets(tf.constant(labels, tf.float32))[:, tf.newaxis]
    expected = tfrs.tasks.Ranking(loss=loss)(targets, tf.constant(outputs), sample_weight=tf.ones([3]))
    assert loss_of(task, labels, outputs, [1.0] * 3)[0] == pytest.approx(float(expected), rel=1e-6)


def test_a_mean_does_not_depend_on_the_scale_of_the_weights(case: Any) -> None:
    task, outputs, labels = case
    for scale in (1e-6, 1e6):
        weights = [1 * scale, 2 * scale, 3 * scale]
        assert loss_of(task, labels, outputs, weights)[0] == pytest.approx(
            loss_of(task, labels, outputs, [1.0, 2.0, 3.0])[0]
        )


def test_metrics_see_observed_rows_only(case: Any) -> None:
    task, outputs, labels = case
    again = [type(task).from_config(task.get_config()) for _ in range(2)]
    rows = tf.constant(labels, tf.float32), tf.constant(outputs), tf.constant([1.0, 0.0, 2.0])
    again[0].update_metrics(tf.constant([labels[0], NAN, labels[2]]), *rows[1:])
    again[1].update_metrics(*(tf.gather(row, [0, 2]) for row in rows))
    found = {metric.name: float(metric.result()) for metric in again[0].metrics}
    assert found == pytest.approx({metric.name: float(metric.result()) for metric in again[1].metrics}, rel=1e-6)
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    ("task", "outputs", "expected"),
    [
        # The positive row is ranked below one of two negative ones; log loss of probabilities 1/2, 1/4, 3/4.
        (
            BinaryClassification("t"),
            [[0], [-np.log(3)], [np.log(3)]],
            {"auc": 1 / 2, "log_loss": (LOG_2 + np.log(4 / 3) + np.log(4)) / 3},
        ),
        # Served 3, 5 and 1 against 1, 0, 0: squares 4, 25, 1.
        (Regression("t", offset=3, scale=2), [[0], [1], [-1]], {"rmse": np.sqrt(10), "mae": 8 / 3}),
        # Served 1, 3 and 0 against 1, 0, 0; with log(1 + y): log 2, log 4, 0 against log 2, 0, 0.
        (
            Regression("t", transform="log1p"),
            [[LOG_2], [2 * LOG_2], [0]],
            {"rmse": np.sqrt(3), "mae": 1, "log_rmse": 2 * LOG_2 / np.sqrt(3), "log_mae": 2 * LOG_2 / 3},
        ),
        (MultiClassClassification("t", 2), [[0, 1], [0, 1], [1, 0]], {"accuracy": 2 / 3}),
    ],
    ids=["binary", "regression", "logarithms", "multi-class"],
)
def test_golden_metrics(task: Ranking, outputs: Any, expected: dict[str, float]) -> None:
    task.update_metrics(tf.constant([1.0, 0.0, 0.0]), tf.constant(outputs, tf.float32), tf.ones([3]))
    found = {metric.name: float(metric.result()) for metric in task.metrics}
    for name, value in expected.items():
        assert found[f"t_{name}"] == pytest.approx(value, abs=1e-4), name  # the AUC is a sum over 200 thresholds


def test_a_report_of_logarithms_names_them() -> None:
    """Served 1, 3, -1 against 1, 0, -0.5: errors 0, 3, 0.5; a served -1 counts as -1 + 1e-6."""
    labels, served = np.array([1.0, 0.0, -0.5]), np.array([1.0, 3.0, -1.0], np.float32)
    found = Regression("t", transform="log1p").report(labels, served, np.ones(3))
    lowest = LOG_2 + np.log(1e-6)
    logs = {"log_rmse": np.sqrt(((2 * LOG_2) ** 2 + lowest**2) / 3), "log_mae": (2 * LOG_2 - lowest) / 3}
    plain = {"rmse": np.sqrt(9.25 / 3), "mae": 3.5 / 3}
    assert set(found) == {*logs, *plain, "r2", "log_r2", "xauc"}
    assert {name: found[name] for name in (*plain, *logs)} == pytest.approx({**plain, **logs}, rel=1e-2)
    assert set(Regression("t").report(labels, served, np.ones(3))) == {*plain, "r2", "xauc"}
    assert {metric.name for metric in Regression("t").metrics} == {"t_rmse", "t_mae"}


def test_predictions_are_in_the_unit_of_the_label() -> None:
    outputs = tf.constant([[0.0], [np.log(3)]], tf.float32)
    np.testing.assert_allclose(BinaryClassification("t").predict(outputs), [0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(
        MultiClassClassification("t", 2).predict(tf.concat([outputs, 0 * outputs], 1))[1], [0.75, 0.25]
    )


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_regression_predicts_the_inverse_of_its_targets(transform: Any) -> None:
    task = Regression("t", offset=0.7, scale=3.0, transform=transform)
    labels = tf.constant([-0.9, 0.0, 1.5, 100.0])
    np.testing.assert_allclose(task.predict(task.targets(labels)[:, tf.newaxis]), labels, rtol=1e-4, atol=1e-6)


def test_regression_clips_what_it_serves_but_not_its_loss() -> None:
    task = Regression("t", clip=(1, 5))
    assert task.predict(tf.constant([[-9.0], [3.0], [9.0]])).numpy().tolist() == [1, 3, 5]
    assert loss_of(task, [5], [[9.0]], [1.0])[0] == 16


@pytest.mark.parametrize(
    "make", [lambda **k: BinaryClassification("t", **k), lambda **k: MultiClassClassification("t", 4, **k)]
)
@pytest.mark.parametrize("scope", ["pair", "query"])
def test_heads_read_what_their_scope_says(make: Any, scope: Any) -> None:
    query, trunk = keras.Input([3], name="query"), keras.Input([2], name="trunk")
    task = make(units=[5], scope=scope)
    output = task.connect(HeadInputs(query, None, {"t": trunk}))
    assert task.uses_trunk == (scope == "pair")
    assert output.shape.as_list() == [None, task.output_units]
    network = keras.Model([query, trunk], output)
    assert [layer.name for layer in network.layers if layer.weights] == ["t_hidden_0", "t_output"]
    assert network.get_layer("t_hidden_0").kernel.shape == ([2, 5] if scope == "pair" else [3, 5])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: BinaryClassification("a b"),
            "A task's `name` must be letters, digits and underscores of",
        ),
        (lambda: BinaryClassification("t", units=[0]), "`units` must be a positive integer. Received: units=0."),
        (
            lambda: BinaryClassification("t", scope="user"),
            "`scope` of task 't' must be 'pair' or 'query'. Received: scope='user'.",
        ),
        (
            lambda: MultiClassClassification("t", 1),
            "`num_classes` of task 't' must be an integer above 1. Received: num_classes=1.",
        ),
        (lambda: Regression("t", scale=0), "`scale` of task 't' must be above 0. Received: scale=0."),
        (
            lambda: Regression("t", transform="log"),
            "`transform` of task 't' must be 'none' or 'log1p'. Received: transform='log'.",
        ),
    ],
)
def test_bad_argument_is_named(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
