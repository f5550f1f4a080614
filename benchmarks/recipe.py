"""Retrieval by a network, by EASE and popularity, and by their mixture, on data sets with ids alone.

    python benchmarks/recipe.py FOLDER/ml_100k FOLDER/filmtrust ... [--seeds 3] [--epochs 12]

A random fifth of each user's pairs is held out; seen pairs are excluded; NDCG@10 and Recall@100 of at most 3,000
users. The network is `build_network` with its defaults, trained on nine tenths of the rest, with the epoch that ranks
best on the last tenth; `recipes.join_ease` chooses its weights on the same tenth. The baselines are fitted to all pairs
that are not held out: once with the settings that rank best on a tenth of these pairs (`baselines.Tuned`), as the
recipe chooses its own, and once with those that rank best on the test rows, which reads high. ALS if `implicit` is
installed.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import time
from typing import Any

import numpy as np
import pandas as pd

import tfmtl
from tfmtl import baselines, evaluation, recipes
from tfmtl.data import random_split, to_batch
from tfmtl.evaluation.corpus import Seen, locate, positives
from tfmtl.evaluation.ranks import rank_by_scores

SETS = {
    "ml_100k": ("ratings", "user_id", "movie_id"),
    "filmtrust": ("ratings", "user_id", "movie_id"),
    "instacart_sample": ("order_products", "user_id", "product_id"),
    "tmall_brands": ("events", "user_id", "brand_id"),
    "steam_reviews": ("reviews", "user_id", "item_id"),
    "ciao": ("ratings", "user_id", "item_id"),
    "ml_1m": ("ratings", "user_id", "movie_id"),
    "tmall": ("train", "user_id", "item_id"),
}
BASELINES = {
    "popularity": [baselines.Popularity()],
    "item-kNN": [baselines.ItemKNN(neighbors=n) for n in (50, 200)],
    "EASE": [baselines.EASE(regularization=value) for value in (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)],
}
if baselines.ALS.installed():
    BASELINES["ALS"] = [baselines.ALS(factors, penalty) for factors in (32, 128) for penalty in (0.05, 5.0)]


def read(folder: pathlib.Path) -> pd.DataFrame:
    """Return the distinct pairs of a set."""
    table, user, item = SETS[folder.name]
    pairs = pd.read_parquet(folder / f"{table}.parquet", columns=[user, item]).dropna().drop_duplicates()
    return pairs.set_axis(["user", "item"], axis=1).astype(str).assign(chosen=1.0).reset_index(drop=True)


def hold_out(pairs: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a fifth of the pairs of each user, of at most 3,000 users."""
    rng = np.random.default_rng(seed)
    order = pd.Series(rng.random(len(pairs)), pairs.index).groupby(pairs["user"]).rank(pct=False)
    held_out = order <= np.floor(0.2 * pairs.groupby("user")["item"].transform("size"))
    test = pairs[held_out]
    users = test["user"].unique()
    chosen = rng.choice(users, min(3000, len(users)), replace=False)
    return pairs[~held_out], test[test["user"].isin(chosen)]


def measure(pairs: pd.DataFrame, seed: int, epochs: int) -> dict[str, Any]:
    """Return NDCG@10 and Recall@100 by method."""
    rest, test = hold_out(pairs, seed)
    train, validation = random_split(rest, test_fraction=0.1, seed=seed)
    schema = tfmtl.Schema([tfmtl.Categorical("user")], [tfmtl.Categorical("item")], labels=[tfmtl.Label("chosen")])
    preprocessor = tfmtl.Preprocessor.fit(schema, rest)
    tasks = [tfmtl.Retrieval("chosen")]
    model = tfmtl.MultiTaskModel(tfmtl.build_network(preprocessor, tasks, seed=seed), tasks, preprocessor, seed=seed)
    model.compile(tfmtl.LazyAdam(1e-2))
    ranks = evaluation.RetrievalEvaluation(validation, seen=train, ks=10)
    stop = tfmtl.keras.callbacks.EarlyStopping("val_chosen_ndcg@10", mode="max", patience=3, restore_best_weights=True)
    start = time.perf_counter()
    model.fit(train, epochs=epochs, batch_size=1024, callbacks=[ranks, stop], verbose=0)
    trained = time.perf_counter() - start
    joined = recipes.join_ease(model, train, validation, seed=seed)
    print(f"  {joined} Training {trained:.0f} s, choice {time.perf_counter() - start - trained:.0f} s.", flush=True)
    found: dict[str, Any] = {}
    for name, each in (("network", model), ("joined", joined.model)):
        report = evaluation.evaluate(each, test, seen=rest, ks=(10, 100))
        found[name] = report["chosen", "ndcg@10"], report["chosen", "recall@100"]
    for name, options in BASELINES.items():
        found[f"{name}, tuned"] = _baseline(model, baselines.Tuned(options, seed=seed), rest, test)
        if len(options) > 1:
            each = [_baseline(model, option, rest, test) for option in options]
            found[f"{name}, best on test"] = np.max(each, axis=0)
    return found


def _baseline(model: Any, baseline: Any, rest: pd.DataFrame, test: pd.DataFrame) -> tuple[float, float]:
    batch = to_batch(test, model.preprocessor)
    corpus = locate(model, "chosen", batch, Seen.from_frame(model, "chosen", rest))
    users = np.zeros(len(corpus.queries["user"]), np.int64)
    rows = positives(batch, "chosen")
    rows = rows[np.isin(batch.ids["candidate"].numpy()[rows], corpus.items)]
    users[corpus.query_index] = batch.ids["query"].numpy()[rows]
    scorer = baseline.fit(baselines.Interactions.from_frame(model, "chosen", rest)).scorer(users)
    index = corpus.query_index, corpus.candidate_index
    values = corpus.metrics(rank_by_scores(scorer, len(corpus.candidates), *index, seen=corpus.seen), (10, 100))
    return values["ndcg@10"], values["recall@100"]


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        pairs = read(folder)
        runs = collections.defaultdict(list)
        for seed in range(arguments.seeds):
            for method, values in measure(pairs, seed, arguments.epochs).items():
                runs[method].append(values)
        print(f"{folder.name}: {len(pairs):,} pairs\n\n| method | ndcg@10 | recall@100 |\n|---|---|---|")
        for method, values in runs.items():
            means, spread = np.mean(values, axis=0), np.std(values, axis=0)
            print(
                f"| {method} | " + " | ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True)) + " |"
            )
        print(flush=True)


if __name__ == "__main__":
    main()
