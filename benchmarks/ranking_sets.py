"""Ranking tasks of public data sets: tables, schemas and tasks for `ranking.py`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import census
import pandas as pd

from tfmtl import Categorical, Label, MultiValued, Numeric, Schema, data, tasks

_TRAIN, _TEST = 60_000, 20_000


class Set(NamedTuple):
    """The tables of a set, its schema, and the kind of each task: "binary", "regression" or the number of classes."""

    train: pd.DataFrame
    test: pd.DataFrame
    schema: Schema
    kinds: Mapping[str, str | int]

    def tasks(self, preprocessor: data.Preprocessor) -> list[tasks.Task]:
        """Return the tasks with their defaults."""
        return [_task(name, kind, preprocessor) for name, kind in self.kinds.items()]


def _task(name: str, kind: str | int, preprocessor: data.Preprocessor) -> tasks.Task:
    if kind == "binary":
        return tasks.BinaryClassification(name)
    if kind == "regression":
        return tasks.Regression.from_statistics(name, preprocessor.statistics)
    return tasks.MultiClassClassification(name, int(kind))


def _sampled(table: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    return table if len(table) <= most else table.sample(most, random_state=seed).sort_index()


def _drawn(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a random fifth."""
    part = data.random_split(_sampled(table, _TRAIN + _TEST // 2, seed), test_fraction=0.2, seed=seed)
    return part.train.reset_index(drop=True), _sampled(part.test, _TEST, seed).reset_index(drop=True)


def _set(parts: tuple[pd.DataFrame, pd.DataFrame], kinds: Mapping[str, str | int], **roles: list) -> Set:
    return Set(*parts, Schema(labels=[Label(name) for name in kinds], **roles), kinds)


def _ids(*names: str) -> list[Categorical]:
    return [Categorical(name, dtype="int64") for name in names]


def census_income(folder: pathlib.Path, seed: int) -> Set:
    """Three questions; the official test part; the columns of the answers are no features."""
    kinds: dict[str, str | int] = dict.fromkeys(("income", "never_married", "educated"), "binary")
    hidden = ["income_50k", "marital_stat", "education", "instance_weight"]

    def prepared(part: str, most: int) -> pd.DataFrame:
        table = _sampled(pd.read_parquet(folder / f"census_income_{part}.parquet"), most, seed)
        answers = {name: census.QUESTIONS[name](table).astype("float32") for name in kinds}
        kept = table.drop(columns=hidden)
        texts = {name: c.astype(str) for name, c in kept.items() if not pd.api.types.is_numeric_dtype(c)}
        codes = {name: kept[name].astype(str) for name in ("det_ind_code", "det_occ_code")}
        return kept.assign(**texts, **codes, **answers).reset_index(drop=True)

    train, test = prepared("train", _TRAIN), prepared("test", _TEST)
    features = [column for column in train if column not in kinds]
    numbers = [name for name in features if pd.api.types.is_numeric_dtype(train[name])]
    query = [*map(Numeric, numbers), *(Categorical(name) for name in features if name not in numbers)]
    return _set((train, test), kinds, query=query)


def hillstrom(folder: pathlib.Path, seed: int) -> Set:
    """Visit, conversion and spend of customers after an e-mail."""
    table = pd.read_parquet(folder / "hillstrom.parquet")
    numbers = [Numeric(name) for name in ("recency", "history", "mens", "womens", "newbie")]
    texts = [Categorical(name) for name in ("history_segment", "zip_code", "channel", "segment")]
    kinds = {"visit": "binary", "conversion": "binary", "spend": "regression"}
    return _set(_drawn(table, seed), kinds, query=[*numbers, *texts])


def open_bandit_small(folder: pathlib.Path, seed: int) -> Set:
    """Clicks on fashion items under two policies."""
    logs = [pd.read_parquet(folder / f"{policy}_all.parquet").assign(policy=policy) for policy in ("random", "bts")]
    items = pd.read_parquet(folder / "items_all.parquet")
    table = pd.concat(logs, ignore_index=True).merge(items, on=["policy", "item_id"])
    affinities = [name for name in table if name.startswith("user_item_affinity_")]
    user = [Categorical(f"user_feature_{i}") for i in range(4)]
    item = [*_ids("item_id"), Numeric("item_feature_0"), *(Categorical(f"item_feature_{i}") for i in (1, 2, 3))]
    context = [*_ids("position"), Categorical("policy")]
    query = [*map(Numeric, affinities), *user]
    return _set(_drawn(table, seed), {"click": "binary"}, query=query, candidate=item, context=context)


def _movielens(folder: pathlib.Path, seed: int, genres: Callable[[pd.DataFrame], pd.Series]) -> Set:
    movies, users = (pd.read_parquet(folder / f"{name}.parquet") for name in ("movies", "users"))
    movies = movies.assign(genres=genres(movies))[["movie_id", "genres"]]
    table = _sampled(pd.read_parquet(folder / "ratings.parquet"), 100_000, seed)
    table = table.merge(users, on="user_id").merge(movies, on="movie_id")
    table = table.assign(liked=(table["rating"] >= 4).astype("float32"), occupation=table["occupation"].astype(str))
    query = [*_ids("user_id"), Numeric("age"), Categorical("gender"), Categorical("occupation")]
    candidate = [*_ids("movie_id"), MultiValued("genres", max_length=6)]
    return _set(_drawn(table, seed), {"rating": "regression", "liked": "binary"}, query=query, candidate=candidate)


def ml_100k(folder: pathlib.Path, seed: int) -> Set:
    """Ratings of films, and whether a rating is 4 or more."""
    return _movielens(folder, seed, lambda t: t.iloc[:, 4:].apply(lambda row: list(row.index[row == 1]), axis=1))


def ml_1m(folder: pathlib.Path, seed: int) -> Set:
    """The same from a tenth of a larger set, with fewer ratings of each user."""
    return _movielens(folder, seed, lambda t: t["genres"].str.split("|"))


def ciao(folder: pathlib.Path, seed: int) -> Set:
    """Ratings of products, and the helpfulness of reviews in four classes."""
    table = pd.read_parquet(folder / "ratings.parquet")
    table = table.assign(helpful=table["helpfulness"].clip(1, 4).astype("float32") - 1)
    kinds: dict[str, str | int] = {"rating": "regression", "helpful": 4}
    return _set(_drawn(table, seed), kinds, query=_ids("user_id"), candidate=_ids("item_id", "category_id"))


def filmtrust(folder: pathlib.Path, seed: int) -> Set:
    """Ratings of films, ids alone."""
    table = pd.read_parquet(folder / "ratings.parquet")
    kinds = {"rating": "regression"}
    return _set(_drawn(table, seed), kinds, query=_ids("user_id"), candidate=_ids("movie_id"))


def steam_reviews(folder: pathlib.Path, seed: int) -> Set:
    """Whether a review recommends a game."""
    items = pd.read_parquet(folder / "items.parquet").drop_duplicates("item_id")
    lists = {name: items[name].fillna("").str.split("|") for name in ("genres", "tags")}
    items = items.assign(**lists)[["item_id", "genres", "tags", "price", "developer"]]
    table = pd.read_parquet(folder / "reviews.parquet").merge(items, on="item_id", how="left")
    for name in ("genres", "tags"):
        table[name] = table[name].map(lambda found: found if isinstance(found, list) else [])
    lists = [MultiValued("genres", max_length=5), MultiValued("tags", max_length=20)]
    item = [*_ids("item_id"), *lists, Numeric("price"), Categorical("developer")]
    numbers = [Numeric(name) for name in ("helpful_votes", "total_votes", "funny_votes", "text_sentiment")]
    kinds = {"recommend": "binary"}
    return _set(_drawn(table, seed), kinds, query=_ids("user_id"), candidate=item, context=numbers)


def tmall_brands(folder: pathlib.Path, seed: int) -> Set:
    """Whether an action on a brand is a purchase."""
    table = pd.read_parquet(folder / "events.parquet")
    table = table.assign(buy=(table["action"] == "buy").astype("float32"))
    context = [Numeric("day_index"), Numeric("day"), *_ids("month")]
    kinds = {"buy": "binary"}
    return _set(_drawn(table, seed), kinds, query=_ids("user_id"), candidate=_ids("brand_id"), context=context)


def tmall(folder: pathlib.Path, seed: int) -> Set:
    """Whether an action on an item is a purchase, by favourites and carts."""
    table = pd.read_parquet(folder / "train.parquet")
    table = table.assign(
        buy=(table["behavior"] == "buy").astype("float32"),
        hour=table["timestamp"] // 3600 % 24,
        day=table["timestamp"] / 86_400,
    )
    context = [*_ids("hour"), Numeric("day")]
    kinds = {"buy": "binary"}
    return _set(_drawn(table, seed), kinds, query=_ids("user_id"), candidate=_ids("item_id"), context=context)


def instacart_sample(folder: pathlib.Path, seed: int) -> Set:
    """Whether a product of a basket was bought before; the last fifth of each user's baskets is held out."""
    table = pd.read_parquet(folder / "order_products.parquet")
    table["days_since_prior_order"] = table["days_since_prior_order"].astype("float64")
    last = table.groupby("user_id")["order_number"].transform("max")
    held_out = table["order_number"] > 0.8 * last
    parts = _sampled(table[~held_out], _TRAIN, seed), _sampled(table[held_out], _TEST, seed)
    numbers = [Numeric(name) for name in ("order_number", "days_since_prior_order", "add_to_cart_order")]
    context = [*numbers, *_ids("order_dow", "order_hour_of_day")]
    kinds = {"reordered": "binary"}
    train, test = (part.reset_index(drop=True) for part in parts)
    return _set((train, test), kinds, query=_ids("user_id"), candidate=_ids("product_id"), context=context)


SETS: dict[str, Callable[[pathlib.Path, int], Set]] = {
    read.__name__: read
    for read in (
        census_income, hillstrom, open_bandit_small, ml_100k, ml_1m, ciao, filmtrust, steam_reviews, tmall_brands,
        tmall, instacart_sample,
    )
}  # fmt: skip


def read(folder: pathlib.Path, seed: int) -> Set:
    """Return the set of a folder by its name; at most 60,000 training and 20,000 test rows.

    Example:
        >>> sorted(np.intersect1d(["ciao", "movies"], list(SETS)).tolist())
        ['ciao']
    """
    return SETS[folder.name](folder, seed)
