"""Joint models of retrieval and rating: by rows of the table, and by candidates of the corpus."""

from __future__ import annotations

import ctypes

import evaluation_scale
import numpy as np
import pandas as pd

from scaling_axes.curves import Axis, Measure, Watch, decades, interactions
from tfmtl import data, evaluation, models, tasks, training

USERS, ITEMS = 100_000, 10_000
QUERIES = 2_000


def joint_model(table: pd.DataFrame) -> models.MultiTaskModel:
    """Return a model of retrieval and rating for a table that contains all users and items."""
    schema = data.Schema(
        query=[data.Categorical("user", dtype="int64")],
        candidate=[data.Categorical("item", dtype="int64")],
        labels=[data.Label("rating")],
    )
    preprocessor = data.Preprocessor.fit(schema, table)
    heads = [tasks.Retrieval("seen"), tasks.Regression.from_statistics("rating", preprocessor.statistics)]
    network = models.build_network(preprocessor, heads)
    corpus = models.Candidates.from_frame(table[["item"]].drop_duplicates(), preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=corpus)
    model.compile(training.LazyAdam(1e-3))
    return model


def rows_axis(quick: bool) -> Axis:
    """Return the axis of rows: an epoch of `fit` in batches of 1,024, and the encoding of the table."""
    sizes = decades(4, 7, quick)
    table = interactions(USERS, ITEMS, max(USERS, sizes[-1]))
    model = joint_model(table.head(USERS))
    model.fit(table.head(sizes[0]), verbose=0)

    def make(rows: int) -> Measure:
        part = table.head(rows)

        def measure() -> dict[str, float]:
            watch = Watch()
            batch = data.to_batch(part, model.preprocessor)
            encoding, watch = watch.processor, Watch()
            model.fit(batch, verbose=0)
            return {
                "epoch of fit, CPU": watch.processor,
                "epoch of fit, clock": watch.clock,
                "encoding of the table, CPU": encoding,
            }

        return measure

    units = dict.fromkeys(("epoch of fit, CPU", "epoch of fit, clock", "encoding of the table, CPU"), "seconds")
    return Axis("rows", units, {"fit": make}, {"fit": sizes}, rounds=2)


def candidates_axis(quick: bool) -> Axis:
    """Return the axis of candidates: the evaluation of 2,000 interactions against the whole corpus."""
    sizes = decades(3, 6, quick)

    def make(candidates: int) -> Measure:
        model = joint_model(interactions(QUERIES, candidates, max(QUERIES, candidates)))
        table = interactions(QUERIES, candidates, QUERIES)
        rng = np.random.default_rng(0)
        width = evaluation_scale.WIDTH
        queries, corpus = (rng.standard_normal((count, width), np.float32) for count in (QUERIES, candidates))
        positives = rng.integers(0, candidates, QUERIES)

        def measure() -> dict[str, float]:
            found = {}
            for name, run in {
                "evaluate": lambda: evaluation.evaluate(model, table, ks=(10,), tasks=["seen"]),
                "rank_positives": lambda: evaluation.rank_positives(queries, corpus, np.arange(QUERIES), positives),
            }.items():
                _return_free_memory()
                evaluation_scale.reset_peak()
                before, watch = evaluation_scale.peak_mb(), Watch()
                run()
                found[f"{name}, CPU"] = watch.processor
                found[f"{name}, memory"] = evaluation_scale.peak_mb() - before
            return found

        return measure

    units = {"evaluate, CPU": "seconds", "rank_positives, CPU": "seconds"}
    units |= {"evaluate, memory": "peak MB above the start", "rank_positives, memory": "peak MB above the start"}
    return Axis("candidates", units, {"rank": make}, {"rank": sizes}, rounds=3)


def _return_free_memory() -> None:
    """Return free memory of glibc to the system, since memory used again would not raise the peak."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
