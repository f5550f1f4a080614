"""Losses of numbers beside squared loss, on stars, counts and spend; the time of a training step of each.

    PYTHONPATH=.:examples python benchmarks/head_losses.py --stars FOLDER/ml_100k --clicks FOLDER/tmall_brands \
        --spend FOLDER/hillstrom [--seeds 3] [--quick]

All losses of one data set are isolated parts of one network, with tables and towers of their own, and are trained in
the same steps; each keeps the epoch of its own least loss on validation rows. Data are split at random by seed.

- stars: MovieLens-100K, 20,000 / 10,000 / 20,000 rows for training, validation and test; users and movies.
- clicks: further clicks of a user on a brand after the first one (Tmall), 25,000 / 8,000 / 20,000 pairs.
- spend: Hillstrom's campaign, 30,000 / 10,000 / 24,000 customers, of whom 0.9 % spend.

Quantiles of a squared loss are its prediction plus the quantiles of its errors on validation rows. Predicted means
count as at least a hundredth of the mean label in the deviance.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import paired
import pandas as pd
import tensorflow as tf

from tfmtl.data import Categorical, Feature, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.evaluation import level_metrics, mean_deviance, normalized_gini, quantile_metrics, regression_metrics
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.recipes import BestEpoch
from tfmtl.tasks import (
    HuberRegression,
    OrdinalRegression,
    PoissonRegression,
    QuantileRegression,
    Regression,
    Task,
    TweedieRegression,
    ZeroInflatedLognormal,
)
from tfmtl.training import LazyAdam

QUANTILES, LEVELS, BATCH = (0.1, 0.5, 0.9), (1, 2, 3, 4, 5), 512
PARTS = {"stars": (20_000, 10_000, 20_000), "clicks": (25_000, 8_000, 20_000), "spend": (30_000, 10_000, 24_000)}
FEATURES: dict[str, tuple[list[Feature], list[Feature]]] = {
    "stars": ([Categorical("user_id", dtype="int64")], [Categorical("movie_id", dtype="int64")]),
    "clicks": ([Categorical("user_id", dtype="int64")], [Categorical("brand_id", dtype="int64")]),
    "spend": (
        [
            *map(Categorical, ("zip_code", "channel", "segment")),
            *map(Numeric, ("recency", "history", "mens", "newbie")),
        ],
        [],
    ),
}


def read(folder: pathlib.Path, name: str) -> pd.DataFrame:
    """Return the rows of a data set, with the number in the column `y`."""
    if name == "stars":
        return pd.read_parquet(folder / "ratings.parquet").rename(columns={"rating": "y"})
    if name == "spend":
        return pd.read_parquet(folder / "hillstrom.parquet").rename(columns={"spend": "y"})
    events = pd.read_parquet(next(folder.glob("*.parquet")))
    pairs = events[events["action"] == "click"].groupby(["user_id", "brand_id"]).size() - 1
    return pairs.rename("y").reset_index()


def heads(name: str, statistics: Any) -> dict[str, Task]:
    """Return the tasks of a data set by the name of their loss, the squared one first."""

    def of(kind: Any, task: str, **arguments: Any) -> Task:
        return kind.from_statistics(task, statistics, scope="pair" if name != "spend" else "query", **arguments)

    squared = {"squared": of(Regression, "squared"), "Huber": of(HuberRegression, "huber")}
    quantiles = {"quantiles": of(QuantileRegression, "quantiles", quantiles=QUANTILES)}
    if name == "stars":
        return {**squared, **quantiles, "ordinal (CORAL)": OrdinalRegression("ordinal", LEVELS)}
    skewed = {
        "squared of log(1 + y)": of(Regression, "squared_log", transform="log1p"),
        "Poisson": of(PoissonRegression, "poisson"),
        "Tweedie 1.5": of(TweedieRegression, "tweedie"),
        "ZILN": of(ZeroInflatedLognormal, "ziln"),
    }
    return {**squared, **skewed, **quantiles} if name == "clicks" else {**squared, **skewed}


def schema_of(name: str, tasks: tuple[str, ...]) -> Schema:
    """Return the schema, in which all tasks read one label."""
    query, candidate = FEATURES[name]
    return Schema(query, candidate, labels=[Label(task, column="y") for task in tasks])


ALL = ("squared", "huber", "squared_log", "poisson", "tweedie", "ziln", "quantiles", "ordinal")


def fitted(name: str, parts: list[pd.DataFrame], seed: int, epochs: int) -> tuple[MultiTaskModel, dict[str, Task]]:
    """Return a trained model and its tasks by the name of their loss."""
    known = Preprocessor.fit(schema_of(name, ALL), parts[0]).statistics
    chosen = heads(name, known)
    preprocessor = Preprocessor.fit(schema_of(name, tuple(task.name for task in chosen.values())), parts[0])
    tasks = list(chosen.values())
    network = build_network(
        preprocessor, tasks, embedding_dim=8, tower_units=[16], isolate=[[task.name] for task in tasks],
        regularization=Regularization(embedding_l2=1e-5), seed=seed,
    )  # fmt: skip
    model = MultiTaskModel(network, tasks, preprocessor, seed=seed)
    model.compile(LazyAdam(0.003))
    model.fit(
        parts[0], validation_data=parts[1], batch_size=BATCH, epochs=epochs, verbose=0,
        callbacks=[BestEpoch(parts[1], patience=2)],
    )  # fmt: skip
    return model, chosen


def measured(name: str, y: np.ndarray, served: np.ndarray, errors: np.ndarray | None) -> dict[str, float]:
    """Return the metrics of a loss; `errors` are those on validation rows of a loss without quantiles."""
    several = served if errors is None else served[:, np.newaxis] + np.quantile(errors, QUANTILES)
    found = {"pinball": quantile_metrics(y, several, None, QUANTILES)["pinball"]}
    central = served[:, 1] if errors is None else served
    found |= regression_metrics(y, central)
    if name == "stars":
        return found | level_metrics(y, central, None, LEVELS)
    found["deviance"] = mean_deviance(y, np.maximum(central, y.mean() / 100))
    return found | {"gini": normalized_gini(y, central), "calibration": float(central.sum() / y.sum())}


def run(folder: pathlib.Path, name: str, seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Return the metrics of each loss on the test rows of one split."""
    sizes = np.cumsum([size // (20 if quick else 1) for size in PARTS[name]])
    rows = read(folder, name).sample(sizes[-1], random_state=seed, ignore_index=True)
    parts = [rows.iloc[first:last] for first, last in zip([0, *sizes[:-1]], sizes, strict=True)]
    model, chosen = fitted(name, parts, seed, 1 if quick else 8)
    validation, test = (model.predict(part, batch_size=8192, verbose=0) for part in parts[1:])
    y = parts[2]["y"].to_numpy(float)
    found = {}
    for loss, task in chosen.items():
        own = np.asarray(test[task.name], float)
        errors = None if own.ndim == 2 else parts[1]["y"].to_numpy(float) - np.asarray(validation[task.name], float)
        found[loss] = measured(name, y, own, errors)
    return found


SHOWN = {
    "stars": ("rmse", "mae", "xauc", "pinball", "accuracy", "kappa"),
    "clicks": ("rmse", "mae", "xauc", "deviance", "calibration", "pinball"),
    "spend": ("rmse", "mae", "xauc", "deviance", "calibration", "gini"),
}


def table(folder: pathlib.Path, name: str, seeds: int, quick: bool) -> None:
    """Print metrics and their paired differences from squared loss."""
    runs = [run(folder, name, seed, quick) for seed in range(seeds)]
    print(f"\n{name}\n\n| loss | {' | '.join(SHOWN[name])} |")
    print("|---" * (len(SHOWN[name]) + 1) + "|")
    for loss in runs[0]:
        cells = []
        for metric in SHOWN[name]:
            own, plain = (np.array([found[key][metric] for found in runs]) for key in (loss, "squared"))
            difference = "" if loss == "squared" else f" ({paired.interval(own - plain, '+.4f')})"
            cells.append(f"{own.mean():.4f}{difference}")
        print(f"| {loss} | {' | '.join(cells)} |", flush=True)


def step_times(rounds: int) -> None:
    """Print the time of a training step of each loss over that of squared loss, batch 1,024, in turns."""
    rng = np.random.default_rng(0)
    rows = 20 * 1024
    ids = {key: rng.integers(0, 1000, rows).astype(str) for key in ("user", "item")}
    frame = pd.DataFrame({**ids, "y": rng.integers(1, 6, rows).astype(float)})
    steps = {}
    for loss, task in {**heads("stars", _one_label(frame)), **heads("clicks", _one_label(frame))}.items():
        schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label(task.name, column="y")])
        preprocessor = Preprocessor.fit(schema, frame)
        network = build_network(preprocessor, [task], embedding_dim=16, tower_units=[64, 32])
        model = MultiTaskModel(network, [task], preprocessor)
        model.compile(LazyAdam(0.001))
        steps[loss] = _steps(model, to_batch(frame.iloc[:1024], preprocessor))
    ratios: dict[str, list[float]] = {loss: [] for loss in steps}
    for _ in range(rounds):
        seconds = {loss: step() for loss, step in steps.items()}
        for loss, value in seconds.items():
            ratios[loss].append(value / seconds["squared"])
    print("\n| loss | step time over squared loss (middle half) |\n|---|---|")
    for loss, values in ratios.items():
        print(f"| {loss} | {paired.spread(values, half=True)} |")


def _one_label(frame: pd.DataFrame) -> Mapping[str, Any]:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label(task, column="y") for task in ALL])
    return Preprocessor.fit(schema, frame).statistics


def _steps(model: MultiTaskModel, batch: Any) -> Any:
    @tf.function
    def step() -> Any:
        return model.train_step(batch)

    step()

    def timed() -> float:
        start = time.perf_counter()
        for _ in range(10):
            step()
        return time.perf_counter() - start

    return timed


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=pathlib.Path, required=True)
    parser.add_argument("--clicks", type=pathlib.Path, required=True)
    parser.add_argument("--spend", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    for name in PARTS:
        start = time.perf_counter()
        table(getattr(arguments, name), name, 1 if arguments.quick else arguments.seeds, arguments.quick)
        print(f"\n{time.perf_counter() - start:.0f} s", flush=True)
    step_times(2 if arguments.quick else 30)


if __name__ == "__main__":
    main()
