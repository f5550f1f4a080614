"""A schema with every feature kind and mode, a hostile table for it, and its expected encoding, in plain Python."""

from __future__ import annotations

import collections
import math
import re
from typing import Any

import numpy as np
import pandas as pd

from tfmtl.data.features import Categorical, Feature, IdSequence, MultiValued, Numeric, NumericSequence, Text, Vector
from tfmtl.data.schema import Label, Schema

SCHEMA = Schema(
    query=[
        Categorical("user"),
        Numeric("age"),
        Numeric("spend", missing="mean", transform="log1p"),
        Numeric("visits", missing="mean", transform="none"),
        Numeric("raw", transform="none"),
        IdSequence("recent", of="item", max_length=3, dtype="int64"),
        NumericSequence("days", of="recent", max_length=3),
        Categorical("city", min_count=2, max_size=2),
    ],
    candidate=[
        Categorical("item", dtype="int64"),
        MultiValued("genres", max_length=2, separator="|"),
        MultiValued("tags", max_length=2, dtype="int64"),
        Text("title", max_length=3, min_count=1),
        Vector("image", size=2),
    ],
    context=[Numeric("constant")],
    labels=[Label("click"), Label("stars", sample_weight="trust"), Label("shelf", "slot", classes=("top", "low"))],
)
LARGE = 2**60 + 1  # a float64 has no such number


def table() -> pd.DataFrame:
    """Eight rows; every kind of missing value that its column can hold."""
    none, nan = None, math.nan
    return pd.DataFrame(
        {
            "user": pd.Series(["ann", "bob", "ann", none, "", "Ünï", "ann", "bob"], dtype=object),
            "age": [20.0, nan, 40.0, 30.0, 20.0, 60.0, 10.0, 20.0],
            "spend": [0.0, 9.0, nan, -3.0, 1e30, 5.0, 0.5, 2.0],
            "visits": [1.0, 2.0, nan, 3.0, 4.0, 5.0, 6.0, 7.0],
            "raw": [1.5, nan, -2.0, 0.0, 1e30, 3.0, 4.0, 5.0],
            "recent": pd.Series([[7, LARGE], [], none, [8, 7, 9, 7], [99], [7], [-1, 8], [8]], dtype=object),
            "days": pd.Series(
                [[0.0, 2.5], [], none, [1, nan, 3, 4], np.array([1e30]), [none], [-2.0, 0.5], [7]], dtype=object
            ),
            "city": ["x", "y", "x", "z", "z", "y", "x", "once"],
            "item": pd.array([7, LARGE, 7, none, 8, 7, -1, 8], dtype="Int64"),
            "genres": pd.Series(["a|b", " b | a|c", none, "", "|", "a", "b||a", "c"], dtype=object),
            "tags": pd.Series([np.array([1, 2, 3]), [2], none, [], [-1, 1], [5], [1], [1]], dtype=object),
            "title": pd.Series(
                ["Toy Story (1995)", "ÜNÏ-Code", none, "", "toy", "a a a a", "!?", "Story"], dtype=object
            ),
            "image": pd.Series([[1, 2], [3.0, nan], none, [5, 6], [1, 2], [0, 0], [9, 9], [4, 4]], dtype=object),
            "constant": [3.0] * 8,
            "click": [1.0, 0.0, nan, 1.0, 0.0, 1.0, 0.0, 1.0],
            "stars": pd.array([5, none, 3, 4, 1, 2, 5, 5], dtype="Int64"),
            "trust": [1.0, nan, 0.0, 2.0, 1.0, 1.0, 0.5, 1.0],
            "slot": pd.Series(["top", "low", none, "top", "low", "low", "top", "top"], dtype=object),
        }
    )


def tokens(feature: Feature, value: Any) -> list[Any]:
    """Split one raw value into the values to look up; lists lose their missing values."""
    absent = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    if isinstance(feature, Categorical):
        return [] if absent or value in ("", -1) else [value]
    if absent:
        return []
    if isinstance(feature, Text):
        found = re.findall(r"[^\W_]+", value.lower())
    elif isinstance(feature, MultiValued) and feature.separator:
        found = [piece.strip() for piece in value.split(feature.separator) if piece.strip()]
    else:
        found = list(value)
    return found


def vocabulary(feature: Any, column: list[Any]) -> list[Any]:
    """Order by count, then by value."""
    cut = (
        getattr(feature, "max_length", 1)
        if not isinstance(feature, Text) and not getattr(feature, "separator", None)
        else None
    )
    counts = collections.Counter(t for value in column for t in tokens(feature, value)[:cut] if t != -1)
    kept = sorted((-n, t) for t, n in counts.items() if n >= feature.min_count)
    return [t for _, t in kept][: feature.max_size]


def indices(feature: Any, values: list[Any], value: Any) -> Any:
    """Encode one raw value: 0 missing, 1 unknown, 2 + rank."""
    found = [0 if t == -1 else values.index(t) + 2 if t in values else 1 for t in tokens(feature, value)]
    if isinstance(feature, Categorical):
        return found[0] if found else 0
    return (found + [0] * feature.max_length)[: feature.max_length]


def numbers(feature: Numeric, column: list[float]) -> list[list[float]]:
    """Encode a numeric column by the definition."""
    shaped = [math.copysign(math.log1p(abs(x)), x) if feature.transform == "log1p" else x for x in column]
    known = [x for x in shaped if math.isfinite(x)]
    mean = sum(known) / len(known)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in known) / len(known)) or 1.0
    if feature.transform == "none":
        rows = [x if math.isfinite(x) else (mean if feature.missing == "mean" else 0.0) for x in shaped]
    else:
        rows = [(x - mean) / deviation if math.isfinite(x) else 0.0 for x in shaped]
    flags = [float(feature.missing == "learned" and not math.isfinite(x)) for x in shaped]
    return [[x, flag] for x, flag in zip(rows, flags, strict=True)]
