"""Trains a peer library on encoded census tables, in the environment of the peer, by commands over a pipe.

    python census_worker.py --peer deepctr|rechub --data FILE.npz

The commands, see `pipe.py`:

    {"do": "quality", "model": "shared_bottom"|"mmoe"|"ple", "seed": 0, "epochs": 15, "patience": 2, "batch_size": 1024}
        trains and stops early by the mean validation AUC; returns "params", "epochs", "best_epoch", "valid" (the best
        epoch's AUCs) and "predictions_file", an .npy (test rows, tasks) that the reader deletes
    {"do": "prepare", "model": ..., "seed": 0, "batch_size": 1024, "steps_per_execution": 32}
        builds a model and trains one epoch to warm up; returns "params". DeepCTR's own default is 1 step
    {"do": "epoch"}
        trains the prepared model for one more epoch; returns "seconds", "cpu" (of the process) and "rows"

The file holds `categorical` (rows, columns), `numeric` and `labels`, each with the prefix `train_`, `valid_` and
`test_`; the `sizes` of the vocabularies and the names of the `tasks`. Networks, initial weights, losses, regularization
and training loops are those of the peer. Both get whole batches by indexing, which is faster than their loaders.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pipe
from sklearn.metrics import roc_auc_score

EMBEDDING, BOTTOM, EXPERT, TOWER = 4, 128, 16, 8
MMOE_EXPERTS, LEVELS, SHARED_EXPERTS, TASK_EXPERTS = 8, 2, 4, 2
LEARNING_RATE, PREDICTION_BATCH = 1e-3, 8192
STEPS_PER_EXECUTION = 32  # argument of Keras' `compile` for DeepCTR, which is faster with it than with the default of 1


class Tables:
    """The arrays of the file."""

    def __init__(self, path: pathlib.Path) -> None:
        with np.load(path) as file:
            self._arrays = dict(file)
        self.tasks = [str(name) for name in self._arrays["tasks"]]
        self.sizes = {f"c{i}": int(size) for i, size in enumerate(self._arrays["sizes"])}
        self.width = self._arrays["train_numeric"].shape[1]

    def part(self, name: str) -> tuple[np.ndarray, ...]:
        """Return categorical features, numeric features and labels of a part."""
        return tuple(self._arrays[f"{name}_{kind}"] for kind in ("categorical", "numeric", "labels"))


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of a peer: `train` returns wall and CPU seconds of an epoch, `predict` values (rows, tasks) of a part."""

    params: int
    train: Callable[[], tuple[float, float]]
    predict: Callable[[str], np.ndarray]
    weights: Callable[[], Any]
    restore: Callable[[Any], object]


