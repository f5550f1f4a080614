"""Probabilities without a context, as `recommend` serves them, by the rate at which training leaves the context out.

    python benchmarks/missing_context.py --data FOLDER/instacart_sample [--seeds 3] [--quick] [--rates 0 0.05]

The last three orders of each user are test rows, all earlier ones train. A model trains two tasks together: `bought`
retrieves the product, `reordered` is the probability that the user had bought it before. Its context is the day and the
hour of the order, the days since the preceding order and the position of the product in the cart; no row lacks all of
them. The test rows are predicted with their context and without it. `bias` is the mean probability less the observed
share. The variant `no features` has no context features at all. Differences are paired by seed with rate 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
from paired import compare
from sklearn.metrics import log_loss, roc_auc_score

from tfmtl import data, layers, models, tasks

EPOCHS, BATCH_SIZE, HELD_OUT = 3, 1024, 3
RATES = (0.0, 0.05, 0.1, 0.2)
NO_FEATURES = "no features"
METRICS = [(part, name) for part in ("with", "without") for name in ("AUC", "log loss", "bias")]
SCHEMA = data.Schema(
    query=[data.Categorical("user_id", dtype="int64")],
    candidate=[data.Categorical("product_id", dtype="int64", min_count=2)],
    context=[
        data.Categorical("order_dow", dtype="int64"),
        data.Categorical("order_hour_of_day", dtype="int64"),
        data.Numeric("days_since_prior_order"),
        data.Numeric("add_to_cart_order", transform="log1p"),
    ],
    labels=[data.Label("reordered")],
)


class Problem:
    """The tables."""

    def __init__(self, folder: pathlib.Path, rows: int | None = None) -> None:
        table = pd.read_parquet(folder / "order_products.parquet").iloc[:rows]
        last = table["order_number"] > table.groupby("user_id")["order_number"].transform("max") - HELD_OUT
        self.train, self.test = table[~last], table[last]
        self.without = self.test.assign(**dict.fromkeys(("order_dow", "order_hour_of_day"), -1))
        self.without = self.without.assign(days_since_prior_order=np.nan, add_to_cart_order=np.nan)

    def run(self, variant: str, seed: int) -> list[float]:
        """Train once and return the metrics of the test rows with their context and without it."""
        schema = dataclasses.replace(SCHEMA, context=()) if variant == NO_FEATURES else SCHEMA
        preprocessor = data.Preprocessor.fit(schema, self.train)
        heads = [tasks.Retrieval("bought"), tasks.BinaryClassification("reordered")]
        rate = 0.0 if variant == NO_FEATURES else float(variant)
        network = models.build_network(
            preprocessor, heads, layers.SharedBottom(units=(64, 32), seed=seed), embedding_dim=16,
            regularization=models.Regularization(context_dropout=rate), seed=seed,
        )  # fmt: skip
        model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
        model.compile(tfmtl.LazyAdam(3e-3))
        model.fit(self.train, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
        labels = self.test["reordered"].to_numpy()
        found = []
        for rows in (self.test, self.without):
            probabilities = model.predict(rows, verbose=0)["reordered"].astype(float)
            bias = float(probabilities.mean() - labels.mean())
            found += [roc_auc_score(labels, probabilities), log_loss(labels, probabilities), bias]
        return found


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with the sample of Instacart")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=list(RATES))
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows and one seed")
    arguments = parser.parse_args()
    problem = Problem(arguments.data, 15_000 if arguments.quick else None)
    rows = f"{len(problem.train):,} rows to train, {len(problem.test):,} to test"
    print(f"{rows}, {EPOCHS} epochs, mean ± half the 95 % interval\n")
    variants = [*(f"{rate:g}" for rate in arguments.rates), NO_FEATURES]
    compare(problem.run, variants, METRICS, 1 if arguments.quick else arguments.seeds, "0")


if __name__ == "__main__":
    main()
