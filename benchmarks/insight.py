"""Attributions: do they find planted features, are they complete, what do they cost, and do they choose features?

    PYTHONPATH=. python benchmarks/insight.py [--census FOLDER/census_income] [--tables 20] [--seeds 3]

Planted: tables of 8 numbers, of which x0 and x1 decide the first label and x2 the second; a model is trained on 2000
rows, and its permutation importance on 1000 others must rank these features first. In the correlated tables x3 is x0
with noise and decides the first label as well: the group of both must be found and be first. Completeness: the gap of
integrated gradients at 64 steps, of networks with random weights. Selection: census income, a model of both tasks with
all features, and for each task models with the half of the features of most importance on validation rows and with a
random half.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import census
import numpy as np
import paired
import pandas as pd

import tfmtl
from tfmtl import data, interpretation, layers, models, tasks
from tfmtl.evaluation import evaluate
from tfmtl.training import LazyAdam

TASKS = ["first", "second"]
PLANTED = {"first": {"x0", "x1"}, "second": {"x2"}}


def planted(seed: int, correlated: bool, rows: int = 3000) -> pd.DataFrame:
    """Return a table of 8 numbers and two labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=[rows, 8])
    if correlated:
        x[:, 3] = x[:, 0] + 0.4 * x[:, 3]
    first = x[:, 0] + 0.8 * x[:, 1] * (1 + 0.5 * np.sign(x[:, 1])) + (x[:, 3] if correlated else 0)
    labels = {"first": first + rng.normal(size=rows), "second": (x[:, 2] + rng.normal(size=rows) > 0).astype(float)}
    return pd.DataFrame({f"x{i}": x[:, i] for i in range(8)}).assign(**labels)


def trained(frame: pd.DataFrame, seed: int) -> models.MultiTaskModel:
    """Return a trained model of a planted table."""
    schema = data.Schema([data.Numeric(f"x{i}") for i in range(8)], labels=[data.Label(name) for name in TASKS])
    fitted = data.Preprocessor.fit(schema, frame)
    heads = [tasks.Regression.from_statistics("first", fitted.statistics), tasks.BinaryClassification("second")]
    network = models.build_network(fitted, heads, layers.MMoE(num_experts=3, units=[16], seed=seed), seed=seed)
    model = models.MultiTaskModel(network, heads, fitted, seed=seed)
    model.compile(LazyAdam(0.01))
    model.fit(frame, epochs=8, batch_size=100, verbose=0)
    return model


def find_planted(tables: int) -> None:
    """Print in how many tables the planted features and groups are first."""
    alone = together = 0
    for seed in range(tables):
        frame = planted(seed, correlated=False)
        found = interpretation.permutation_importance(trained(frame[:2000], seed), frame[2000:], seed=seed)
        alone += all(set(found.select(task, len(names))) == names for task, names in PLANTED.items())
        frame = planted(100 + seed, correlated=True)
        model = trained(frame[:2000], seed)
        groups = interpretation.correlated_features(model, frame[2000:])
        found = interpretation.permutation_importance(model, frame[2000:], groups=groups, seed=seed)
        together += found.select("first", 1) == ["x0", "x3"] and found.select("second", 1) == ["x2"]
    print(f"\n| tables | planted features first | correlated group first |\n|---|---|---|\n"
          f"| {tables} | {alone} | {together} |", flush=True)  # fmt: skip


def trunks() -> dict[str, Callable[[], layers.MultiTaskLayer]]:
    """Return small trunks by name."""
    plain: Any = {"units": [8]}
    inner = layers.MMoE(TASKS, 3, **plain)
    kinds = (layers.SharedBottom, layers.MMoE, layers.OMoE, layers.CGC, layers.PLE, layers.AdaTT, layers.CrossStitch,
             layers.MTAN, layers.LearningToBranch, layers.STEM)  # fmt: skip
    return {
        **{kind.__name__: lambda kind=kind: kind(TASKS, **plain) for kind in kinds},
        "DSelectK": lambda: layers.DSelectK(TASKS, 3, 2, **plain),
        "AITM": lambda: layers.AITM(inner, {"second": "first"}),
        "BayesianRelations": lambda: layers.BayesianRelations(inner, {"second": ["first"]}),
        "HoME": lambda: layers.HoME(TASKS, groups={"x": ["first"], "y": ["second"]}, units=[16]),
        "PEPNet": lambda: layers.PEPNet(TASKS, domain=["x7"], personal=["kind"], **plain),
    }


