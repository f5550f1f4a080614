"""Weighted logistic regression of watch time."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tests.tasks.losses import NAN, loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import tf
from tfmtl.tasks import BinaryClassification, WatchTime

LOG_3 = math.log(3)
LABELS = np.random.default_rng(4).exponential(30.0, 50)


def test_golden_loss() -> None:
    """t = 2 and sigma(z) = 3/4: 2 log 4/3 + log 4; t = 0 and 1/2, weight 3: log 2."""
    loss, weight, gradient = loss_of(WatchTime("t", scale=10), [20, 0], [[LOG_3], [0]], [1.0, 3.0])
    assert loss == pytest.approx((2 * math.log(4 / 3) + math.log(4) + 3 * math.log(2)) / 4, rel=1e-6)
    assert weight == 4
    # sigma (1 + t) - t
    np.testing.assert_allclose(gradient[:, 0], [(3 / 4 * 3 - 2) / 4, 3 * (1 / 2) / 4], rtol=1e-5)


def test_it_is_the_logistic_loss_of_weighted_rows() -> None:
    rows = [[0.3], [-1.0], [2.0]]
    found = loss_of(WatchTime("t"), [4.0, 0.0, 0.5], rows, [1.0, 1.0, 1.0])[0]
    doubled = loss_of(BinaryClassification("t"), [1, 1, 0, 0, 0], [rows[0], rows[2], *rows], [4.0, 0.5, 1.0, 1.0, 1.0])
    assert found * 3 == pytest.approx(doubled[0] * doubled[1], rel=1e-5)


def test_the_best_constant_serves_the_mean() -> None:
    task = WatchTime.from_statistics("t", summary(LABELS))
    (best,) = task.initial_bias({"t": summary(LABELS)}) or []  # type: ignore[dict-item]
    assert float(task.predict(tf.constant([[best]]))[0]) == pytest.approx(LABELS.mean(), rel=1e-5)
    losses = [loss_of(task, LABELS, np.full([50, 1], best + d), [1.0] * 50)[0] for d in (-0.01, 0, 0.01)]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] == pytest.approx(2 * math.log(2), rel=1e-4)
    assert task.initial_bias({}) is None


@pytest.mark.parametrize("output", [-1e4, 1e4])
@pytest.mark.parametrize("label", [0.0, 1e6])
def test_extremes_have_bounded_gradients(output: float, label: float) -> None:
    task = WatchTime("t")
    loss, _, gradient = loss_of(task, [label], [[output]], [1.0])
    assert loss == pytest.approx(1e4 if output > 0 else label * 1e4)
    assert gradient[0, 0] == pytest.approx(1 if output > 0 else -label)
    assert math.isfinite(float(task.predict(tf.constant([[output]]))[0]))


def test_missing_rows_touch_neither_loss_nor_gradient() -> None:
    some, weight, gradient = loss_of(WatchTime("t"), [1, NAN, 0], [[0.3], [2.0], [-1.0]], [1.0, 0.0, 2.0])
    assert some == pytest.approx(loss_of(WatchTime("t"), [1, 0], [[0.3], [-1.0]], [1.0, 2.0])[0], rel=1e-6)
    assert (weight, gradient[1, 0]) == (3, 0)
    assert loss_of(WatchTime("t"), [NAN], [[0.3]], [0.0])[:2] == (0, 0)


def test_a_report_holds_the_order_and_the_calibration() -> None:
    found = WatchTime("t").report(np.array([1.0, 2.0]), np.array([1.0, 5.0]), np.ones(2))
    assert list(found) == ["rmse", "mae", "r2", "xauc", "calibration"]
    assert found["calibration"] == 2


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("`scale` of task 't' must be above 0. Received: scale=0.")):
        WatchTime("t", scale=0)
    with pytest.raises(ValueError, match=re.escape("Task 't' needs labels of 0 or more; `Regression` takes others.")):
        WatchTime("t").check_labels(summary([-1, 3]))
    with pytest.raises(ValueError, match=re.escape("The mean label of task 't' must be above 0. Received: mean=0.0.")):
        WatchTime.from_statistics("t", summary([0, 0]))
    assert WatchTime("t").usable_labels(tf.constant([-1.0, 0.0])).numpy().tolist() == [False, True]
