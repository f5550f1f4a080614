from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from tfmtl.data.features import Categorical, Feature, IdSequence, MultiValued, Numeric, NumericSequence, Text, Vector


@pytest.mark.parametrize(
    ("feature", "vocabulary", "shape"),
    [
        (Categorical("a"), "a", ()),
        (MultiValued("a", max_length=3), "a", (3,)),
        (Text("a", max_length=5), "a", (5,)),
        (IdSequence("a", of="b", max_length=7), "b", (7,)),
        (Numeric("a"), None, (2,)),  # value and missing flag
        (NumericSequence("a", of="b", max_length=3), None, (7,)),  # value and flag of each position, flag of all
        (Vector("a", size=4), None, (5,)),  # 4 values and missing flag
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Feature) else "",
)
def test_vocabulary_and_shape(feature: Feature, vocabulary: str | None, shape: tuple[int, ...]) -> None:
    assert feature.vocabulary == vocabulary
    assert feature.encoded_shape == shape


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        (Categorical, {"name": "user id"}, "`name` must be letters, digits and underscores after"),
        (Categorical, {"name": ""}, "Received: name=''."),
        (
            Categorical,
            {"name": "a", "dtype": "str"},
            "`dtype` of feature 'a' must be 'string' or 'int64'. Received: dtype='str'.",
        ),
        (Categorical, {"name": "a", "min_count": 0}, "`min_count` must be a positive integer. Received: min_count=0."),
        (Categorical, {"name": "a", "max_size": -1}, "`max_size` must be a positive integer. Received: max_size=-1."),
        (Text, {"name": "a", "max_length": 0}, "`max_length` must be a positive integer. Received: max_length=0."),
        (MultiValued, {"name": "a", "separator": ""}, "`separator` of feature 'a' must not be empty"),
        (MultiValued, {"name": "a", "separator": "|", "dtype": "int64"}, "gives strings; leave `dtype` at 'string'."),
        (IdSequence, {"name": "a"}, "`of` of feature 'a' must name the categorical feature it holds. Received: of=''."),
        (
            Numeric,
            {"name": "a", "missing": "zero"},
            "`missing` must be 'learned', 'mean' or 'error'. Received: missing='zero'.",
        ),
        (Numeric, {"name": "a", "transform": "log"}, "Received: transform='log'."),
        (
            NumericSequence,
            {"name": "a"},
            "`of` of feature 'a' must name the `IdSequence` it belongs to. Received: of=''.",
        ),
        (NumericSequence, {"name": "a", "of": "b", "max_length": 0}, "`max_length` must be a positive integer."),
        (
            NumericSequence,
            {"name": "a", "of": "b", "transform": "log"},
            "`transform` must be 'log1p' or 'none'. Received",
        ),
        (Vector, {"name": "a"}, "`size` must be a positive integer. Received: size=0."),
    ],
)
def test_bad_argument_is_named(kind: type[Feature], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind(**arguments)


def test_the_base_is_no_kind() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Feature("a")  # type: ignore[abstract]


def test_features_are_values() -> None:
    assert Categorical("a", min_count=2) == Categorical("a", min_count=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Categorical("a").name = "b"  # type: ignore[misc]
