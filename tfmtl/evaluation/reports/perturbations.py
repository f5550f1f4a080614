"""Perturbed columns of a table: noise in numbers, missing values and unknown ids."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl.data import Feature, IdSequence, NumericSequence, Text
from tfmtl.data.values import MISSING_INTEGER

_LARGEST = np.iinfo(np.int64).max


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of a kind of perturbation and its column; other columns do not change its draws."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def drawn(count: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return a mask [count] that is true for round(share count) positions.

    The positions of a smaller share are among those of a larger one, for the same state of the generator.

    Example:
        >>> drawn(4, 0.5, np.random.default_rng(0)).sum().item()
        2
    """
    found = np.zeros(count, bool)
    found[rng.permutation(count)[: round(share * count)]] = True
    return found


def holds_numbers(feature: Feature) -> bool:
    """Return whether a feature reads numbers."""
    return bool(feature.raw_spec.dtype.is_floating)


def holds_ids(feature: Feature) -> bool:
    """Return whether a feature reads ids of a vocabulary; texts have words instead."""
    return feature.vocabulary is not None and not isinstance(feature, Text) and not holds_numbers(feature)


def holds_history(feature: Feature) -> bool:
    """Return whether a feature reads a list of events."""
    return isinstance(feature, IdSequence | NumericSequence)


def noisy(feature: Feature, column: pd.Series, strength: float, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return the numbers of a column with x + strength s z; missing numbers stay missing.

    s is the standard deviation of the column, for vectors that of each position, and z are normal draws.

    Args:
        feature: reads the column.
        column: numbers [N], or lists of them.
        strength: of the noise, in standard deviations.
        rng: gives z, which are the same for all strengths.
    """
    values = np.asarray(feature.unrounded.read(column), np.float64)
    known = np.isfinite(values)
    axis = None if isinstance(feature, NumericSequence) else 0
    count = np.maximum(known.sum(axis=axis), 1)
    mean = np.where(known, values, 0.0).sum(axis=axis) / count
    deviation = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=axis) / count)
    return (values + strength * deviation * rng.standard_normal(values.shape)).astype(
        feature.raw_spec.dtype.as_numpy_dtype
    )


def with_missing(column: pd.Series, rows: npt.NDArray[np.bool_]) -> pd.Series:
    """Return a column with missing values in some rows [N]; large integers keep their digits."""
    if isinstance(column.dtype, np.dtype):
        if column.dtype == object:
            values = column.to_numpy(copy=True)
            values[rows] = None
            return pd.Series(values, column.index, object, name=column.name)
        kinds = {"i": "Int64", "u": "UInt64", "b": "boolean"}
        column = column.astype(kinds.get(column.dtype.kind, column.dtype))
    return column.mask(rows)


def with_unknown(
    feature: Feature, column: pd.Series, share: float, unknown: str | int, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Return the ids of a column with a share of them replaced by an unknown one; missing ones stay missing.

    Args:
        feature: reads the column.
        column: ids [N], or lists of them, in which each id counts; a list in one string counts as one id.
        share: of the ids that are replaced.
        unknown: the id.
        rng: chooses the ids.
    """
    values = np.array(feature.read(column))
    present = np.flatnonzero(values.reshape(-1) != (MISSING_INTEGER if values.dtype != object else ""))
    values.reshape(-1)[present[drawn(len(present), share, rng)]] = unknown
    return values


def unknown_id(feature: Feature, vocabulary: Collection[Any]) -> str | int:
    """Return an id of a feature's type that a vocabulary does not hold.

    Example:
        >>> from tfmtl.data import Categorical
        >>> unknown_id(Categorical("user"), ["unknown", "b"]), unknown_id(Categorical("user", dtype="int64"), [7])
        ('unknown1', 9223372036854775807)
    """
    known = {value.decode() if isinstance(value, bytes) else value for value in np.asarray(vocabulary).tolist()}
    if feature.raw_spec.dtype.is_integer:
        return next(int(_LARGEST - i) for i in range(len(known) + 1) if _LARGEST - i not in known)
    names = ("unknown" + (str(i) if i else "") for i in range(len(known) + 1))
    return next(name for name in names if name not in known)
