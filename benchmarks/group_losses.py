"""Losses between the rows of a user beside the loss of the rows alone: order within users, and step time.

    PYTHONPATH=.:examples python benchmarks/group_losses.py FOLDER/ml_100k FOLDER/tmall_brands ... [--seeds 3]

One binary task of a set of `transfer.py` by every `GroupLoss`, with weight 1 beside cross-entropy. All are isolated
parts of one network, with tables and towers of their own, and are trained in the same steps of 1024 rows; each keeps
the epoch of its best GAUC on validation rows. GAUC, NDCG@10 within the test rows of each user, and AUC are those of the
test rows; differences are paired by seed. `--steps` measures the time of a step of each loss alone instead, in turns.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from typing import Any, get_args

import numpy as np
import paired
import pandas as pd
import tensorflow as tf
import transfer

import tfmtl
from tfmtl.data import random_split, to_batch
from tfmtl.evaluation import binary_metrics, grouped_auc
from tfmtl.tasks.group_loss import GroupKind

LABELS = {"ml_100k": "liked", "ciao": "low", "tmall_brands": "buy", "steam_reviews": "recommend", "tmall": "buy"}
KINDS = ("rows alone", *get_args(GroupKind))


def ndcg(labels: Any, scores: Any, users: Any, k: int = 10) -> float:
    """Return the mean NDCG at k within the rows of each user with a positive and a negative."""
    frame = pd.DataFrame({"label": labels, "score": scores, "user": users})
    varies = frame.groupby("user")["label"].transform("nunique") > 1
    frame = frame[varies].sort_values("score", ascending=False, kind="stable")
    frame["gain"] = 1 / np.log2(2 + frame.groupby("user").cumcount())
    frame.loc[frame.groupby("user").cumcount() >= k, "gain"] = 0.0
    found = (frame["gain"] * frame["label"]).groupby(frame["user"]).sum()
    positives = frame.groupby("user")["label"].sum().clip(upper=k).astype(int)
    ideal = np.cumsum(1 / np.log2(2 + np.arange(k)))[positives.to_numpy() - 1]
    return float((found.to_numpy() / ideal).mean())


def tasks_of(names: dict[str, str]) -> list[tfmtl.Task]:
    """Return the tasks by the name of their loss."""
    return [
        tfmtl.BinaryClassification(
            task, extra_losses=[] if kind == KINDS[0] else [tfmtl.tasks.GroupLoss(kind, "user_id")]
        )
        for task, kind in names.items()
    ]


def prepared(folder: pathlib.Path, rows: int, seed: int) -> tuple[dict[str, str], list[pd.DataFrame], Any]:
    """Return the loss of each task, the training, validation and test rows, and the preprocessor."""
    label, names = LABELS[folder.name], {f"task_{i}": kind for i, kind in enumerate(KINDS)}
    rest, test, _, _ = transfer.parts(folder, rows, seed)
    problem = transfer.PROBLEMS[folder.name]
    columns = [*problem.query, *problem.candidate]
    tables = [part[columns].assign(**dict.fromkeys(names, part[label])) for part in (rest, test)]
    train, held_out = random_split(tables[0], test_fraction=0.1, seed=seed)
    sides = [[tfmtl.Categorical(name) for name in part] for part in (problem.query, problem.candidate)]
    schema = tfmtl.Schema(*sides, labels=[tfmtl.Label(name) for name in names])
    return names, [train, held_out, tables[1]], tfmtl.Preprocessor.fit(schema, train)


def measure(folder: pathlib.Path, rows: int, seed: int, epochs: int) -> dict[str, list[float]]:
    """Return GAUC, NDCG@10 and AUC on the test rows by loss."""
    names, (train, held_out, test), preprocessor = prepared(folder, rows, seed)
    tasks = tasks_of(names)
    network = tfmtl.build_network(preprocessor, tasks, isolate=[[task] for task in names], seed=seed)
    model = tfmtl.MultiTaskModel(network, tasks, preprocessor, seed=seed)
    model.compile(tfmtl.LazyAdam(3e-3))
    best: dict[str, list[float]] = {}
    for _ in range(epochs):
        model.fit(train, batch_size=1024, epochs=1, verbose=0)
        on_validation, on_test = (model.predict(part, verbose=0) for part in (held_out, test))
        for task, kind in names.items():
            quality = grouped_auc(held_out[task], on_validation[task], held_out["user_id"])
            if quality > best.get(kind, [-1.0])[0]:
                label, score = test[task], on_test[task]
                auc = binary_metrics(label, score)["auc"]
                users = test["user_id"]
                best[kind] = [quality, grouped_auc(label, score, users), ndcg(label, score, users), auc]
    return {kind: values[1:] for kind, values in best.items()}


def steps(folder: pathlib.Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Return the time of a step of 1024 rows of each loss relative to that of the rows alone, of rounds in turns."""
    names, (train, _, _), preprocessor = prepared(folder, rows, 0)
    batch, calls = to_batch(train.head(1024), preprocessor), {}
    for task in tasks_of(names):
        model = tfmtl.MultiTaskModel(tfmtl.build_network(preprocessor, [task]), [task], preprocessor)
        model.compile(tfmtl.LazyAdam(3e-3))
        model.build_optimizer()
        calls[names[task.name]] = tf.function(functools.partial(model.train_step, batch))
    seconds: dict[str, list[float]] = {kind: [] for kind in calls}
    for _ in range(rounds + 1):
        for kind, call in calls.items():
            start = time.perf_counter()
            for _ in range(20):
                call()
            seconds[kind].append(time.perf_counter() - start)
    plain = np.array(seconds[KINDS[0]][1:])  # the first round traces
    return {kind: (np.array(values[1:]) / plain).tolist() for kind, values in seconds.items()}


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if arguments.steps:
            for kind, ratios in steps(folder, arguments.rows, 7).items():
                print(f"| {kind} | {paired.spread(ratios)} |", flush=True)
            continue
        runs = [measure(folder, arguments.rows, seed, arguments.epochs) for seed in range(arguments.seeds)]
        print(f"{folder.name}\n\n| loss | GAUC | NDCG@10 | AUC | GAUC, difference | NDCG@10, difference |")
        print("|---|---|---|---|---|---|")
        for kind in KINDS:
            values = np.array([run[kind] for run in runs])
            difference = values - np.array([run[KINDS[0]] for run in runs])
            means = " | ".join(f"{mean:.4f}" for mean in values.mean(axis=0))
            gains = " | ".join(paired.interval(column, "+.4f") for column in difference.T[:2])
            print(f"| {kind} | {means} | {gains} |", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
