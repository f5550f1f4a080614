"""Ranking tasks by default settings beside gradient boosting: classes, events and numbers of public data sets.

    python benchmarks/ranking.py FOLDER/census_income FOLDER/ml_100k ... [--seeds 1] [--epochs 20]

The model of all tasks of a set by `recipes.fit` with its defaults, and the baselines of each task with theirs, on the
same test rows: AUC, macro AUC or RMSE, and the log loss, with the difference from the best baseline and its 95 %
interval by a bootstrap over rows. At most 60,000 training and 20,000 test rows of each set.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import numpy as np
import ranking_sets

import tfmtl
from tfmtl import baselines, evaluation, recipes
from tfmtl.data import to_batch
from tfmtl.evaluation.reports.report import judged, predict

_METHODS = (baselines.GradientBoosting, baselines.TfidfLinear)
_FIRST = ("auc", "macro_auc", "rmse")
_SMALLER = ("rmse", "log_loss")


def fitted(found: ranking_sets.Set, epochs: int, seed: int) -> tuple[tfmtl.MultiTaskModel, float]:
    """Return the model by the defaults of the recipe and the seconds of its training."""
    preprocessor = tfmtl.Preprocessor.fit(found.schema, found.train)
    start = time.perf_counter()
    result = recipes.fit(preprocessor, found.tasks(preprocessor), found.train, epochs=epochs, seed=seed, verbose=0)
    print("\n".join(f"  {line}" for line in str(result).splitlines()), flush=True)
    return result.model, time.perf_counter() - start


def measure(found: ranking_sets.Set, model: tfmtl.MultiTaskModel, samples: int) -> list[list[str]]:
    """Return one line of the table for each task."""
    batch = to_batch(found.test, model.preprocessor)
    served = predict(model, batch)
    lines = []
    for task in model.tasks:
        labels, weights = judged(task, model.schema, batch)
        values: dict[str, Any] = {"model": served[task.name]}
        for method in _METHODS:
            if method.features(model.schema, task):
                values[method.__name__] = method().fit(model.schema, task, found.train).predict(found.test)

        def measured(predicted: Any, task: Any = task, labels: Any = labels, weights: Any = weights) -> Any:
            return lambda drawn: task.report(labels, predicted, weights * drawn)

        measures = {name: measured(predicted) for name, predicted in values.items()}
        rows = np.arange(len(labels))
        compared = evaluation.bootstrap_comparison(measures, rows, baseline="model", samples=samples)
        lines += _lines(task.name, compared)
    return lines


def _lines(task: str, compared: Any) -> list[list[str]]:
    """Return the lines of the first metric and of the log loss of a task."""
    metrics = compared.index.unique("metric")
    first = next(metric for metric in _FIRST if metric in metrics)
    lines = []
    for metric in [first, *(metric for metric in ("log_loss",) if metric in metrics)]:
        part = compared.xs(metric, level="metric")
        others = part.drop("model")
        best = others["value"].idxmin() if metric in _SMALLER else others["value"].idxmax()
        sign = 1.0 if metric in _SMALLER else -1.0  # of baseline minus model, so that a gain is above 0
        gain = sign * part.loc[best, ["difference", "difference_low", "difference_high"]].to_numpy(float)
        low, high = sorted(gain[1:])
        verdict = "better" if low > 0 else "worse" if high < 0 else "level"
        values = [f"{part.loc['model', 'value']:.4f}", f"{part.loc[best, 'value']:.4f}", best]
        lines.append([task, metric, *values, f"{gain[0]:+.4f} ({low:+.4f} to {high:+.4f})", verdict])
    return lines


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        for seed in range(arguments.seeds):
            found = ranking_sets.read(folder, seed)
            model, seconds = fitted(found, arguments.epochs, seed)
            print(
                f"{folder.name}, seed {seed}: {len(found.train):,} rows, {len(found.test):,} to test, {seconds:.0f} s\n"
            )
            print("| task | metric | model | best baseline | its name | gain (95 %) | verdict |\n" + "|---" * 7 + "|")
            for line in measure(found, model, arguments.samples):
                print(f"| {' | '.join(line)} |", flush=True)
            print()


if __name__ == "__main__":
    main()
