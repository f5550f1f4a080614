from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    MultiValued,
    Numeric,
    Preprocessor,
    Schema,
    to_batch,
    to_sequences,
    with_histories,
)
from tfmtl.data.sequences import PLACES, events_of

LENGTH = 4


def schema_of(length: int = LENGTH, **others: Any) -> Schema:
    return Schema(
        query=[
            Categorical("user"),
            Numeric("age"),
            IdSequence("recent", of="item", max_length=length),
            *others.values(),
        ],
        candidate=[Categorical("item"), MultiValued("tags", max_length=2)],
        labels=[Label("rating", sample_weight="trust")],
    )


def table_of(counts: list[int], seed: int = 0) -> pd.DataFrame:
    """Events of users, of which some are at one moment, the rows mixed; a rating in four is missing."""
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    rows = len(user)
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in user],
            "age": 20.0 + user,
            "item": [f"i{k}" for k in rng.integers(0, 9, rows)],
            "tags": [[f"t{k}", "all"][: k % 3] for k in range(rows)],
            "rating": np.where(rng.random(rows) < 0.25, np.nan, np.arange(rows) + 1.0),
            "trust": 0.5 + rng.random(rows),
            "time": rng.integers(0, 1 + rows // 2, rows),
        }
    )


def preprocessor_of(table: pd.DataFrame, schema: Schema) -> Preprocessor:
    return Preprocessor.fit(schema, table)


COUNTS = st.lists(st.integers(1, 14), min_size=1, max_size=5)


@settings(max_examples=10, deadline=None)
@given(counts=COUNTS, overlap=st.integers(0, LENGTH - 1), seed=st.integers(0, 5), same_moment=st.booleans())
def test_every_event_is_learned_from_once_in_the_order_of_time(
    counts: list[int], overlap: int, seed: int, same_moment: bool
) -> None:
    table, schema = table_of(counts, seed), schema_of()
    preprocessor = preprocessor_of(table, schema)
    found = to_sequences(table, preprocessor, "time", overlap=overlap, same_moment=same_moment)
    ordered = table.iloc[np.lexsort((table["time"], pd.factorize(table["user"])[0]))]
    expected = to_batch(with_histories(ordered, schema, "time", same_moment=same_moment), preprocessor)
    events = events_of(found, schema)
    for name in ("user", "age", "item", "tags"):
        np.testing.assert_array_equal(events.features[name], expected.features[name])
    np.testing.assert_array_equal(events.labels["rating"], expected.labels["rating"])
    np.testing.assert_array_equal(events.weights["rating"], expected.weights["rating"])
    lists = beginnings(found.features["recent"].numpy(), events.features[PLACES].numpy())
    ends = events.features[PLACES].numpy() % LENGTH
    for own, whole, end in zip(lists, expected.features["recent"].numpy(), ends, strict=True):
        real = whole[whole > 0]
        before = bool(own[end])  # none before a user's first event and before a row that begins within a moment
        kept = min(len(real), end + before)  # the row's own part of the history, and the event before the row
        assert own[:kept].tolist() == real[:kept].tolist()
        assert not own[kept:].any()


