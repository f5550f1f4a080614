from __future__ import annotations

import fractions
import math

import numpy as np
import pytest

from tfmtl.data.moments import Moments, RunningMoments


def moments_of(*pieces: list[float], weights: list[list[float]] | None = None) -> tuple[float, float]:
    running = RunningMoments()
    for i, piece in enumerate(pieces):
        running.add(np.array(piece), None if weights is None else np.array(weights[i]))
    found = running.moments()
    return found.mean[0], found.deviation[0]


def exact(values: list[float]) -> tuple[float, float]:
    """Return mean and deviation by fractions, which do not round."""
    numbers = [fractions.Fraction(value) for value in values]
    mean = sum(numbers) / len(numbers)
    return float(mean), math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))


HOUR = [1.7e9 + 30.0 * i for i in range(120)]


def test_unix_seconds_of_an_hour() -> None:
    mean, deviation = moments_of(HOUR)
    assert mean == 1.7e9 + 30 * 59.5
    assert deviation == pytest.approx(30 * math.sqrt((120**2 - 1) / 12))  # 1039.18: that of equally spaced numbers


@pytest.mark.parametrize(
    "values",
    [
        [1e-12 * i for i in range(9)],
        [1e15 + i for i in range(9)],
        [-1e15 - 3.0 * i for i in range(9)],
        [2.0**53 - i for i in range(1000)],
        [1e30 * i for i in range(1, 9)],
        [0.0, *HOUR],
        [1e-300, 3e-140, 1.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_moments_of_pieces_are_exact(values: list[float], cut: int) -> None:
    mean, deviation = exact(values)
    found = moments_of(values[:cut], values[cut:])
    assert found == pytest.approx((mean, deviation), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1.7e9 + 0.3, 2.0**53, 1e30, 1e-30])
def test_a_constant_has_the_deviation_one(value: float) -> None:
    assert moments_of([value] * 3, [value] * 7) == (value, 1.0)
    assert moments_of([value, value * (1 + 2**-52)], [value])[1] == 1.0  # the same number, computed in two ways


def test_what_is_not_finite_does_not_count() -> None:
    assert moments_of([math.nan, 1.0], [math.inf, 3.0, -math.inf], [math.nan]) == (2.0, 1.0)
    assert moments_of([math.nan], [math.inf]) == (0.0, 1.0)


def test_weights_count_as_repetitions() -> None:
    repeated = [1.7e9] * 3 + [1.7e9 + 4] * 2 + [1.7e9 + 1]
    found = moments_of([1.7e9, 5.0], [1.7e9 + 4, 1.7e9 + 1], weights=[[3.0, 0.0], [2.0, 1.0]])
    assert found == pytest.approx(exact(repeated), rel=1e-12)


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (1.7e9, 1039.0, True),
        (1.7e9, 1e6, False),  # eleven days: float32 resolves 128 s
        (-1.7e9, 1039.0, True),
        (2010.0, 5.0, False),
        (0.0, 1e-12, False),
        (1e-12, 1e-17, True),
        (0.0, 1e-35, True),
        (1e30, 1e29, False),
    ],
)
def test_float64_is_needed_where_float32_is_coarse(mean: float, deviation: float, expected: bool) -> None:
    assert Moments((0.0, mean), (1.0, deviation)).need_float64 is expected
