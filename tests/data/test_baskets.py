"""Histories of baskets: the rows of one order share one history without the order itself."""

from __future__ import annotations

import pandas as pd
import pytest

from tfmtl.data import Categorical, IdSequence, NumericSequence, Schema, with_histories

SCHEMA = Schema(
    [
        Categorical("user"),
        IdSequence("recent", of="item", max_length=4),
        NumericSequence("ages", of="recent", max_length=4),
    ],
    [Categorical("item")],
)


def orders() -> pd.DataFrame:
    """Items are put into baskets at different times; baskets 2 and 3 of user u overlap, and two users share an id."""
    return pd.DataFrame(
        {
            "user": ["u", "u", "v", "u", "u", "u", "u", "v", "u"],
            "item": ["a", "b", "c", "d", "e", "f", "g", "h", "i"],
            "time": [1.0, 2.0, 2.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
            "order": ["1", "1", "1", "2", "3", "2", "3", None, None],
        }
    )


def test_rows_of_a_basket_share_one_history_without_the_basket() -> None:
    found = with_histories(orders(), SCHEMA, "time", basket="order", ages=["ages"])
    baskets = [[], [], [], ["b", "a"], ["f", "d", "b", "a"], ["b", "a"], ["f", "d", "b", "a"], ["c"]]
    assert found["recent"].tolist() == [*baskets, ["g", "e", "f", "d"]]
    ages = [[], [], [], [4.0, 4.0], [1.0, 1.0, 5.0, 5.0], [4.0, 4.0], [1.0, 1.0, 5.0, 5.0], [6.5]]
    assert found["ages"].tolist() == [*ages, [4.0, 4.0, 5.0, 5.0]]
    without = with_histories(orders(), SCHEMA, "time")["recent"]
    assert without[1] == ["a"]  # an item of its own order


def test_a_basket_of_the_past_is_one_moment_with_its_rows_in_the_frame() -> None:
    table = orders()
    found = with_histories(table.iloc[5:], SCHEMA, "time", past=table.iloc[:5], basket="order")
    assert found["recent"].tolist() == with_histories(table, SCHEMA, "time", basket="order")["recent"].tolist()[5:]


def test_a_basket_contradicts_its_own_earlier_rows() -> None:
    with pytest.raises(ValueError, match="`same_moment` would put rows of a basket"):
        with_histories(orders(), SCHEMA, "time", basket="order", same_moment=True)
    with pytest.raises(ValueError, match=r"\['trip'\]"):
        with_histories(orders(), SCHEMA, "time", basket="trip")