def beginnings(lists: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return for each position the list up to it, most recent first, then zeros."""
    rows, steps = np.divmod(places, lists.shape[1])
    return np.stack(
        [np.pad(lists[r, : t + 1][::-1], (0, lists.shape[1] - t - 1)) for r, t in zip(rows, steps, strict=True)]
    )


def test_padding_is_missing() -> None:
    table = table_of([3])
    found = to_sequences(table, preprocessor_of(table, schema_of()), "time")
    assert found.events.numpy().tolist() == [[True, True, True, False]]
    assert np.isnan(found.labels["rating"][0, 3])
    for column in (*found.features.values(), *found.weights.values()):
        assert not np.any(column[0, 3])
    assert found.features["recent"].numpy()[0, 0] == 0  # nothing was before the first event


def test_a_row_with_overlap_begins_with_history() -> None:
    # Ten events in rows of 4 that repeat 2: the last row learns from its last two, the first from all of its own.
    table = table_of([10])
    found = to_sequences(table, preprocessor_of(table, schema_of()), "time", overlap=2)
    learned = [[True, True, True, True], *[[False, False, True, True]] * 3]
    assert found.events.numpy().tolist() == learned
    item = found.features["item"].numpy()
    np.testing.assert_array_equal(item[1:, :2], item[:-1, 2:])


def test_labels_may_be_absent() -> None:
    table = table_of([3, 2])
    found = to_sequences(
        table.drop(columns=["rating", "trust"]), preprocessor_of(table, schema_of()), "time", labels=False
    )
    assert found.labels == found.weights == {}


def test_the_past_fills_histories() -> None:
    schema = schema_of(length=3)
    past = pd.DataFrame({"user": ["u", "v", "u"], "item": ["a", "b", "c"], "time": [1, 1, 2]})
    rows = pd.DataFrame(
        {"user": ["v", "u", "w", "u"], "item": ["d", "e", "f", "g"], "time": [1, 5, 1, 4]}, index=[7, 5, 3, 1]
    )
    found = with_histories(rows, schema, "time", past=past)["recent"]
    assert found.to_dict() == {7: [], 5: ["g", "c", "a"], 3: [], 1: ["c", "a"]}
    found = with_histories(rows, schema, "time", past=past, same_moment=True)["recent"]
    assert found.to_dict() == {7: ["b"], 5: ["g", "c", "a"], 3: [], 1: ["c", "a"]}


def test_a_basket_is_not_in_its_own_history() -> None:
    schema = schema_of(length=3)
    table = table_of([5]).assign(item=["a", "b", "c", "d", "e"], time=[1, 2, 2, 2, 3])
    assert with_histories(table, schema, "time")["recent"].tolist() == [[], ["a"], ["a"], ["a"], ["d", "c", "b"]]
    # In rows of 3 from the end: (a b), (c d e). The basket b c d is cut: c and d have no history, e has d and c.
    preprocessor = preprocessor_of(table, schema)
    found = to_sequences(table, preprocessor, "time")
    assert found.ends.numpy().tolist() == [[0, 1, 0], [0, 0, 2]]
    a, c, d = preprocessor({"item": np.array(["a", "c", "d"])})["item"].numpy()
    assert found.features["recent"].numpy().tolist() == [[0, a, 0], [0, c, d]]


TEXTS = ["9/1/2024", "10/1/2024", "11/1/2024"]


@pytest.mark.parametrize(
    "make",
    [
        lambda table, schema: with_histories(table, schema, "time"),
        lambda table, schema: to_sequences(table, preprocessor_of(table, schema), "time"),
    ],
    ids=["histories", "sequences"],
)
def test_text_is_not_ordered_by_its_letters(make: Any) -> None:
    table, schema = table_of([3]).assign(time=TEXTS), schema_of()
    rule = r"^Column 'time' must hold datetimes or numbers to order rows by time\. Received: string values of dtype .*"
    with pytest.raises(TypeError, match=rule + "convert it with pandas.to_datetime"):
        make(table, schema)


def test_times_with_a_zone_are_compared_as_moments() -> None:
    schema = schema_of()
    past = pd.DataFrame({"user": "u", "item": ["a", "b"]})
    past["time"] = pd.to_datetime(["2024-01-01 10:00", "2024-01-01 12:00"]).tz_localize("UTC")
    rows = pd.DataFrame({"user": "u", "item": ["c"]})
    rows["time"] = pd.to_datetime(["2024-01-01 12:30"]).tz_localize("Europe/Oslo")  # 11:30 UTC
    assert with_histories(rows, schema, "time", past=past)["recent"].tolist() == [["a"]]
    naive = rows.assign(time=pd.to_datetime(["2024-01-01 12:30"]))
    sentence = "Column 'time' of the tables must hold times of one kind; give all of them a time zone, or none."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        with_histories(naive, schema, "time", past=past)
    mixed = past.assign(time=np.array([past["time"].iloc[0], pd.Timestamp("2024-01-01")], object))
    with pytest.raises(TypeError, match=re.escape("Column 'time' mixes time zones; convert it with")):
        with_histories(mixed, schema, "time")


def test_a_list_of_other_ids_is_no_history() -> None:
    friends = IdSequence("friends", of="user", max_length=2)
    schema = schema_of(friends=friends)
    table = table_of([2, 1]).assign(friends=[["u1"], ["u7", "u8"], []])
    found = with_histories(table, schema, "time")
    assert found["friends"].tolist() == table["friends"].tolist()
    assert found["recent"].map(len).sum() == 1
    named = with_histories(table.assign(recent=[["x"]] * 3), schema, "time", histories=["friends"])
    assert named["recent"].tolist() == [["x"]] * 3
    assert sorted(named["friends"].map(len)) == [0, 0, 1]
    with pytest.raises(ValueError, match=re.escape("Unknown history ['age'] in the `IdSequence` features")):
        with_histories(table, schema, "time", histories=["age"])


@pytest.mark.parametrize(
    ("schema", "arguments", "sentence"),
    [
        (Schema([Categorical("user")], [Categorical("item")]), {}, "Sequences need a history: give the schema an"),
        (
            schema_of(other=IdSequence("old", of="item", max_length=2)), {},
            "Histories of sequences must have one `max_length`. Received: lengths={'recent': 4, 'old': 2}.",
        ),
        (schema_of(), {"overlap": 4}, "`overlap` must be from 0 to 3. Received: overlap=4."),
        (schema_of(), {"time": "tme"}, "Unknown column ['tme'] in the table"),
        (schema_of(), {"time": "late"}, "Column 'late' has 1 missing values in 3 rows; drop these rows."),
        (
            schema_of(friends=IdSequence("friends", of="user", max_length=4)), {},
            "Sequences hold histories of the candidate's id alone; train ['friends'] on single rows.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_laid_out_is_named(schema: Schema, arguments: dict[str, Any], sentence: str) -> None:
    table = table_of([3])
    table = table.assign(late=[1.0, None, 2.0])
    preprocessor = preprocessor_of(table, schema)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        to_sequences(table, preprocessor, **{"time": "time", **arguments})


def test_histories_need_a_history() -> None:
    with pytest.raises(ValueError, match="The schema has no history: give it an `IdSequence`"):
        with_histories(table_of([2]), Schema([Categorical("user")], [Categorical("item")]), "time")
