"""Weights as integer multiples of a step: int8 codes with one step per row or per column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfmtl._keras import tf

_STEP = tf.bfloat16.as_numpy_dtype
_HEAVY = 8  # least number of entries that share a step: with fewer, the steps take more bytes than they save


class Codes(NamedTuple):
    """A weight w = codes * steps in stored form.

    Attributes:
        codes: int8, of the weight's shape.
        steps: bfloat16, of size 1 along the axis in which entries share a step.
    """

    codes: np.ndarray
    steps: np.ndarray

    def values(self) -> np.ndarray:
        """Return the weight as float32, exactly: the product of a code of 7 binary digits and a step of 8 fits."""
        return self.codes.astype(np.float32) * self.steps.astype(np.float32)


def nearest_codes(values: np.ndarray, bits: int) -> Codes:
    """Return the codes nearest to a float32 weight, with one step per row or per column, the better of the two.

    step = max |w| / q, rounded to bfloat16, q = 2^(bits - 1) - 1; code = round(w / step), in [-q, q]. The code of
    the largest entry is q in spite of the rounding, so that `exact_codes` can recover the steps.

    Args:
        values: finite weight of rank 1 or more.
        bits: 2 to 8.

    Example:
        >>> nearest_codes(np.float32([[0.0, 0.5, -1.0]] * 8), 3).codes[0].tolist()  # one step per column is nearer
        [0, 3, -3]
    """
    found = [_codes(values, axis, 2 ** (bits - 1) - 1) for axis in _axes(values.shape)]
    return min(found, key=lambda codes: float(np.sum(np.square(codes.values() - values))))


def exact_codes(values: np.ndarray) -> Codes | None:
    """Return codes that are exactly equal to a weight, or None if none exist."""
    for axis in _axes(values.shape):
        for bits in range(8, 1, -1):
            codes = _codes(values, axis, 2 ** (bits - 1) - 1)
            if np.array_equal(codes.values(), values):
                return codes
    return None


def _axes(shape: tuple[int, ...]) -> list[int | None]:
    """Return the axes along which entries may share a step; None for all of them."""
    axes = [axis for axis in (-1, -2) if len(shape) >= -axis > 0 and shape[axis] >= _HEAVY and len(shape) > 1]
    return [*axes, None] if not axes else list(axes)


def _codes(values: np.ndarray, axis: int | None, largest: int) -> Codes:
    steps = (np.max(np.abs(values), axis=axis, keepdims=True, initial=0.0) / largest).astype(_STEP)
    divisor = np.where(steps > 0, steps, 1).astype(np.float32)
    return Codes(np.clip(np.rint(values / divisor), -largest, largest).astype(np.int8), steps)
