from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.gls import GLS


def bound(**arguments: Any) -> GLS:
    balancer = GLS(**arguments)
    balancer.bind(tasks_named(["click", "rating", "age"]))
    return balancer


def run(balancer: GLS, losses: Any, observed: list[bool] | None = None) -> tuple[float, np.ndarray]:
    value = float(balancer(tf.constant(losses), tf.constant(observed or [True] * 3), training=True))
    return value, balancer.current_weights().numpy()


def test_golden_mean_and_weights() -> None:
    # (1 * 8 * 27)^(1/3) = 6; dF/dL_i = F / (3 L_i).
    value, weights = run(bound(), [1.0, 8.0, 27.0])
    assert value == pytest.approx(6)
    np.testing.assert_allclose(weights, [2, 0.25, 2 / 27], rtol=1e-5)


def test_golden_mean_with_importances() -> None:
    # Exponents 1/2, 1/4, 1/4: 4^(1/2) 16^(1/4) 81^(1/4) = 2 * 2 * 3 = 12; dF/dL_i = F p_i / L_i.
    value, weights = run(bound(task_importances={"click": 2}), [4.0, 16.0, 81.0])
    assert value == pytest.approx(12)
    np.testing.assert_allclose(weights, [12 / 8, 12 / 64, 12 / 324], rtol=1e-5)


def test_importances_are_shares_of_the_observed_tasks() -> None:
    # Exponents 2/3, 1/3 of the first and last: 8^(2/3) 27^(1/3) = 12.
    value, weights = run(bound(task_importances={"click": 2}), [8.0, 0.0, 27.0], [True, False, True])
    assert value == pytest.approx(12, rel=1e-5)
    np.testing.assert_allclose(weights, [1, 0, 12 / 81], rtol=1e-5)


def test_a_task_contributes_the_same_whatever_its_scale() -> None:
    (_, plain), (_, scaled) = run(bound(), [1.0, 2.0, 3.0]), run(bound(), [1.0, 2000.0, 3.0])
    np.testing.assert_allclose(scaled * [1, 2000, 3] / 10, plain * [1, 2, 3], rtol=1e-5)


def test_epsilon_stands_in_for_a_loss_of_zero() -> None:
    # (e e 1)^(1/3) = 1e-4 at e = 1e-6; a negative loss counts as 0.
    value, weights = run(bound(epsilon=1e-6), [0.0, -3.0, 1.0])
    assert value == pytest.approx(1e-4, rel=1e-4)
    np.testing.assert_allclose(weights, [1e2 / 3, 1e2 / 3, 1e-4 / 3], rtol=1e-4)


@pytest.mark.parametrize("importance", [0, -1.0, float("nan"), "1"])
def test_a_bad_importance_names_its_task(importance: Any) -> None:
    sentence = f"The importance of task 'click' must be a number above 0. Received: given={importance!r}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        GLS({"click": importance})


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("Unknown task ['clck'] in `task_importances` of GLS")):
        bound(task_importances={"clck": 1.0})


@pytest.mark.parametrize("epsilon", [0, -1e-8, 1e-13, "1"])
def test_a_bad_epsilon_is_refused(epsilon: Any) -> None:
    with pytest.raises(ValueError, match="`epsilon` must be a number of at least 1e-12"):
        GLS(epsilon=epsilon)
