"""Descriptions that earlier versions wrote."""

from __future__ import annotations

from typing import Any

from tfmtl._former import whole_schema

FEATURES: dict[str, Any] = {
    "user": {"role": "query", "kind": "Categorical", "min_count": 2},
    "age": {"role": "query", "kind": "Numeric", "column": "Age"},
    "item": {"role": "candidate", "kind": "Categorical"},
}


def test_a_card_of_features_alone_becomes_a_schema() -> None:
    assert whole_schema(FEATURES) == {
        "query": [
            {"name": "user", "kind": "Categorical", "min_count": 2},
            {"name": "age", "kind": "Numeric", "column": "Age"},
        ],
        "candidate": [{"name": "item", "kind": "Categorical"}],
        "context": [],
        "query_id": "user",
        "candidate_id": "item",
    }


def test_of_two_possible_ids_none_is_chosen() -> None:
    more = {**FEATURES, "brand": {"role": "candidate", "kind": "Categorical"}}
    assert whole_schema(more)["candidate_id"] == ""


def test_a_whole_schema_stays() -> None:
    whole = whole_schema(FEATURES)
    assert whole_schema(whole) == whole
