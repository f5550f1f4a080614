"""The next candidate of each user by `recipes.fit`, with and without the history of the request, on public data sets.

    python benchmarks/next_candidate.py FOLDER/ml_100k FOLDER/steam_reviews ... [--latest] [--seeds 2] [--users 1500]

Each pair of a user and a candidate counts once, at its first time; rows of one moment are in random order. Of each
user with five events or more the latest is the test row, and the one before it the row to choose by; seen pairs leave
the lists. With `--latest` the last tenth of all rows in time is the test part, with the first row of each old or new
user, and the recipe chooses by the last tenth of the others. "No history" is the recipe with the id of the user alone,
"history" with the latest 50 candidates, too. The baselines have settings that rank best on the tenth of the other
rows that is latest in the histories of its users. Seeds are those of the recipe; the split is the same.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import tfmtl
from tfmtl import baselines, evaluation, recipes
from tfmtl.data import with_histories

LENGTH, LEAST = 50, 5
METRICS = ("ndcg@10", "recall@100")
SETS: dict[str, tuple[str, str, Callable[[pd.DataFrame], pd.Series]]] = {
    "ml_100k": ("ratings", "movie_id", lambda table: table["timestamp"]),
    "ml_1m": ("ratings", "movie_id", lambda table: table["timestamp"]),
    "steam_reviews": ("reviews", "item_id", lambda table: table["posted"].rank(method="dense", na_option="bottom")),
    "tmall": ("train", "item_id", lambda table: table["timestamp"]),
    "tmall_brands": ("events", "brand_id", lambda table: table["day_index"]),
    "instacart_sample": (
        "order_products",
        "product_id",
        lambda table: 1000 * table["order_number"] + table["add_to_cart_order"],
    ),
    "ciao": ("ratings_dated", "item_id", lambda table: table["timestamp"].astype("int64")),
}
"""Table, column of candidates and time of each set."""


def read(folder: pathlib.Path, users: int) -> pd.DataFrame:
    """Return the first event of each pair, with its position among those of the user, and the part of the row."""
    name, item, moment = SETS[folder.name]
    table = pd.read_parquet(folder / f"{name}.parquet")
    events = pd.DataFrame({"user": table["user_id"].astype(str), "item": table[item].astype(str)})
    rng = np.random.default_rng(7)
    events = events.assign(moment=moment(table).astype(float), order=rng.random(len(events)), chosen=1.0)
    if users:
        everyone = events["user"].unique()
        events = events[events["user"].isin(rng.choice(everyone, min(users, len(everyone)), replace=False))]
    events = events.sort_values(["user", "moment", "order"]).drop_duplicates(["user", "item"])
    of_user = events.groupby("user")
    step, size = of_user.cumcount(), of_user["item"].transform("size")
    part = np.select([size < LEAST, step == size - 1, step == size - 2], [0, 2, 1], 0)
    return events.assign(step=step, part=part).reset_index(drop=True)


def by_time(events: pd.DataFrame) -> pd.DataFrame:
    """Return the rows split by time, with their times as steps; the first late row of each user is tested."""
    late = events["moment"] >= events["moment"].quantile(0.9)
    tested = late & ~events["user"].where(late).duplicated()
    found = events.assign(part=np.where(late, 2, 0), step=events["moment"])
    return found[tested | ~late].reset_index(drop=True)


def recommend(events: pd.DataFrame, history: bool, seed: int, epochs: int) -> tuple[tfmtl.MultiTaskModel, list[float]]:
    """Return the model of the recipe, its metrics, and the CPU seconds of `fit`."""
    query = [tfmtl.Categorical("user")]
    if history:
        query.append(tfmtl.IdSequence("recent", of="item", max_length=LENGTH))
    schema = tfmtl.Schema(query, [tfmtl.Categorical("item")], labels=[tfmtl.Label("chosen")])
    events = with_histories(events, schema, "step") if history else events
    train, validation, test = (events[events["part"] == part] for part in range(3))
    rest = pd.concat([train, validation])
    preprocessor = tfmtl.Preprocessor.fit(schema, rest)
    start = time.process_time()
    tasks = [tfmtl.Retrieval("chosen")]
    given = {"validation": validation} if len(validation) else {"time": "step"}
    found = recipes.fit(preprocessor, tasks, train, **given, epochs=epochs, seed=seed, verbose=0)
    seconds = time.process_time() - start
    print(f"{found}\n{found.joined}\n", flush=True)
    report = evaluation.evaluate(found.model, test, seen=rest, ks=(10, 100))
    return found.model, [*(report["chosen", name] for name in METRICS), seconds]


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--latest", action="store_true", help="test on the last tenth of all rows")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--users", type=int, default=0, help="number of users to draw; all by default")
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        events = read(folder, arguments.users)
        events = by_time(events) if arguments.latest else events
        runs = collections.defaultdict(list)
        for seed in range(arguments.seeds):
            for name in ("no history", "history"):
                model, values = recommend(events, name == "history", seed, arguments.epochs)
                runs[name].append(values)
                if name == "no history" and not seed:
                    rest, test = events[events["part"] < 2], events[events["part"] == 2]
                    compared = baselines.compare(model, rest, test, seen=rest, ks=(10, 100), time="step", tune=True)
                    best = compared.table.loc["chosen"].drop(columns="model").loc[list(METRICS)]
        print(f"{folder.name}: {len(events):,} pairs, {events['user'].nunique():,} users\n")
        print("| method | ndcg@10 | recall@100 | CPU s |\n|---|---|---|---|")
        for name, found in runs.items():
            values = np.transpose(found)
            cells = [" to ".join(sorted({f"{value:.4f}" for value in column})) for column in values[:2]]
            print(f"| {name} | {' | '.join(cells)} | {values[2].mean():.0f} |")
        for name in best:
            print(f"| {name}, tuned | {best[name].iloc[0]:.4f} | {best[name].iloc[1]:.4f} | |")
        print(flush=True)


if __name__ == "__main__":
    main()
