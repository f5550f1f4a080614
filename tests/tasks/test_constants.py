"""Constant predictions: values by hand, and nearby constants have a larger loss."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.tasks.constants import class_frequencies, prior_probability, weighted_mean
from tfmtl.tasks.label_metrics import binary_metrics, multiclass_metrics, regression_metrics

NAN = float("nan")
WEIGHTS = np.array([2.0, 1.0, 1.0, 0.5, 3.0, 0.0])


def test_constants_by_hand() -> None:
    # 2 x 1 + 1 x 4 + 3 x 2, over the weight of the observed labels, 6
    assert weighted_mean([1, 4, NAN, NAN, 2, 7], WEIGHTS) == pytest.approx(12 / 6)
    assert prior_probability([1, 0, NAN, NAN, 0, 1], WEIGHTS) == pytest.approx(2 / 6)
    np.testing.assert_allclose(class_frequencies([2, 0, NAN, NAN, 2, 1], 4, WEIGHTS), [1 / 6, 0, 5 / 6, 0])


@pytest.mark.parametrize("step", [-0.05, 0.05])
def test_no_constant_nearby_is_better(step: float) -> None:
    labels = np.array([1, 0, 0, 1, 0, NAN])

    def log_loss(p: float) -> float:
        return binary_metrics(labels, np.full(6, p), WEIGHTS)["log_loss"]

    def rmse(value: float) -> float:
        return regression_metrics(labels, np.full(6, value), WEIGHTS)["rmse"]

    def class_loss(distribution: np.ndarray) -> float:
        return multiclass_metrics(labels, np.tile(distribution, (6, 1)), WEIGHTS)["log_loss"]

    prior, frequencies = prior_probability(labels, WEIGHTS), class_frequencies(labels, 2, WEIGHTS)
    assert log_loss(prior) < log_loss(prior + step)
    assert rmse(weighted_mean(labels, WEIGHTS)) < rmse(weighted_mean(labels, WEIGHTS) + step)
    assert class_loss(frequencies) < class_loss(frequencies + np.array([step, -step]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weighted_mean([NAN, NAN]), "at least one observed label"),
        (lambda: prior_probability([0, 3]), "0, 1 or NaN"),
        (lambda: prior_probability([1], [0]), "at least one observed label"),
        (lambda: class_frequencies([0, 4], 4), "classes from 0 to 3"),
    ],
)
def test_refuses(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()
