"""Poisson and Tweedie regression: the deviance in plain numpy, extremes, statistics, reports."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import tf
from tfmtl.tasks import LogLinkRegression, PoissonRegression, TweedieRegression
from tfmtl.tasks.log_link import unit_deviance
from tfmtl.tasks.number_metrics import mean_deviance

RNG = np.random.default_rng(5)
KINDS = pytest.mark.parametrize("task", [PoissonRegression("t"), TweedieRegression("t", power=1.5)])


@pytest.mark.parametrize("power", [1.0, 1.2, 1.5, 1.95])
def test_deviance_is_that_of_the_formula_in_numpy(power: float) -> None:
    labels, logs = np.append(RNG.poisson(3.0, 30), [0, 0, 1e5]).astype(float), np.append(RNG.normal(size=32), 11.5)
    found = unit_deviance(tf.constant(labels, tf.float32), tf.constant(logs, tf.float32), power).numpy()
    expected = [mean_deviance([y], [math.exp(z)], power=power) for y, z in zip(labels, logs, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_deviance_is_precise_near_large_labels() -> None:
    """y = 10^6 and m = y e^0.001: 2 y (e^r - 1 - r) = 1.00033, while y log y is 1.4 10^7."""
    found = unit_deviance(tf.constant([1e6]), tf.constant([math.log(1e6) + 1e-3]), 1.0)
    assert float(found[0]) == pytest.approx(1.00033, rel=3e-3)


def test_golden_loss() -> None:
    """Poisson, dispersion 2, means 1 and e: 2 (0 - 0 + 1) / 2 = 1, and (2 log(2 / e) - 2 + e) with weight 3."""
    task = PoissonRegression("t", dispersion=2.0)
    loss, weight, gradient = loss_of(task, [0, 2], [[0], [1]], [1.0, 3.0])
    assert loss == pytest.approx((1 + 3 * (2 * math.log(2) - 4 + math.e)) / 4, rel=1e-6)
    assert weight == 4
    np.testing.assert_allclose(gradient[:, 0], [1 / 4, 3 * (math.e - 2) / 4], rtol=1e-6)  # m - y


def test_tweedie_gradient_is_that_of_the_formula() -> None:
    """d'(z) = 2 (m^(2-p) - y m^(1-p)), at m = 4, p = 3/2 and y = 1, 0: 2 (2 - 1/2) and 2 * 2."""
    _, _, gradient = loss_of(TweedieRegression("t", power=1.5), [1, 0], [[math.log(4)]] * 2, [1.0, 1.0])
    np.testing.assert_allclose(gradient[:, 0], [3 / 2, 4 / 2], rtol=1e-5)


@KINDS
@pytest.mark.parametrize("label", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("output", [-1e4, -50.0, 50.0, 1e4])
def test_extremes_have_finite_losses_and_gradients_that_lead_back(
    task: LogLinkRegression, label: float, output: float
) -> None:
    loss, _, gradient = loss_of(task, [label], [[output]], [1.0])
    assert math.isfinite(loss)
    assert loss >= 0
    assert np.isfinite(np.square(gradient)).all()  # Adam squares it
    assert gradient[0, 0] * output > 0 or (label == 0 and output < 0)
    assert math.isfinite(float(task.predict(tf.constant([[output]]))[0]))


@KINDS
def test_the_best_constant_is_the_mean(task: LogLinkRegression) -> None:
    labels = RNG.exponential(3.0, 40)
    bias = task.initial_bias({"t": summary(labels)})  # type: ignore[dict-item]
    assert bias == pytest.approx([math.log(labels.mean())], rel=1e-5)
    losses = [loss_of(task, labels, np.full([40, 1], bias[0] + d), [1.0] * 40)[0] for d in (-0.01, 0, 0.01)]  # type: ignore[index]
    assert losses[1] < min(losses[0], losses[2])
    assert task.initial_bias({}) is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_statistics_make_the_first_loss_near_1_for_any_unit(scale: float) -> None:
    labels = RNG.poisson(4.0, 2000) * scale
    for kind in (PoissonRegression, TweedieRegression):
        task = kind.from_statistics("t", summary(labels))
        outputs = np.full([2000, 1], math.log(labels.mean()))
        assert 0.5 < loss_of(task, labels, outputs, [1.0] * 2000)[0] < 2
        assert task.clip == pytest.approx((labels.min(), labels.max()))
    given = PoissonRegression.from_statistics("t", summary(labels), dispersion=3.0, clip=None)
    assert (given.dispersion, given.clip) == (3.0, None)


def test_a_report_holds_deviance_and_calibration() -> None:
    """Means 1 and 4 against 1 and 2: d = 0 and 2 (2 log(1/2) - 2 + 4), totals 5 and 3."""
    found = PoissonRegression("t").report(np.array([1.0, 2.0]), np.array([1.0, 4.0]), np.ones(2))
    assert found["deviance"] == pytest.approx(2 - 2 * math.log(2))
    assert found["calibration"] == pytest.approx(5 / 3)
    assert list(found) == ["rmse", "mae", "r2", "xauc", "calibration", "deviance"]
    power = TweedieRegression("t", power=1.25).report(np.array([1.0, 2.0]), np.array([1.0, 4.0]), np.ones(2))
    assert power["deviance"] == pytest.approx(mean_deviance([1, 2], [1, 4], power=1.25))


def test_served_means_are_inside_the_range() -> None:
    outputs = tf.constant([[-9.0], [0.0], [9.0]])
    assert PoissonRegression("t", clip=(0.5, 3)).predict(outputs).numpy().tolist() == [0.5, 1, 3]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: TweedieRegression("t", power=2),
            "`power` of task 't' must lie between 1 (`PoissonRegression`) and",
        ),
        (lambda: TweedieRegression("t", power=1.0), "Received: power=1.0."),
        (lambda: PoissonRegression("t", dispersion=0), "`dispersion` of task 't' must be above 0."),
        (
            lambda: PoissonRegression("t").check_labels(summary([-1, 3])),
            "Task 't' needs labels of 0 or more; `Regression` takes others. Received: minimum=-1.0.",
        ),
        (lambda: PoissonRegression("t").check_labels(summary([2, 2])), "Every training label of regression task 't'"),
        (
            lambda: PoissonRegression.from_statistics("t", summary([0, 0])),
            "The mean label of task 't' must be above 0. Received: mean=0.0.",
        ),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


def test_labels_below_0_cannot_be_used() -> None:
    assert PoissonRegression("t").usable_labels(tf.constant([-1.0, 0.0, 2.5])).numpy().tolist() == [False, True, True]
