from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.adaptation import extend_statistics, reserve_rows
from tfmtl.adaptation.vocabulary import _extended
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Preprocessor, Schema, Statistics, Text, fit_statistics

SCHEMA = Schema(
    query=[Categorical("user", min_count=2), IdSequence("recent", of="item", max_length=2, dtype="int64")],
    candidate=[Categorical("item", dtype="int64"), Text("title", min_count=1, max_size=3), Numeric("price")],
    labels=[Label("rating")],
)


def table(users: str, items: list[int], title: str = "red shoe") -> pd.DataFrame:
    rows = len(users)
    return pd.DataFrame(
        {
            "user": list(users), "item": items, "recent": [[i] for i in items], "title": [title] * rows,
            "price": np.arange(rows, dtype=float), "rating": np.arange(rows, dtype=float),
        }
    )  # fmt: skip


@pytest.fixture
def statistics() -> Statistics:
    return fit_statistics(SCHEMA, table("aabbb", [5, 5, 7, 7, 7]))


def test_a_value_enters_when_it_has_gathered_enough_occurrences(statistics: Statistics) -> None:
    once = extend_statistics(SCHEMA, statistics, table("cab", [5, 5, 5]))
    assert once.vocabularies["user"].tolist() == ["b", "a"]
    assert once.counts["user"].tolist() == [4, 3]
    assert once.waiting == {"user": {"c": 1}}
    twice = extend_statistics(
        SCHEMA, Statistics.from_config(json.loads(json.dumps(once.get_config()))), table("c", [5])
    )
    assert twice.vocabularies["user"].tolist() == ["b", "a", "c"]
    assert twice.counts["user"].tolist() == [4, 3, 2]
    assert twice.waiting == {}


def test_new_values_follow_the_old_ones_most_frequent_first(statistics: Statistics) -> None:
    later = extend_statistics(SCHEMA, statistics, table("aaaa", [9, 8, 8, 3]))
    assert later.vocabularies["item"].tolist() == [7, 5, 8, 3, 9]  # 3 before 9, which are equally frequent
    assert later.vocabularies["item"].dtype == np.int64
    assert later.counts["item"].tolist() == [3, 2, 2, 1, 1]
    encoded = Preprocessor(SCHEMA, later)({"item": np.array([7, 5, 8, 3, 9, 1])})
    assert encoded["item"].numpy().tolist() == [2, 3, 4, 5, 6, 1]


def test_a_full_vocabulary_takes_no_more(statistics: Statistics) -> None:
    later = extend_statistics(SCHEMA, statistics, table("aa", [5, 5], title="blue blue hat"))
    assert later.vocabularies["title"].tolist() == ["red", "shoe", "blue"]
    assert later.waiting["title"] == {"hat": 2}


def test_moments_labels_and_the_argument_stay(statistics: Statistics) -> None:
    before = json.dumps(statistics.get_config())
    later = extend_statistics(SCHEMA, statistics, table("zz", [1, 2]).assign(rating=np.nan))
    assert later.moments == statistics.moments
    assert later.labels == statistics.labels
    assert later.rows == 7
    assert json.dumps(statistics.get_config()) == before


def test_nothing_new_changes_counts_alone(statistics: Statistics) -> None:
    later = extend_statistics(SCHEMA, statistics, table("ab", [5, 7]))
    for name, values in statistics.vocabularies.items():
        assert later.vocabularies[name].tolist() == values.tolist()
    assert later.capacity == {}


def test_room_is_taken_in_steps(statistics: Statistics) -> None:
    """2 items + 3 new ones + ceil(0.5 * 5) free ones + 2 reserved: 10 indices, which hold 8 values."""
    once = extend_statistics(SCHEMA, statistics, table("aaa", [1, 2, 3]), headroom=0.5)
    assert once.size("item") == 10
    full = extend_statistics(SCHEMA, once, table("aaa", [11, 12, 13]), headroom=0.5)
    assert full.size("item") == 10
    assert extend_statistics(SCHEMA, full, table("a", [14]), headroom=0.5).size("item") == 9 + 5 + 2


def test_room_from_the_start(statistics: Statistics) -> None:
    roomy = reserve_rows(statistics, 0.5)
    assert {name: roomy.size(name) for name in ("user", "item", "title")} == {"user": 5, "item": 5, "title": 5}
    assert reserve_rows(roomy, 0.0).size("item") == 5  # existing values stay
    assert Statistics.from_config(roomy.get_config()).size("item") == 5


def test_arguments_are_checked(statistics: Statistics) -> None:
    with pytest.raises(ValueError, match="headroom"):
        reserve_rows(statistics, -0.1)
    with pytest.raises(ValueError, match="headroom"):
        extend_statistics(SCHEMA, statistics, table("a", [1]), headroom=-0.1)
    with pytest.raises(ValueError, match="empty"):
        extend_statistics(SCHEMA, statistics, table("a", [1]).iloc[:0])
    with pytest.raises(ValueError, match=r"lacks the columns \['item'\]"):
        extend_statistics(SCHEMA, statistics, table("a", [1]).drop(columns="item"))


def test_a_feature_kind_without_limits_takes_every_value() -> None:
    kind: Any = object()
    values, counts, waiting = _extended(kind, np.array(["a"], object), np.array([2]), {}, {"b": 1, "a": 3})
    assert (values.tolist(), counts.tolist(), waiting) == (["a", "b"], [5, 1], {})
