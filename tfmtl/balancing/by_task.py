"""Numbers by task: checks of arguments that are mappings by task name, and shares of the observed tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf


class Range(NamedTuple):
    """The finite numbers that an argument may have.

    Attributes:
        description: for error messages, such as `"a number above 0"`.
        holds: returns whether a finite number lies in the range.
    """

    description: str
    holds: Callable[[float], bool]


FINITE = Range("a finite number", lambda number: True)
POSITIVE = Range("a number above 0", lambda number: number > 0)
NONNEGATIVE = Range("a number of at least 0", lambda number: number >= 0)
UNIT_INTERVAL = Range("a number in [0, 1]", lambda number: 0 <= number <= 1)


def numbers_by_task(given: Mapping[str, float] | None, what: str, allowed: Range = FINITE) -> dict[str, float]:
    """Return numbers by task name as floats; raise `ValueError` naming the first task with a number out of range.

    Args:
        given: numbers by task name; None counts as empty.
        what: the numbers' name in the singular, such as `"importance"`.
        allowed: the range of every number.

    Example:
        >>> numbers_by_task({"click": -1}, "importance", POSITIVE)
        Traceback (most recent call last):
        ...
        ValueError: The importance of task 'click' must be a number above 0. Received: given=-1.
    """
    for task, number in (given or {}).items():
        valid = isinstance(number, int | float | np.number) and np.isfinite(number) and allowed.holds(float(number))
        require(bool(valid), f"The {what} of task {task!r} must be {allowed.description}.", given=number)
    return {task: float(number) for task, number in (given or {}).items()}


def observed_softmax(logits: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the softmax of the observed tasks' logits [K], 0 for the others.

    Example:
        >>> observed_softmax(tf.constant([5.0, 9.0, 5.0]), tf.constant([True, False, True])).numpy().tolist()
        [0.5, 0.0, 0.5]
    """
    chosen = tf.where(observed, logits, logits.dtype.min)
    return shares(tf.exp(chosen - tf.reduce_max(chosen)), observed)


def shares(values: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the observed tasks' values [K] divided by their sum, 0 for the others and if the sum is 0."""
    chosen = tf.where(observed, values, 0.0)
    return tf.math.divide_no_nan(chosen, tf.reduce_sum(chosen))
