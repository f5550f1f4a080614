"""Two workers on one machine against one process, on the same global batches: losses and rows per second.

    python benchmarks/distribution.py [--rows 200000] [--batch 4096] [--epochs 3] [--workers 2]

The tasks are retrieval with gathered negatives, a binary task and a regression, over random rows with missing labels.
Each worker is a process with its own TF_CONFIG, as on several machines. Here they share the cores of one machine, so
that the rate shows the cost of messages, not the gain of a second machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import sys
import time
from typing import Any

from servers.processes import free_ports, printed

USERS, ITEMS = 20_000, 5_000
SECONDS = 1800
"""The time after which a process counts as hanging."""


def main() -> None:
    """Train in one process and then with workers, and print a table; or act as one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"rows": 200_000, "batch": 4096, "epochs": 3, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one-of-them", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_of_them:
        print("\n" + json.dumps(train(options)))
        return
    arguments = [f"--{name}={getattr(options, name)}" for name in ("rows", "batch", "epochs")]
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--one-of-them", *arguments]
    alone = printed(command, [{}], SECONDS)[0]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(options.workers)]}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(options.workers)]
    together = printed(command, [{"TF_CONFIG": json.dumps(task)} for task in tasks], SECONDS)[0]
    print(f"| | one process | {options.workers} workers | difference |\n|---|---|---|---|")
    for name, values in alone["losses"].items():
        others = together["losses"][name]
        worst = max(abs(one - other) for one, other in zip(values, others, strict=True))
        print(f"| {name}, last epoch | {values[-1]:.6f} | {others[-1]:.6f} | {worst:.1e} in any epoch |")
    print(f"| rows per second, best epoch | {alone['rate']:,.0f} | {together['rate']:,.0f} | |")


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train under the strategy of TF_CONFIG and return the losses by epoch and the best rate."""
    import tensorflow as tf

    from tfmtl import keras  # here, since the parent process needs no TensorFlow

    strategy = (
        tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else tf.distribute.get_strategy()
    )
    frame = table(options.rows)
    with strategy.scope():
        model = build(frame)
    begun: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begun.append(time.perf_counter()),
        on_train_end=lambda logs: begun.append(time.perf_counter()),
    )
    log = model.fit(frame, batch_size=options.batch, epochs=options.epochs, verbose=0, callbacks=[clock]).history
    seconds = min(after - before for before, after in itertools.pairwise(begun))
    losses = {name: values for name, values in log.items() if name == "loss" or name.endswith("_loss")}
    return {"losses": losses, "rate": options.rows / seconds}


def table(rows: int) -> Any:
    """Return interactions with labels that depend on user and item; some are missing."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    user, item = rng.integers(0, USERS, rows), (ITEMS * rng.random(rows) ** 2).astype(int)
    score = rng.normal(size=USERS)[user] + rng.normal(size=ITEMS)[item]
    columns = {"user": user, "item": item, "age": rng.normal(size=rows), "rating": 3 + score, "seen": 1.0}
    frame = pd.DataFrame({**columns, "liked": (score > 0).astype(float)})
    frame.loc[rng.random(rows) < 0.3, "liked"] = np.nan
    frame.loc[rng.random(rows) < 0.2, "seen"] = np.nan
    return frame


def build(frame: Any) -> Any:
    """Return a compiled model."""
    from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema
    from tfmtl.models import MultiTaskModel, Regularization, build_network
    from tfmtl.tasks import BinaryClassification, Regression, Retrieval
    from tfmtl.training import LazyAdam

    schema = Schema(
        query=[Categorical("user", dtype="int64"), Numeric("age")],
        candidate=[Categorical("item", dtype="int64")],
        labels=[Label("seen"), Label("liked"), Label("rating")],
    )
    preprocessor = Preprocessor.fit(schema, frame)
    rating = Regression.from_statistics("rating", preprocessor.statistics)
    tasks = [Retrieval("seen", units=[16]), BinaryClassification("liked"), rating]
    network = build_network(preprocessor, tasks, regularization=Regularization(unknown_rate=0.0))
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam(0.003))
    return model


if __name__ == "__main__":
    main()
