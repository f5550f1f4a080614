"""The order of a history: cosines without the own user, walks against shuffled rows, and the choice of `fit`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema, with_histories
from tfmtl.layers import SelfAttentionHistory
from tfmtl.recipes import fit
from tfmtl.recipes.history_order import Order, _cosines, _matrix, history_orders, history_poolings, order_of
from tfmtl.tasks import Regression, Retrieval

SCHEMA = Schema(
    [Categorical("user"), IdSequence("recent", of="item", max_length=8)],
    [Categorical("item")],
    labels=[Label("bought")],
)
ITEMS, EVENTS = 40, 12


def walks(users: int = 100, shuffled: bool = False, stays: bool = False) -> pd.DataFrame:
    """Return walks over a ring of items, one step at each event; a part of the events begin somewhere else."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(users):
        at = rng.integers(ITEMS)
        for day in range(EVENTS):
            at = rng.integers(ITEMS) if rng.random() < 0.3 else (at + (not stays)) % ITEMS
            rows.append((f"u{user}", f"i{at}", day, 1.0))
    table = pd.DataFrame(rows, columns=["user", "item", "day", "bought"])
    if shuffled:
        table["day"] = rng.permuted(table["day"].to_numpy().reshape(users, EVENTS), axis=1).ravel()
    return with_histories(table, SCHEMA, "day")


def order(table: pd.DataFrame) -> Order | None:
    return order_of(Preprocessor.fit(SCHEMA, table), "bought", "recent", table)


def test_the_latest_item_of_a_walk_is_nearest_to_the_next() -> None:
    found, shuffled = order(walks()), order(walks(shuffled=True))
    assert found is not None
    assert shuffled is not None
    assert found.lift > 1.3
    assert 0.9 < shuffled.lift < 1.1
    assert found.rows == 100 * EVENTS / ITEMS


def test_cosines_are_their_definition() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(2, 12, 60), rng.integers(2, 9, 60)
    of_item = {item: set(users[items == item]) for item in range(12)}
    rows = rng.permutation(60)[:30]
    left, right = rng.integers(2, 12, 30), items[rows]  # the items 9, 10 and 11 have no user
    expected = [
        len((of_item[i] & of_item[j]) - {user}) / max(len(of_item[i]) * len(of_item[j]), 1) ** 0.5
        for user, i, j in zip(users[rows], left, right, strict=True)
    ]
    found = _cosines(_matrix(users, items), users[rows], left, right)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 0 < np.count_nonzero(found) < 30


def test_items_that_nobody_had_have_no_cosine() -> None:
    users, items = np.array([2, 3, 4]), np.array([2, 3, 2])
    np.testing.assert_array_equal(_cosines(_matrix(users, items), users, np.full(3, 99), items), 0)


def test_unknown_users_and_items_have_no_cosine() -> None:
    matrix = _matrix(np.array([0, 1, 2, 2]), np.array([2, 3, 1, 3]))  # 0 is missing and 1 unknown
    assert matrix.nnz == 1


def test_rows_that_tell_nothing_give_no_order() -> None:
    assert order(walks(users=10)) is None  # 90 rows have three known items
    same = walks().assign(item="i0")
    assert order(with_histories(same, SCHEMA, "day")) is None  # the next item is the latest one


def test_the_draw_depends_on_the_seed_alone() -> None:
    table = walks()
    preprocessor = Preprocessor.fit(SCHEMA, table)
    found = [order_of(preprocessor, "bought", "recent", table, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_lift_of_no_similarity_is_one() -> None:
    assert Order(0.0, 0.0, 30.0).lift == 1.0
    assert Order(0.3, 0.2, 30.0).lift == pytest.approx(1.5)


def test_histories_in_order_have_attention() -> None:
    orders = {"recent": Order(0.2, 0.1, 30.0), "others": Order(0.1, 0.1, 30.0), "rare": Order(0.2, 0.1, 10.0)}
    poolings = history_poolings(orders, seed=3)
    assert list(poolings) == ["recent"]
    assert isinstance(poolings["recent"], SelfAttentionHistory)


def test_only_a_retrieval_by_a_user_has_an_order() -> None:
    table = walks()
    preprocessor = Preprocessor.fit(SCHEMA, table)
    assert list(history_orders(preprocessor, [Retrieval("bought")], table)) == ["recent"]
    assert history_orders(preprocessor, [Regression("bought")], table) == {}


@pytest.mark.parametrize(("shuffled", "value"), [(False, "attention over recent"), (True, "mean of recent")])
def test_fit_chooses_and_prints_the_pooling(shuffled: bool, value: str) -> None:
    table = walks(shuffled=shuffled)
    if shuffled:
        assert order(table) is not None
    found = fit(Preprocessor.fit(SCHEMA, table), [Retrieval("bought")], table, time="day", epochs=1, verbose=0)
    choice = next(choice for choice in found.choices if choice.name == "history")
    assert choice.value == value
    assert "times as similar to the next one as an item of the history" in choice.reason
    layers = [type(layer) for layer in found.model.network.layers]
    assert (SelfAttentionHistory in layers) == (not shuffled)


def test_fit_says_how_to_add_a_history() -> None:
    table = walks().drop(columns="recent")
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("bought")])
    found = fit(Preprocessor.fit(schema, table), [Retrieval("bought")], table, time="day", epochs=1, verbose=0)
    choice = next(choice for choice in found.choices if choice.name == "history")
    assert (choice.value, "IdSequence(..., of='item')" in choice.reason) == ("none", True)