def completeness() -> None:
    """Print the gaps of integrated gradients by trunk, relative to the difference from the baseline."""
    frame = planted(0, correlated=False, rows=200)
    frame["kind"] = np.random.default_rng(0).integers(0, 9, len(frame)).astype(str)
    features = [data.Categorical("kind"), *(data.Numeric(f"x{i}") for i in range(8))]
    fitted = data.Preprocessor.fit(data.Schema(features, labels=[data.Label(name) for name in TASKS]), frame)
    print("\n| trunk | mean gap / mean difference | 95th percentile of gap / difference by row |\n|---|---|---|")
    for name, make in trunks().items():
        heads = [tasks.Regression("first"), tasks.BinaryClassification("second")]
        network = models.build_network(fitted, heads, make(), embedding_dim=4)
        rng = np.random.default_rng(1)
        for variable in network.trainable_variables:
            variable.assign(rng.normal(size=variable.shape, scale=1 / np.sqrt(max(variable.shape[0], 1))))
        found = interpretation.integrated_gradients(models.MultiTaskModel(network, heads, fitted), frame, frame)
        size, gap = np.abs(found.output - found.base), np.abs(found.gap)
        print(
            f"| {name} | {(gap.mean(0) / size.mean(0)).max():.3%} | {np.quantile(gap / size, 0.95):.3%} |", flush=True
        )


def fitted_model(train: pd.DataFrame, schema: data.Schema, seed: int) -> models.MultiTaskModel:
    """Return a trained model of both questions."""
    model = census.model(
        data.Preprocessor.fit(schema, train), schema.tasks, layers.MMoE(num_experts=4, units=[16], seed=seed), seed
    )
    model.compile(LazyAdam(0.003))
    model.fit(train, epochs=4, batch_size=256, verbose=0)
    return model


def without(schema: data.Schema, names: Sequence[str]) -> data.Schema:
    """Return the schema with some features only."""
    return data.Schema([feature for feature in schema.query if feature.name in names], labels=schema.labels)


def select(folder: pathlib.Path, seeds: int, rows: int) -> None:
    """Print the AUC of each task by the features of its model."""
    train, validation, test, schema = census.load_group(folder, 1)
    scores: dict[tuple[str, str], list[float]] = {}
    for seed in range(seeds):
        part = train.sample(rows, random_state=seed).reset_index(drop=True)
        held, judged = validation[: rows // 4], test[:20_000]
        full = fitted_model(part, schema, seed)
        found = interpretation.permutation_importance(full, held, repeats=2, seed=seed)
        names = list(schema.features)
        half = len(names) // 2
        random = np.random.default_rng(seed).permutation(names)[:half].tolist()
        chosen = {task: fitted_model(part, without(schema, found.select(task, half)), seed) for task in schema.tasks}
        other = fitted_model(part, without(schema, random), seed)
        for task in schema.tasks:
            for name, model in (("all", full), ("most important half", chosen[task]), ("random half", other)):
                auc = float(evaluate(model, judged, tasks=[task])[task, "auc"])
                scores.setdefault((task, name), []).append(auc)
    print("\n| task | features | test AUC | against all |\n|---|---|---|---|")
    for (task, name), values in scores.items():
        difference = np.array(values) - np.array(scores[task, "all"])
        print(f"| {task} | {name} | {paired.interval(values)} | {paired.interval(difference, '+.4f')} |", flush=True)
    costs(full, held, part)


def costs(model: models.MultiTaskModel, table: pd.DataFrame, train: pd.DataFrame) -> None:
    """Print the CPU time of each method per row."""
    batch = data.to_batch(table, model.preprocessor)
    few = data.to_batch(table[:200], model.preprocessor)
    rest = data.to_batch(train[:2000], model.preprocessor)
    runs: dict[str, tuple[int, Callable[[], Any]]] = {
        "permutation importance, 1 repeat": (
            len(table), lambda: interpretation.permutation_importance(model, batch, repeats=1)),
        "gradient x input": (len(table), lambda: interpretation.gradient_times_input(model, batch)),
        "integrated gradients, 64 steps": (200, lambda: interpretation.integrated_gradients(model, few, rest)),
        "Shapley values, 16 samples": (200, lambda: interpretation.shapley_values(model, few, rest, samples=16)),
        "expert ablation": (len(table), lambda: interpretation.expert_ablation(model, batch)),
    }  # fmt: skip
    print("\n| method | rows | CPU ms per row |\n|---|---|---|")
    for name, (rows, run) in runs.items():
        start = time.process_time()
        run()
        print(f"| {name} | {rows} | {1000 * (time.process_time() - start) / rows:.3f} |", flush=True)


def main() -> None:
    """Parse the arguments, measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path)
    parser.add_argument("--tables", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    arguments = parser.parse_args()
    tfmtl.keras.utils.set_random_seed(0)
    find_planted(arguments.tables)
    completeness()
    if arguments.census:
        select(arguments.census, arguments.seeds, arguments.rows)


if __name__ == "__main__":
    main()
