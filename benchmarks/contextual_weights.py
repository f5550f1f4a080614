"""Weights of served lists by slice and by context: films with known rewards, and logged clicks with propensities.

    PYTHONPATH=.:examples python benchmarks/contextual_weights.py FOLDER/ml_100k FOLDER/open_bandit_small [--seeds 3]

Films: split and models of `fusion_weights.py`, with the gender and the occupation of a user as further features.
`recipes.fusion_weights(slices=...)` finds weights by slice, with a shrinkage that the folds choose; and
`recipes.contextual_weights` learns a policy over four weights from a log in which one of them, drawn at random, served
each validation query, and from one in which all four did; the reward is NDCG@10 of a rating of 5. All are judged by
the lists of the test rows. Logged clicks: four orders of the items of a campaign, softmaxes of scores, three of them
learned on the first half of the uniform log; a policy of the users' features chooses among them, learned and judged on
users of the second half.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import fusion_weights as single
import numpy as np
import off_policy
import pandas as pd

import tfmtl
from tfmtl import evaluation, recipes
from tfmtl.evaluation import off_policy_value
from tfmtl.recipes.choice_policy import CONTEXT, LOGGED, SINGLE, Decisions, judge, predicted
from tfmtl.recipes.judged_lists import JudgedLists
from tfmtl.serving.recommender import Recommender

SLICES = ("gender", "occupation")
LEAST = (25, 50, 100, 200)


def films(folder: pathlib.Path) -> pd.DataFrame:
    """Return rated films with two features of their users."""
    users = pd.read_parquet(folder / "users.parquet").astype(str).rename(columns={"user_id": "user"})
    return single.movies(folder).merge(users[["user", *SLICES]], on="user")


def trained(pairs: pd.DataFrame, train: pd.DataFrame, seed: int, epochs: int) -> tfmtl.MultiTaskModel:
    """Return the model of a recipe."""
    schema = tfmtl.Schema(
        [tfmtl.Categorical(name) for name in ("user", *SLICES)],
        [tfmtl.Categorical("item")],
        labels=[tfmtl.Label(name) for name in ("seen", "main", "rating")],
        query_id="user",
    )
    preprocessor = tfmtl.Preprocessor.fit(schema, train)
    tasks = single.SETS["ml_100k"][1](preprocessor)
    return recipes.fit(preprocessor, tasks, train, epochs=epochs, boosting=False, seed=seed, verbose=0).model


def by_context(
    model: tfmtl.MultiTaskModel, table: pd.DataFrame, lists: JudgedLists, choices: list[dict[str, float]], seed: int
) -> dict[str, recipes.FoundPolicy]:
    """Learn policies from a log in which each query had one choice, drawn at random, and from one with all choices."""
    rewards = np.stack([lists.ndcg([own[task] for task in lists.tasks]) for own in choices], axis=1)
    queries, count = np.arange(len(rewards)), len(choices)
    drawn = np.random.default_rng(seed).integers(0, count, len(rewards))
    logs = {
        "by context": (queries, drawn),
        "by context, four rewards per query": (np.repeat(queries, count), np.tile(np.arange(count), len(queries))),
    }
    found = {}
    for name, (query, choice) in logs.items():
        log = table.iloc[lists.rows[query]].assign(choice=choice, logged=rewards[query, choice], propensity=1 / count)
        found[name] = recipes.contextual_weights(model, log, choices, reward="logged", seed=seed)
        print(f"films, seed {seed}, {name}\n{found[name]}\n", flush=True)
    return found


def on_films(pairs: pd.DataFrame, seed: int, epochs: int) -> dict[str, pd.Series]:
    """Return the NDCG of each test user by method."""
    part = np.random.default_rng(seed).choice(3, len(pairs), p=[0.8, 0.1, 0.1])
    train, validation, test = (pairs[part == number].reset_index(drop=True) for number in range(3))
    model = trained(pairs, train, seed, epochs)
    recommender = Recommender(model, single.K)
    judged = JudgedLists.of(recommender, test, {"main": 1.0}, pd.concat([train, validation]), None)
    own = test.iloc[judged.rows]
    values: dict[str, Any] = {}

    def ndcg(weights: dict[str, float], rows: Any) -> Any:
        return judged.of_queries(rows).ndcg([weights[task] for task in judged.tasks])

    every = np.ones(len(own), bool)
    for by in SLICES:
        found = recipes.fusion_weights(
            model, validation, main="main", k=single.K, seen=train, slices=by, min_users=LEAST, seed=seed
        )
        print(f"films, seed {seed}, by {by}, `min_users` {found.min_users}\n{found}\n", flush=True)
        values |= {"default weights": ndcg(found.defaults, every), "found weights": ndcg(found.weights, every)}
        values[f"by {by}"] = values["found weights"].copy()
        for value, weights in found.slices.items():
            rows = (own[by] == value).to_numpy()
            values[f"by {by}"][rows] = ndcg(weights, rows)
    alone = {task: float(task == "seen") for task in judged.tasks}
    choices = [found.weights, found.defaults, alone, {**alone, "seen": 0.0, "main": 1.0}]
    lists = JudgedLists.of(recommender, validation, {"main": 1.0}, train, None)
    policies = by_context(model, validation, lists, choices, seed)
    query = {name: own[name].to_numpy(object) for name in ("user", *SLICES)}
    vectors = recommender.embed_query(**query)["embedding"].numpy()
    rewards = np.stack([ndcg(weights, every) for weights in choices], axis=1)
    for name, policy in policies.items():
        chosen = predicted(np.asarray(policy.weights.coefficients), vectors).argmax(axis=1)
        values[name] = rewards[np.arange(len(chosen)), chosen]
    values |= {"best of the four": rewards.max(axis=1), "best order": judged.best()}
    return {name: pd.Series(value, judged.users) for name, value in values.items()}


def print_films(folder: pathlib.Path, seeds: int, epochs: int, rows: int) -> None:
    """Print the table of the films."""
    pairs = films(folder)
    pairs = pairs.sample(rows, random_state=0) if rows else pairs
    runs = [on_films(pairs, seed, epochs) for seed in range(seeds)]
    joined = {method: pd.concat([run[method] for run in runs]) for method in runs[0]}
    models = {name: lambda w, own=own: {"ndcg": float(np.average(own, weights=w))} for name, own in joined.items()}
    users = next(iter(joined.values())).index.to_numpy()
    compared = evaluation.bootstrap_comparison(models, users, baseline="found weights")
    print("| weights | ndcg@10 on test rows | by seed | difference from the found weights |\n|---|---|---|---|")
    for (name, _), row in compared.iterrows():
        by_seed = ", ".join(f"{run[name].mean():.4f}" for run in runs)
        gap = f"{row['difference']:+.4f} ({row['difference_low']:+.4f} to {row['difference_high']:+.4f})"
        print(f"| {name} | {row['value']:.4f} | {by_seed} | {'' if name == 'found weights' else gap} |", flush=True)


def orders(log: pd.DataFrame, model: Any, earlier: pd.DataFrame, items: np.ndarray) -> np.ndarray:
    """Return the probabilities [n, items, 4] of four orders: clicks, a model, affinities, and none."""
    clicks = earlier.groupby("item_id")["click"].sum().reindex(items, fill_value=0)
    shown = earlier.groupby("item_id")["click"].size().reindex(items, fill_value=0)
    popular = ((clicks + 10 * earlier["click"].mean()) / (shown + 10)).to_numpy()
    rates = np.stack([model.predict_proba(off_policy.features(log, item))[:, 1] for item in items], 1)
    affinity = log[[f"user_item_affinity_{item}" for item in items]].to_numpy(float)
    scores = np.stack([np.broadcast_to(popular, rates.shape), rates, affinity, 0 * rates], axis=2)
    spread = scores.std(axis=(0, 1))
    raised = np.exp(np.minimum(scores / np.where(spread > 0, spread, 1.0), 5.0))
    return raised / raised.sum(axis=1, keepdims=True)


def on_clicks(folder: pathlib.Path, campaign: str, seed: int) -> None:
    """Print the lines of a campaign."""
    log = off_policy.read(folder, "random", campaign)
    half = len(log) // 2
    earlier, rest = log[:half], log[half:].reset_index(drop=True)
    items = np.sort(log["item_id"].unique())
    chances = orders(rest, off_policy.trained(earlier), earlier, items)
    taken = np.searchsorted(items, rest["item_id"])
    contexts = pd.get_dummies(rest[[*off_policy.USER, "position"]].astype(str)).to_numpy(float)
    decisions = Decisions(
        contexts, rest["click"].to_numpy(float), rest["propensity_score"].to_numpy(float),
        chances[np.arange(len(rest)), taken], rest["request"].to_numpy(),
    )  # fmt: skip
    judged, penalty = judge(decisions, 5, seed)
    compared = evaluation.bootstrap_comparison(
        {name: own.values for name, own in judged.items()}, decisions.users, seed=seed
    )
    for name in (LOGGED, SINGLE, CONTEXT):
        for estimator in ("ips", "snips", "dr"):
            row = 100 * compared.loc[(name, estimator)]
            own = judged[name]
            same = off_policy_value(
                own.rewards, decisions.propensities, np.minimum(own.ratios * decisions.propensities, 1.0),
                estimator=estimator, predictions=own.predictions, policy_predictions=own.predictions, samples=0,
            )  # fmt: skip
            assert abs(100 * same.value - row["value"]) < 1e-6, (same.value, row["value"])
            gap = f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
            print(
                f"| {campaign} | {name} | {estimator} | {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}) | "
                f"{'' if name == SINGLE else gap} | {own.effective_rows:.0f} |",
                flush=True,
            )
    print(f"{campaign}: {int(decisions.rewards.sum())} clicks, penalty {penalty}", flush=True)


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=pathlib.Path)
    parser.add_argument("clicks", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", type=int, default=0, help="number of film ratings to draw; all by default")
    options = parser.parse_args()
    print("| campaign | policy | estimator | clicks in 100 | difference from the single choice | effective rows |")
    print("|---" * 6 + "|")
    for campaign in off_policy.CAMPAIGNS:
        on_clicks(options.clicks, campaign, 0)
    print_films(options.films, options.seeds, options.epochs, options.rows)


if __name__ == "__main__":
    main()
