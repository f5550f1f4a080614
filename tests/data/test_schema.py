from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.every_kind import SCHEMA
from tfmtl.data.features import Categorical, IdSequence, MultiValued, Numeric, NumericSequence
from tfmtl.data.schema import Label, Schema

USER, ITEM = Categorical("user"), Categorical("item")


def test_names_by_role_vocabulary_and_column() -> None:
    schema = Schema(
        [USER, IdSequence("recent", of="item"), Numeric("age")],
        [ITEM],
        [Categorical("page")],
        [Label("click"), Label("stars", "rating", sample_weight="trust")],
    )
    assert list(schema.features) == ["user", "recent", "age", "item", "page"]
    assert list(schema.vocabularies) == ["user", "item", "page"]
    assert (schema.query_id, schema.candidate_id) == ("user", "item")
    assert schema.tasks == ("click", "stars")
    assert list(schema.columns()) == ["user", "recent", "age", "item", "page", "click", "rating", "trust"]
    assert schema.label("stars").column == "rating"


def test_ids_can_be_chosen() -> None:
    schema = Schema([Numeric("age"), USER], [MultiValued("genres"), ITEM], query_id="user", candidate_id="item")
    assert (schema.query_id, schema.candidate_id) == ("user", "item")


def test_a_schema_without_candidates_has_no_candidate_id() -> None:
    assert Schema([USER]).candidate_id == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"query": []}, "A schema needs at least one query feature."),
        (
            {"query": [USER], "context": [USER]},
            "Every feature name may occur once in a schema. Received: twice=['user'].",
        ),
        ({"query": [USER], "labels": [Label("a", "b"), Label("a")]}, "Every task may have one label"),
        ({"query": [Numeric("age")], "query_id": "age"}, "`query_id` must be a Categorical feature."),
        (
            {"query": [USER], "candidate": [Numeric("price")]},
            "`candidate_id` must be a Categorical feature. Candidates without an id have no corpus; list their",
        ),
        (
            {"query": [USER], "query_id": "usr"},
            "Unknown query feature ['usr'] in `query_id`; known: ['user']. Did you mean 'user'?",
        ),
        ({"query": [USER], "candidate": [ITEM], "candidate_id": "user"}, "Unknown candidate feature ['user']"),
        (
            {"query": [USER, IdSequence("recent", of="itm")], "candidate": [ITEM]},
            "Unknown feature ['itm'] in `of` of 'recent'",
        ),
        (
            {"query": [USER, IdSequence("recent", of="user", dtype="int64")]},
            "must be a Categorical feature with the same dtype",
        ),
        (
            {"query": [USER, Numeric("age"), IdSequence("recent", of="age")]},
            "`of` of 'recent' must be a Categorical feature",
        ),
    ],
)
def test_contradictions_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Schema(**arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"query": USER}, "`query` must be tuple or list."), ({"query": ["user"]}, "`query[...]` must be Feature.")],
)
def test_wrong_types_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        Schema(**arguments)


def test_label_of_an_unknown_task() -> None:
    with pytest.raises(ValueError, match=re.escape("Unknown task ['clck'] in the schema; known: ['click'].")):
        Schema([USER], labels=[Label("click")]).label("clck")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task": "a b"}, "`task` must be letters, digits and underscores of ASCII"),
        ({"task": "a", "classes": ("x", "x")}, "`classes` must be distinct."),
    ],
)
def test_bad_label_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Label(**arguments)


@pytest.mark.parametrize("role", ["query", "candidate", "context", "labels"])
def test_config_holds_every_field_of_every_part(role: str) -> None:
    config = SCHEMA.get_config()
    assert set(config) == {field.name for field in dataclasses.fields(Schema)}
    for part, values in zip(getattr(SCHEMA, role), config[role], strict=True):
        assert set(values) - {"kind"} == {field.name for field in dataclasses.fields(part)}


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Draw a schema in which every field differs from its default, with ids anywhere among the features."""
    ids = [Categorical(f"id_{n}", draw(st.sampled_from(("string", "int64"))), 2, 9) for n in range(6)]
    text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=3)
    classes = draw(st.lists(text | st.integers() | st.booleans(), unique_by=lambda value: (str(value), value)))
    others = [feature for feature in SCHEMA.features.values() if not isinstance(feature, IdSequence | NumericSequence)]
    numbers = NumericSequence("numbers", of="list", max_length=5, transform="none")
    query, candidate = draw(st.permutations([*ids[:3], *others[:3]])), draw(st.permutations([*ids[3:], *others[3:6]]))
    return Schema(
        query=[*query, IdSequence("list", of="id_0", max_length=5, dtype=ids[0].dtype), numbers],
        candidate=candidate,
        context=draw(st.permutations(others[6:])),
        labels=[Label("task", draw(text), draw(text), tuple(dict.fromkeys(classes)))],
        query_id=draw(st.sampled_from(ids[:3])).name,
        candidate_id=draw(st.sampled_from(ids[3:])).name,
    )


@given(schemas())
def test_config_survives_json(schema: Schema) -> None:
    for one in (SCHEMA, schema):
        assert Schema.from_config(json.loads(json.dumps(one.get_config()))) == one


def test_a_schema_needs_no_user() -> None:
    schema = Schema([Numeric("age"), USER])
    assert schema.query_id == ""  # the user is the first feature or named, never guessed
    assert Schema.from_config(schema.get_config()) == schema
    with pytest.raises(ValueError, match=r"`to_sequences` needs the user, .*; name a Categorical query feature by"):
        schema.user("`to_sequences`")
