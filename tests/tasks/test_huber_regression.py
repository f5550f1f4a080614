from __future__ import annotations

import re

import numpy as np
import pytest

from tests.tasks.losses import loss_of
from tfmtl._keras import keras, tf
from tfmtl.tasks import HuberRegression, Regression


def test_golden_loss() -> None:
    """Targets (5 - 3) / 2 = 1 and (13 - 3) / 2 = 5 against 0.5 and 1: 0.25, and 2 (8 - 2) with weight 3."""
    task = HuberRegression("t", offset=3, scale=2, delta=2.0)
    loss, weight, gradient = loss_of(task, [5, 13], [[0.5], [1]], [1.0, 3.0])
    assert loss == pytest.approx((0.25 + 3 * 12) / 4)
    assert weight == 4
    np.testing.assert_allclose(gradient[:, 0], [2 * -0.5 / 4, -2 * 2 * 3 / 4])  # 2 e, and 2 delta in size


def test_it_is_twice_the_loss_of_keras_and_the_squared_error_with_a_large_delta() -> None:
    labels, outputs, weights = [4.0, 0.5, -7.0], [[0.3], [1.5], [2.0]], [1.0, 1.0, 1.0]
    expected = 2 * keras.losses.Huber(delta=1.5)(np.array(labels)[:, np.newaxis], np.array(outputs))
    assert loss_of(HuberRegression("t", delta=1.5), labels, outputs, weights)[0] == pytest.approx(float(expected))
    squared = loss_of(Regression("t"), labels, outputs, weights)[0]
    assert loss_of(HuberRegression("t", delta=100.0), labels, outputs, weights)[0] == pytest.approx(squared)


@pytest.mark.parametrize("output", [-1e4, 1e4])
def test_no_gradient_exceeds_the_bound(output: float) -> None:
    _, _, gradient = loss_of(HuberRegression("t", delta=0.5), [0.0], [[output]], [1.0])
    assert gradient[0, 0] == np.sign(output)


def test_it_serves_and_starts_as_a_regression() -> None:
    class Summary:
        mean, deviation, minimum, maximum = 3.0, 2.0, 1.0, 9.0

    task = HuberRegression.from_statistics("t", Summary(), delta=0.5)  # type: ignore[arg-type]
    assert isinstance(task, HuberRegression)
    assert (task.offset, task.scale, task.clip, task.delta) == (3, 2, (1, 9), 0.5)
    assert task.predict(tf.constant([[1.0], [9.0]])).numpy().tolist() == [5, 9]


def test_bad_delta_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("`delta` of task 't' must be above 0. Received: delta=0.")):
        HuberRegression("t", delta=0)
