"""Off-policy estimates of logged clicks with propensities: a policy with a known value, and one of a simple model.

    PYTHONPATH=.:examples python benchmarks/off_policy.py FOLDER/open_bandit_small [--temperature 0.0005] [--seed 0]

First table: the uniform policy is estimated from the log of Bernoulli Thompson sampling; its own log holds its true
mean. Second table: a logistic regression of clicks on users, positions and items is trained on the first half of the
uniform log; the softmax of its click rates over all items is estimated on the second half. Each row, with its position,
is one decision; groups are requests (timestamp and user).
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tfmtl.evaluation import OffPolicyValue, off_policy_value

CAMPAIGNS = ("all", "men", "women")
USER = [f"user_feature_{i}" for i in range(4)]


def read(folder: pathlib.Path, policy: str, campaign: str) -> pd.DataFrame:
    """Return a log in the order of time, with the request of each row."""
    log = pd.read_parquet(folder / f"{policy}_{campaign}.parquet").sort_values("timestamp", ignore_index=True)
    return log.assign(request=log.groupby(["timestamp", *USER], sort=False).ngroup())


def features(log: pd.DataFrame, items: Any) -> list[dict[str, str]]:
    """Return the inputs of the model for each row with the given items."""
    rows = log[[*USER, "position"]].astype(str).assign(item=np.broadcast_to(items, len(log)).astype(str))
    return rows.to_dict("records")


def trained(log: pd.DataFrame) -> Pipeline:
    """Return a model of the probability of a click."""
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=0.1, max_iter=500))
    return model.fit(features(log, log["item_id"]), log["click"])


def policy_of(
    model: Pipeline, log: pd.DataFrame, items: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return click rates and probabilities [n, items] of the softmax policy."""
    rates = np.stack([model.predict_proba(features(log, item))[:, 1] for item in items], 1)
    raised = np.exp((rates - rates.max(1, keepdims=True)) / temperature)
    return rates, raised / raised.sum(1, keepdims=True)


def line(campaign: str, name: str, found: OffPolicyValue) -> str:
    """Return the line of an estimate, with click rates in percent."""
    return (
        f"| {campaign} | {name} | {100 * found.value:.3f} | {100 * found.low:.3f} to {100 * found.high:.3f} | "
        f"{100 * found.bootstrap_low:.3f} to {100 * found.bootstrap_high:.3f} | {found.effective_sample_size:.0f} | "
        f"{found.mean_weight:.3f} | {found.largest_weight:.1f} |"
    )


def known_value(folder: pathlib.Path, seed: int) -> None:
    """Print estimates of the uniform policy beside its true mean."""
    for campaign in CAMPAIGNS:
        own, other = read(folder, "random", campaign), read(folder, "bts", campaign)
        ones = np.ones(len(own))
        print(
            line(campaign, "its own log", off_policy_value(own["click"], ones, ones, groups=own["request"], seed=seed))
        )
        given = {"groups": other["request"], "seed": seed}
        share = np.full(len(other), 1 / own["item_id"].nunique())
        for name, options in {"ips": {}, "ips, limit 10": {"limit": 10.0}, "snips": {}}.items():
            estimator = "snips" if name == "snips" else "ips"
            found = off_policy_value(
                other["click"], other["propensity_score"], share, estimator=estimator, **options, **given
            )
            print(line(campaign, name, found), flush=True)


def model_policy(folder: pathlib.Path, temperature: float, seed: int) -> None:
    """Print estimates of a model's policy beside the mean of the uniform log, on the same rows."""
    for campaign in CAMPAIGNS:
        log = read(folder, "random", campaign)
        half = len(log) // 2
        model, rest = trained(log[:half]), log[half:].reset_index(drop=True)
        items = np.sort(log["item_id"].unique())
        rates, chances = policy_of(model, rest, items, temperature)
        rows, taken = np.arange(len(rest)), np.searchsorted(items, rest["item_id"])
        given: dict[str, Any] = {"groups": rest["request"], "seed": seed}
        logged = rest["propensity_score"]
        print(line(campaign, "uniform, logged", off_policy_value(rest["click"], logged, logged, **given)))
        for name in ("ips", "snips", "dm", "dr", "switch_dr"):
            found = off_policy_value(
                rest["click"], logged, chances[rows, taken], estimator=name, predictions=rates[rows, taken],
                policy_predictions=(chances * rates).sum(1), limit=5.0 if name == "switch_dr" else None, **given,
            )  # fmt: skip
            print(line(campaign, f"model, {name}", found), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--temperature", type=float, default=0.0005, help="of the softmax over predicted click rates")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    options = parser.parse_args()
    head = "| campaign | {} | clicks in 100 | normal | bootstrap | effective rows | mean weight | largest weight |"
    print(head.format("the uniform policy by") + "\n" + "|---" * 8 + "|")
    known_value(options.folder, options.seed)
    print("\n" + head.format("estimate") + "\n" + "|---" * 8 + "|")
    model_policy(options.folder, options.temperature, options.seed)


if __name__ == "__main__":
    main()