def deepctr(
    tables: Tables, kind: str, seed: int, batch_size: int = 1024, steps_per_execution: int = STEPS_PER_EXECUTION
) -> Model:
    """Return a model of DeepCTR on Keras 2, for `model.fit` on a `tf.data` pipeline."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import requests

    requests.get = None  # the import of DeepCTR looks up its newest version at PyPI, in a thread
    import tf_keras as keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    network = _deepctr_network(tables, kind, seed)
    adam = keras.optimizers.Adam(LEARNING_RATE)
    network.compile(adam, "binary_crossentropy", steps_per_execution=steps_per_execution)
    batches = _deepctr_batches(tables, "train", batch_size, seed)
    unseen = {part: _deepctr_batches(tables, part, PREDICTION_BATCH) for part in ("valid", "test")}
    times: list[tuple[float, float]] = []

    def note(*_: Any) -> None:
        times.append((time.perf_counter(), time.process_time()))

    clock = keras.callbacks.LambdaCallback(on_train_batch_begin=note, on_train_batch_end=note)

    def train() -> tuple[float, float]:
        times.clear()
        network.fit(batches, callbacks=[clock], verbose=0)
        return times[-1][0] - times[0][0], times[-1][1] - times[0][1]

    def predict(part: str) -> np.ndarray:
        return np.concatenate(network.predict(unseen[part], verbose=0), axis=1)

    params = sum(math.prod(weight.shape) for weight in network.trainable_weights)
    return Model(params, train, predict, network.get_weights, network.set_weights)


def _deepctr_network(tables: Tables, kind: str, seed: int) -> Any:
    from deepctr import feature_column as features
    from deepctr.models import multitask

    columns = [features.SparseFeat(name, size, embedding_dim=EMBEDDING) for name, size in tables.sizes.items()]
    columns.append(features.DenseFeat("numeric", tables.width))
    common: dict[str, Any] = {"tower_dnn_hidden_units": (TOWER,), "task_names": tables.tasks, "seed": seed}
    common["task_types"] = ["binary"] * len(tables.tasks)
    if kind == "shared_bottom":
        return multitask.SharedBottom(columns, bottom_dnn_hidden_units=(BOTTOM,), **common)
    common["expert_dnn_hidden_units"] = (EXPERT,)
    if kind == "mmoe":
        return multitask.MMOE(columns, MMOE_EXPERTS, **common)
    return multitask.PLE(columns, SHARED_EXPERTS, TASK_EXPERTS, LEVELS, **common)


def _deepctr_batches(tables: Tables, part: str, batch_size: int, seed: int | None = None) -> Any:
    """Return batches; with a seed, rows are permuted again in each pass."""
    import tensorflow as tf

    categorical, numeric, labels = (tf.constant(array) for array in tables.part(part))
    rows = int(labels.shape[0])

    def gathered(order: Any) -> Any:
        columns = tf.split(tf.gather(categorical, order), len(tables.sizes), axis=1)
        inputs = dict(zip(tables.sizes, columns, strict=True)) | {"numeric": tf.gather(numeric, order)}
        return inputs, tuple(tf.split(tf.gather(labels, order), len(tables.tasks), axis=1))

    def batches(order: Any) -> Any:
        return tf.data.Dataset.range(0, rows, batch_size).map(lambda start: gathered(order[start : start + batch_size]))

    random = None if seed is None else np.random.default_rng(seed)

    def orders() -> Iterator[np.ndarray]:  # with a global seed, `tf.random.shuffle` would repeat its order in each pass
        yield random.permutation(rows) if random else np.arange(rows)

    dataset = tf.data.Dataset.from_generator(orders, output_signature=tf.TensorSpec([rows], tf.int64))
    options = tf.data.Options()
    options.autotune.enabled = False  # the end of an iterator can wait seconds for its thread
    count = tf.data.experimental.assert_cardinality(math.ceil(rows / batch_size))
    return dataset.flat_map(batches).apply(count).prefetch(4).with_options(options)


def rechub(tables: Tables, kind: str, seed: int, batch_size: int = 1024) -> Model:
    """Return a model of torch-rechub with its `MTLTrainer`."""
    import torch
    from torch_rechub.trainers import MTLTrainer

    torch.set_num_threads(1)  # as fast as two threads for such small layers, and not slowed down by other processes
    torch.manual_seed(seed)
    types = ["classification"] * len(tables.tasks)
    network = _rechub_network(tables, kind, types)
    trainer = MTLTrainer(
        network, types, optimizer_params={"lr": LEARNING_RATE, "weight_decay": 1e-5}
    )  # the defaults of torch-rechub
    parts = {name: [torch.from_numpy(array) for array in tables.part(name)] for name in ("train", "valid", "test")}

    def batches(part: str, size: int, order: torch.Tensor) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        categorical, numeric, labels = parts[part]
        for indices in order.split(size):
            columns = categorical[indices].T.contiguous().long().unbind()
            yield dict(zip(tables.sizes, columns, strict=True)) | {"numeric": numeric[indices]}, labels[indices]

    def train() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.train_one_epoch(batches("train", batch_size, torch.randperm(len(parts["train"][0]))))
        return time.perf_counter() - wall, time.process_time() - cpu

    @torch.no_grad()
    def predict(part: str) -> np.ndarray:
        network.eval()
        order = torch.arange(len(parts[part][0]))
        return np.concatenate([network(inputs).numpy() for inputs, _ in batches(part, PREDICTION_BATCH, order)])

    params = sum(weight.numel() for weight in network.parameters())
    return Model(params, train, predict, lambda: copy.deepcopy(network.state_dict()), network.load_state_dict)


def _rechub_network(tables: Tables, kind: str, types: list[str]) -> Any:
    from torch_rechub.basic import features
    from torch_rechub.models import multi_task

    columns = [features.SparseFeature(name, size, EMBEDDING) for name, size in tables.sizes.items()]
    columns.append(features.DenseFeature("numeric", tables.width))
    expert, towers = {"dims": [EXPERT]}, [{"dims": [TOWER]} for _ in types]
    if kind == "shared_bottom":
        return multi_task.SharedBottom(columns, types, {"dims": [BOTTOM]}, towers)
    if kind == "mmoe":
        return multi_task.MMOE(columns, types, MMOE_EXPERTS, expert, towers)
    return multi_task.PLE(columns, types, LEVELS, TASK_EXPERTS, SHARED_EXPERTS, expert, towers)


def quality(model: Model, tables: Tables, epochs: int = 15, patience: int = 2) -> dict[str, Any]:
    """Train until the mean validation AUC stops rising, and write the test predictions of the best epoch."""
    labels = tables.part("valid")[2]
    best, best_epoch, valid, weights = -math.inf, 0, [], None
    for epoch in range(1, epochs + 1):
        model.train()
        aucs = [float(roc_auc_score(*pair)) for pair in zip(labels.T, model.predict("valid").T, strict=True)]
        if np.mean(aucs) > best:
            best, best_epoch, valid, weights = np.mean(aucs), epoch, aucs, model.weights()
        if epoch - best_epoch >= patience:
            break
    model.restore(weights)
    with tempfile.NamedTemporaryFile(suffix=".npy", delete=False) as file:
        np.save(file, model.predict("test"))
    return {"epochs": epoch, "best_epoch": best_epoch, "valid": valid, "predictions_file": file.name}


def answered(commands: Iterator[dict[str, Any]], peer: Callable[..., Model], tables: Tables) -> Iterator[Any]:
    """Yield the answer to each command."""
    prepared: Model | None = None
    for command in commands:
        do = command.pop("do")
        if do == "epoch":
            assert prepared, "prepare first"
            seconds, cpu = prepared.train()
            yield {"seconds": seconds, "cpu": cpu, "rows": len(tables.part("train")[2])}
        else:
            chosen = {name: command.pop(name) for name in ("batch_size", "steps_per_execution") if name in command}
            model = peer(tables, command.pop("model"), command.pop("seed", 0), **chosen)
            if do == "quality":
                yield {"params": model.params, **quality(model, tables, **command)}
            else:
                model.train()
                prepared = model
                yield {"params": model.params}


def main() -> None:
    """Answer commands until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, choices=["deepctr", "rechub"])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    peer = {"deepctr": deepctr, "rechub": rechub}[arguments.peer]
    tables = Tables(arguments.data)
    pipe.serve(lambda commands: answered(commands, peer, tables))


if __name__ == "__main__":
    main()
