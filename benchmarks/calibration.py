"""Calibration of event probabilities: errors on test rows before and after `recipes.calibrate`.

    PYTHONPATH=.:examples python benchmarks/calibration.py FOLDER/census_income FOLDER/ml_100k [--epochs 4] [--seed 0]

Each set is that of `ranking_sets.py`. A sixth of its training rows is the validation part, on which maps are fitted. A
multi-task network is trained twice: on all other rows, and without most negatives of the first task (`--rate`).
The validation and the test rows keep all negatives.

ECE has ten bins of equal mass. Its floor is the mean ECE of labels drawn from the calibrated probabilities: that of a
perfect model on that many test rows.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import ranking_sets

from tfmtl import Preprocessor, data, evaluation, models, recipes, training

METHODS = ("temperature", "platt", "isotonic")
DRAWS = 50


def error(labels: Any, probabilities: Any) -> float:
    """Return the ECE with bins of equal mass."""
    return evaluation.calibration_error(labels, probabilities, equal_mass=True)


def floor(probabilities: Any, seed: int) -> float:
    """Return the mean ECE of labels that are drawn from the probabilities."""
    rng = np.random.default_rng(seed)
    drawn = rng.random([DRAWS, len(probabilities)]) < probabilities
    return float(np.mean([error(labels, probabilities) for labels in drawn.astype(np.float64)]))


def downsampled(table: pd.DataFrame, event: str, rate: float, seed: int) -> pd.DataFrame:
    """Return the rows with the event, and a share of the others."""
    kept = (table[event] > 0) | (np.random.default_rng(seed).random(len(table)) < rate)
    return table[kept].reset_index(drop=True)


def trained(found: ranking_sets.Set, table: pd.DataFrame, epochs: int, seed: int) -> models.MultiTaskModel:
    """Return a network of default widths, trained without early stopping."""
    preprocessor = Preprocessor.fit(found.schema, table)
    heads = found.tasks(preprocessor)
    network = models.build_network(preprocessor, heads, seed=seed)
    model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
    model.compile(training.LazyAdam(1e-3))
    model.fit(table, epochs=epochs, batch_size=512, verbose=0)
    return model


def measured(model: models.MultiTaskModel, test: pd.DataFrame, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return AUC, log loss, ECE and probabilities of each task."""
    served = model.predict(test, batch_size=4096, verbose=0)
    return {
        name: {
            **evaluation.binary_metrics(test[name], served[name]),
            "ece": error(test[name], served[name]),
            "served": served[name],
        }
        for name in names
    }


def _rows(kept: float) -> str:
    return "all" if kept == 1 else f"negatives 1 in {1 / kept:.0f}"


def compare(folder: pathlib.Path, epochs: int, rate: float, seed: int) -> list[list[Any]]:
    """Return the lines of one set."""
    found = ranking_sets.read(folder, seed)
    names = [name for name, kind in found.kinds.items() if kind == "binary"]
    part = data.random_split(found.train, test_fraction=1 / 6, seed=seed)
    lines = []
    for kept, event in [(1.0, None), (rate, names[0])]:
        table = part.train.reset_index(drop=True)
        model = trained(found, table if event is None else downsampled(table, event, kept, seed), epochs, seed)
        asked = names if event is None else [event]
        results = {"none": measured(model, found.test, asked)}
        for method in METHODS if event is None else ("prior", *METHODS):
            given = {"rate": kept} if method == "prior" else {"validation": part.test}
            try:
                made = recipes.calibrate(model, method=method, tasks=asked, **given)
            except ValueError as error_found:
                lines.append([folder.name, ", ".join(asked), _rows(kept), method, f"refused: {error_found}", *[""] * 6])
                continue
            results[method] = measured(made, found.test, asked)
        for name in asked:
            before = results["none"][name]
            least = floor(results["isotonic"][name]["served"], seed)
            for method, values in results.items():
                own = values[name]
                change = own["auc"] - before["auc"]
                ratio = own["ece"] / before["ece"]
                met = "" if method == "none" else "yes" if own["ece"] < 0.005 or ratio <= 1 / 3 else "no"
                lines.append([
                    folder.name, name, _rows(kept), method, f"{own['ece']:.4f}", f"{ratio:.2f}", met, f"{least:.4f}",
                    f"{own['log_loss']:.4f}", f"{own['auc']:.4f}", f"{change:+.1e}",
                ])  # fmt: skip
    return lines


def main() -> None:
    """Print one table of all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.1, help="share of the negatives that the second training keeps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    columns = [
        "set", "task", "training rows", "map", "ECE", "of none", "bar met", "floor of ECE", "log loss", "AUC", "change",
    ]  # fmt: skip
    print(
        f"One seed ({options.seed}), {options.epochs} epochs. The bar: ECE below 0.005, or a third of that of no map.\n"
    )
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for folder in options.folders:
        for line in compare(folder, options.epochs, options.rate, options.seed):
            print("| " + " | ".join(map(str, line)) + " |", flush=True)


if __name__ == "__main__":
    main()
