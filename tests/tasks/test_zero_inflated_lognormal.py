"""ZILN: the likelihood in plain numpy and scipy, extremes, first outputs, reports."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.tasks.losses import loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import tf
from tfmtl.tasks import ZeroInflatedLognormal

TASK = ZeroInflatedLognormal("t")


def raw(deviation: float) -> float:
    """Return the output s of softplus(s) + 0.1 = deviation."""
    return math.log(math.expm1(deviation - 0.1))


def likelihood(labels: Any, outputs: Any) -> np.ndarray:
    """Compute the loss with the distributions of scipy, less the largest density of log y, that at sigma = 0.1."""
    label, (logit, mean, s) = np.asarray(labels), np.transpose(outputs)
    share, deviation = 1 / (1 + np.exp(-logit)), np.log1p(np.exp(s)) + 0.1
    known = np.where(label > 0, label, 1.0)
    density = stats.lognorm.logpdf(known, deviation, scale=np.exp(mean)) + np.log(known) - stats.norm.logpdf(0, 0, 0.1)
    return -np.where(label > 0, np.log(share) + density, np.log1p(-share))


def test_golden_loss() -> None:
    """p = 3/4, mu = 1, sigma = 2: -log(1/4) for 0; for e^5, -log(3/4) + log(2 / 0.1) + (4 / 2)^2 / 2."""
    outputs = [[math.log(3), 1.0, raw(2.0)]] * 2
    loss, weight, _ = loss_of(TASK, [0.0, math.exp(5)], outputs, [1.0, 3.0])
    positive = math.log(4 / 3) + math.log(20) + 2
    assert loss == pytest.approx((math.log(4) + 3 * positive) / 4, rel=1e-5)
    assert weight == 4


def test_loss_is_the_likelihood_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(40) < 0.5, 0.0, np.exp(rng.normal(size=40)))
    outputs = rng.normal(size=[40, 3])
    expected = likelihood(labels, outputs)
    assert loss_of(TASK, labels, outputs, np.ones(40))[0] == pytest.approx(expected.mean(), rel=1e-5)


def test_served_is_the_mean_of_the_distribution() -> None:
    """p = 1/2, mu = 1, sigma = 0.8: a simulation of 10^6 draws has this mean within a percent."""
    outputs = tf.constant([[0.0, 1.0, raw(0.8)]])
    drawn = np.exp(np.random.default_rng(1).normal(1.0, 0.8, 10**6))
    assert float(TASK.predict(outputs)[0]) == pytest.approx(math.exp(1.32) / 2, rel=1e-5)
    assert float(TASK.predict(outputs)[0]) == pytest.approx(drawn.mean() / 2, rel=0.01)
    assert float(ZeroInflatedLognormal("t", clip=(0, 1)).predict(outputs)[0]) == 1


@pytest.mark.parametrize("label", [0.0, 1e-6, 1e6])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("output", [-1e4, 1e4])
def test_extremes_are_finite(label: float, column: int, output: float) -> None:
    outputs = np.zeros([1, 3])
    outputs[0, column] = output
    loss, _, gradient = loss_of(TASK, [label], outputs, [1.0])
    assert math.isfinite(loss)
    assert loss >= 0
    assert np.isfinite(np.square(gradient)).all()  # Adam squares it
    assert math.isfinite(float(TASK.predict(tf.constant(outputs, tf.float32))[0]))


def test_a_row_without_value_teaches_the_event_alone() -> None:
    _, _, gradient = loss_of(TASK, [0.0], [[0.0, 3.0, 1.0]], [1.0])
    assert gradient.tolist() == [[0.5, 0.0, 0.0]]


@pytest.mark.parametrize("rows", [900, 6000])  # above 1,000 distinct labels their shares are unknown
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_the_first_outputs_are_near_the_best_constants(rows: int, share: float) -> None:
    rng = np.random.default_rng(7)
    labels = np.where(rng.random(rows) < share, np.exp(rng.normal(3.0, 1.2, rows)), 0.0)
    bias = np.array(TASK.initial_bias({"t": summary(labels)}))  # type: ignore[dict-item]
    first = loss_of(TASK, labels, np.tile(bias, [rows, 1]), np.ones(rows))[0]
    logs = np.log(labels[labels > 0])
    rate = len(logs) / rows
    best = np.tile([math.log(rate / (1 - rate)), logs.mean(), raw(logs.std())], [rows, 1])
    least = loss_of(TASK, labels, best, np.ones(rows))[0]
    assert first - least < (1e-4 if rows == 900 else 0.1)
    zeros = loss_of(TASK, labels, np.zeros([rows, 3]), np.ones(rows))[0]
    assert first < zeros - 0.3
    assert TASK.initial_bias({}) is None


def test_a_report_holds_gini_and_calibration() -> None:
    """The order 0, 5, 1 of the predictions is that of the labels with two rows exchanged: see the golden Gini."""
    found = TASK.report(np.array([0.0, 3.0, 1.0]), np.array([0.0, 1.0, 5.0]), np.ones(3))
    assert found["gini"] == pytest.approx(1 / 3)
    assert found["calibration"] == pytest.approx(6 / 4)
    assert list(found) == ["rmse", "mae", "r2", "xauc", "calibration", "gini"]


def test_statistics_bound_the_served_values() -> None:
    assert ZeroInflatedLognormal.from_statistics("t", summary([0, 4, 9])).clip == (0, 9)
    assert ZeroInflatedLognormal.from_statistics("t", summary([0, 4, 9]), clip=None).clip is None


def test_labels_below_0_are_named() -> None:
    with pytest.raises(ValueError, match=re.escape("Task 't' needs labels of 0 or more; `Regression` takes others.")):
        TASK.check_labels(summary([-1, 3]))
    assert TASK.usable_labels(tf.constant([-1.0, 0.0, 2.5])).numpy().tolist() == [False, True, True]
