from __future__ import annotations

import numpy as np
import pytest

from tests.tasks.losses import NAN, loss_of
from tfmtl._keras import tf
from tfmtl.tasks import ChainedRegression, LossInputs, Regression


def bought(labels: list[float]) -> LossInputs:
    return LossInputs({}, labels={"buy": tf.constant(labels, tf.float32)})


def test_only_rows_with_the_event_teach_the_value() -> None:
    """Targets (5 - 3) / 2 = 1 and (1 - 3) / 2 = -1 against 0 and 1, squares 1 and 4, in rows 0 and 2 of five."""
    task = ChainedRegression("spend", "buy", offset=3, scale=2)
    outputs = [[0, 2], [7, 2], [1, 2], [7, 2], [7, 2]]
    loss, weight, gradient = loss_of(
        task, [5, 0, 1, 4, NAN], outputs, [1.0, 1.0, 3.0, 1.0, 0.0], bought([1, 0, 1, NAN, 1])
    )
    assert loss == pytest.approx((1 + 3 * 4) / 4)
    assert weight == 4
    np.testing.assert_allclose(gradient[:, 0], [2 * -1 / 4, 0, 3 * 2 * 2 / 4, 0, 0])
    np.testing.assert_array_equal(gradient[:, 1], 0)  # the loss does not reach the task of the event


def test_without_an_event_loss_weight_and_gradient_are_zero() -> None:
    loss, weight, gradient = loss_of(ChainedRegression("spend", "buy"), [0, 0], [[1, 1]] * 2, [1.0] * 2, bought([0, 0]))
    assert (loss, weight) == (0, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_served_is_the_expectation_over_all_rows(transform: str) -> None:
    options = {"offset": 0.5, "scale": 2.0, "transform": transform, "clip": (0.5, 9.0)}
    outputs = tf.constant([[0.7, 0.0], [-3.0, np.log(3)], [9.0, -np.log(4)]], tf.float32)
    given = Regression("spend", **options).predict(outputs).numpy()  # type: ignore[arg-type]
    assert given.tolist()[1:] == [0.5, 9.0]
    found = ChainedRegression("spend", "buy", **options).predict(outputs)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, given * [1 / 2, 3 / 4, 1 / 5], rtol=1e-6)


def test_metrics_are_of_all_rows_and_of_those_with_the_event() -> None:
    """Values 4, 4, 8 with P(event) = 1/2: served 2, 2, 4 against 5, 0, missing; given the event, 4 against 5."""
    task = ChainedRegression("spend", "buy")
    outputs = tf.constant([[4.0, 0.0], [4.0, 0.0], [8.0, 0.0]])
    task.update_metrics(tf.constant([5.0, 0.0, NAN]), outputs, tf.constant([1.0, 1.0, 0.0]), bought([1, 0, 1]))
    found = {metric.name: float(metric.result()) for metric in task.metrics}
    expected = {"spend_rmse": np.sqrt((9 + 4) / 2), "spend_mae": 5 / 2, "spend_conditional_rmse": 1.0}
    assert found == pytest.approx(expected)


def test_statistics_give_offset_scale_and_clip() -> None:
    class Summary:
        mean, deviation, minimum, maximum = 3.0, 2.0, 1.0, 9.0

    task = ChainedRegression.from_statistics("spend", Summary(), after="buy")  # type: ignore[arg-type]
    assert isinstance(task, ChainedRegression)
    assert (task.after, task.offset, task.scale, task.clip) == ("buy", 3, 2, (1, 9))
