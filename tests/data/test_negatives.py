"""Sampled negatives: which pairs, which labels, in which proportion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfmtl import LabelGraph
from tfmtl.data import Categorical, Label, Numeric, Schema, with_sampled_negatives

SCHEMA = Schema(
    [Categorical("user"), Numeric("age")],
    [Categorical("item"), Numeric("price")],
    [Categorical("shelf")],
    labels=[Label("click"), Label("buy"), Label("stars")],
)
CHAIN = LabelGraph.chain("click", "buy")


def events(rows: int = 60, users: int = 6, items: int = 15) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    columns = {"user": [f"u{u}" for u in user], "age": user + 20.0, "item": [f"i{i}" for i in item]}
    columns |= {"price": item * 2.0, "shelf": np.resize(["top", "side"], rows), "click": 1.0}
    return pd.DataFrame({**columns, "buy": (item % 2) * 1.0, "stars": 4.0, "note": "x"})


def test_new_rows_are_unknown_pairs_with_the_features_of_both_sides() -> None:
    frame = events()
    known = pd.DataFrame({"user": ["u0"] * 3, "item": ["i1", "i2", "elsewhere"]})
    made = with_sampled_negatives(frame, SCHEMA, CHAIN, per_row=3, known=known)
    pd.testing.assert_frame_equal(made.iloc[: len(frame)], frame)
    new = made.iloc[len(frame) :]
    assert len(new) == 3 * len(frame)
    had = {*zip(frame["user"], frame["item"], strict=True), *zip(known["user"], known["item"], strict=True)}
    assert not had & {*zip(new["user"], new["item"], strict=True)}
    np.testing.assert_array_equal(new["age"], new["user"].str[1:].astype(float) + 20)
    np.testing.assert_array_equal(new["price"], new["item"].str[1:].astype(float) * 2)
    np.testing.assert_array_equal(new["shelf"], np.repeat(frame["shelf"].to_numpy(), 3))
    assert (new[["click", "buy"]] == 0).all(axis=None)
    assert new[["stars", "note"]].isna().all(axis=None)


def test_the_seed_decides() -> None:
    made = [with_sampled_negatives(events(), SCHEMA, "click", seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(made[0], made[1])
    assert not made[0]["item"].equals(made[2]["item"])
    assert made[0]["buy"].iloc[60:].isna().all()  # a single label has no labels after it


def test_only_events_with_the_first_label_and_a_user_are_sources() -> None:
    frame = events(4).assign(user=["u0", "u1", None, "u1"], click=[1.0, 0.0, 1.0, np.nan])
    made = with_sampled_negatives(frame, SCHEMA, CHAIN, per_row=2)
    assert made["user"].iloc[4:].tolist() == ["u0", "u0"]


def test_a_user_with_all_candidates_but_one_gets_this_one_and_a_user_with_all_gets_none() -> None:
    items = [f"i{i}" for i in range(40)]
    frame = pd.DataFrame({"user": ["a"] * 40 + ["b"] * 39, "item": [*items, *items[1:]], "click": 1.0})
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("click")])
    new = with_sampled_negatives(frame, schema, "click").iloc[79:]
    assert new["user"].unique().tolist() == ["b"]
    assert (new["item"] == "i0").all()
    assert len(new) == 39


@pytest.mark.parametrize(("power", "share"), [(0.0, 1 / 2), (1.0, 9 / 10)])
def test_candidates_are_drawn_by_a_power_of_their_number(power: float, share: float) -> None:
    counts = {"often": 900, "rarely": 100}
    items = [*np.repeat([*counts], [*counts.values()]), "own"]
    users = [*[f"u{k}" for k in range(1000)], "v"]
    frame = pd.DataFrame({"user": users, "item": items, "click": [0.0] * 1000 + [1.0]})
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("click")])
    new = with_sampled_negatives(frame, schema, "click", per_row=4000, power=power).iloc[1001:]
    assert (new["item"] == "often").mean() == pytest.approx(share, abs=0.03)
    assert "own" not in set(new["item"])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`per_row`"):
        with_sampled_negatives(events(), SCHEMA, CHAIN, per_row=0)
    with pytest.raises(ValueError, match="one first event"):
        with_sampled_negatives(events(), SCHEMA, LabelGraph({"stars": ("click", "buy")}))
    with pytest.raises(ValueError, match=r"\['price'\]"):
        with_sampled_negatives(events().drop(columns="price"), SCHEMA, CHAIN)
    with pytest.raises(ValueError, match="`power`"):
        with_sampled_negatives(events(), SCHEMA, CHAIN, power=float("nan"))
