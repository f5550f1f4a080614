"""Columns of a pandas table as the raw arrays of the model; every error names its column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_type
from tfmtl.data.features import Feature
from tfmtl.data.interchange import as_frame
from tfmtl.data.schema import Label, Schema
from tfmtl.data.values import numbers

Columns = dict[str, np.ndarray]
NAME_CLASSES = "; name the classes of text in `Label(classes=...)`"
"""The cure for a label column of strings."""


def check_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `ValueError` if the table is empty, lacks one of `names` or has it twice."""
    cure = "Convert it, such as by `table.to_pandas()`, or read files by `tfmtl.data.open_files`."
    require_type(frame, pd.DataFrame, "table", cure)
    names = list(dict.fromkeys(names))
    missing = [name for name in names if name not in frame.columns]
    known = list(map(str, frame.columns))
    require(not missing, f"The table lacks the columns {missing} that the schema names; it has {known}.")
    twice = [name for name in names if known.count(name) > 1]
    require(not twice, f"The table has the columns {twice} more than once; rename or drop the others.")
    require(len(frame) > 0, "The table is empty; at least one row is needed.")


def to_columns(frame: pd.DataFrame, features: Iterable[Feature]) -> Columns:
    """Convert feature columns to the raw arrays a serving client would send.

    Args:
        frame: the table.
        features: features to convert.

    Returns:
        Arrays by feature name: strings (object) or int64 [N] for categories, [N, length] for lists, and numbers [N] or
            [N, size] in the dtype of the feature.

    Raises:
        ValueError: naming the column, if it is absent, holds another type, or an infinite number.
    """
    features, frame = list(features), as_frame(frame)
    check_columns(frame, [feature.column for feature in features])
    return {feature.name: feature.read(frame[feature.column]) for feature in features}


def to_labels(frame: pd.DataFrame, schema: Schema, dtype: Any = np.float32) -> tuple[Columns, Columns]:
    """Convert label columns to `dtype` and weights to float32 [N] by task; a missing label is NaN, its weight 0.

    Raises:
        ValueError: naming the column, if it is absent, not a number, infinite, or a weight is negative or missing.
    """
    frame = as_frame(frame)
    check_columns(frame, [c for label in schema.labels for c in (label.column, label.sample_weight) if c])
    labels = {label.task: _label(label, frame[label.column], dtype) for label in schema.labels}
    weights = {label.task: _weight(label, frame, labels[label.task]) for label in schema.labels}
    return labels, weights


def _label(label: Label, column: pd.Series, dtype: Any) -> np.ndarray:
    if label.classes:
        known = column.isin(label.classes)
        unknown = column[column.notna() & ~known].unique()[:3].tolist()
        require(
            not unknown,
            f"Label column {label.column!r} holds {unknown}, which the classes {list(label.classes)} lack.",
        )
        positions = column.map({value: float(i) for i, value in enumerate(label.classes)})
        return positions.to_numpy(dtype, na_value=np.nan)
    return numbers(column, f"Label column {label.column!r}", dtype, NAME_CLASSES)


def _weight(label: Label, frame: pd.DataFrame, labels: np.ndarray) -> np.ndarray:
    observed = ~np.isnan(labels)
    if label.sample_weight is None:
        return observed.astype(np.float32)
    weights = numbers(frame[label.sample_weight], f"Weight column {label.sample_weight!r}")
    bad = observed & ~(weights >= 0)
    require(
        not bad.any(),
        f"Weight column {label.sample_weight!r} of task {label.task!r} must be zero or positive where the label is "
        f"known; {int(bad.sum())} rows are not, the first at position {int(bad.argmax())}.",
    )
    return np.where(observed, weights, 0).astype(np.float32)
