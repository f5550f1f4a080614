"""`rank` of raw features in TensorFlow Serving's loader, beside torch-rechub's ONNX export of integers.

    python benchmarks/rank_latency.py --census FOLDER [--rechub PYTHON] [--explain]

The model is an untrained MMoE (8 experts of 16 units, embeddings of 4, towers of 8) for two tasks of census income.
Ours is a SavedModel that reads the strings and numbers of the table; onnxruntime runs that of torch-rechub. With
`--explain` only `explain` with 32 steps is measured, beside `rank` of the same version, by turns.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import tempfile
from typing import Any

import census
import numpy as np
from paired import spread
from servers import cc_loader

from tfmtl import data, layers, models, serving

ROWS = {1: 300, 128: 150, 1024: 60}  # number of calls by batch size
ROUNDS = 5
EXPLAINED = (1, 16)  # rows
WORKER = pathlib.Path(__file__).parent / "peers" / "rechub_onnx.py"


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, required=True)
    parser.add_argument("--rechub", help="interpreter with torch-rechub, onnx and onnxruntime")
    parser.add_argument("--explain", action="store_true", help="measure the signature `explain` beside `rank`")
    arguments = parser.parse_args()
    train, _, test, schema = census.load_group(arguments.census, 1)
    preprocessor = data.Preprocessor.fit(schema, train)
    names = list(schema.tasks)
    model = census.model(preprocessor, names, layers.MMoE(num_experts=8, units=(16,)))
    columns = {n: np.asarray(v) for n, v in data.to_columns(test[:1024], schema.features.values()).items()}
    columns |= {n: np.char.encode(v.astype(str)).astype(object) for n, v in columns.items() if v.dtype.kind in "OUS"}
    if arguments.explain:
        compare_explain(model, train, columns)
        return
    sizes = [preprocessor.statistics.size(name) for name in schema.vocabularies]
    numbers = len(schema.features) - len(sizes)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        version = serving.export(model, folder / "model")
        program = cc_loader.compiled(folder)
        taken: dict[str, dict[int, list[float]]] = {
            name: {rows: [] for rows in ROWS} for name in ("tfmtl", "torch-rechub")
        }
        for _ in range(ROUNDS):
            with cc_loader.loaded(program, version, max(ROWS.values())) as loader:
                for rows in ROWS:
                    asked = {feature: column[:rows] for feature, column in columns.items()}
                    taken["tfmtl"][rows].append(1000 * float(np.median(loader.ask("rank", asked)["seconds"][10:])))
            if arguments.rechub:
                order = json.dumps({"sizes": sizes, "numbers": numbers, "rows": {str(n): c for n, c in ROWS.items()}})
                command = [arguments.rechub, str(WORKER), order]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                for rows, value in json.loads(printed.splitlines()[-1]).items():
                    taken["torch-rechub"][int(rows)].append(value)
    print(f"{model.network.count_params():,} parameters, {len(schema.features)} features\n")
    print("| rows | tfmtl ms | torch-rechub, onnxruntime ms | times (range) |\n|---|---|---|---|")
    for rows, own in taken["tfmtl"].items():
        theirs = taken["torch-rechub"][rows]
        ratio = np.divide(own, theirs) if theirs else np.full(1, np.nan)
        beside = f"{np.median(theirs):.3f}" if theirs else "-"
        print(f"| {rows} | {np.median(own):.3f} | {beside} | {spread(ratio)} |")


def compare_explain(model: models.MultiTaskModel, train: Any, columns: dict[str, np.ndarray]) -> None:
    """Print the latency of `explain` beside that of `rank` in one loaded version, and the size of both versions."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plain = serving.export(model, folder / "plain")
        version = serving.export(model, folder / "explained", explain=serving.Explanations(train[:2000], steps=32))
        program = cc_loader.compiled(folder)
        taken: dict[str, dict[int, list[float]]] = {n: {rows: [] for rows in EXPLAINED} for n in ("rank", "explain")}
        for _ in range(ROUNDS):
            with cc_loader.loaded(program, version, 200) as loader:
                for rows in EXPLAINED:
                    asked = {feature: column[:rows] for feature, column in columns.items()}
                    for signature, found in taken.items():
                        found[rows].append(1000 * float(np.median(loader.ask(signature, asked)["seconds"][10:])))
        sizes = [serving.compressed_size(path) / 1000 for path in (plain, version)]
    print(f"{sizes[0]:.0f} kB without and {sizes[1]:.0f} kB with `explain`, compressed\n")
    print("| rows | rank ms | explain ms | times (range) |\n|---|---|---|---|")
    for rows in EXPLAINED:
        own, other = taken["explain"][rows], taken["rank"][rows]
        print(f"| {rows} | {spread(other)} | {spread(own)} | {spread(np.divide(own, other))} |")


if __name__ == "__main__":
    main()
