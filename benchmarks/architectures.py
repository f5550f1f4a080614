"""Every trunk on census income, beside DeepCTR and torch-rechub: test AUC by task, and training rates.

    python benchmarks/architectures.py --census FOLDER [--peers deepctr=PYTHON rechub=PYTHON] [--groups 1 2] [--seeds 5]
    python benchmarks/architectures.py --census FOLDER --recipe [--trunks PEPNet]  # by `recipes.fit`, with trees
    python benchmarks/architectures.py --census FOLDER --rate [--peers ...]  # training rate, alternating with the peers

Training is the official split, validation and test are halves of the official test split. Early stopping and the
choice of weights use the validation half only. A peer runs in a separate environment with the given Python:
`pip install deepctr==0.9.4 tensorflow tf-keras`, `pip install torch-rechub==0.9.0 torch`. Differences are paired: they
are between runs with the same seeds and test rows.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import census
import numpy as np
from paired import interval, spread
from peer import Peer
from sklearn.metrics import roc_auc_score

from tfmtl import data, keras, layers, models, recipes, tasks

Make = Callable[[Sequence[str], int], layers.MultiTaskLayer]
Predictions = Mapping[str, np.ndarray]

TRUNKS: dict[str, Make] = {
    "SharedBottom": lambda _, seed: layers.SharedBottom(units=[128], seed=seed),
    "OMoE": lambda _, seed: layers.OMoE(num_experts=8, units=[16], seed=seed),
    "MMoE": lambda _, seed: layers.MMoE(num_experts=8, units=[16], seed=seed),
    "CrossStitch": lambda _, seed: layers.CrossStitch(units=[64], seed=seed),
    "CGC": lambda _, seed: layers.CGC(num_shared_experts=4, num_task_experts=2, units=[16], seed=seed),
    "PLE": lambda _, seed: layers.PLE(num_shared_experts=4, num_task_experts=2, units=[16], seed=seed),
    "MTAN": lambda _, seed: layers.MTAN(units=[64, 32], attention_units=16, seed=seed),
    "DSelectK": lambda _, seed: layers.DSelectK(num_experts=8, units=[16], seed=seed),
    "AdaTT": lambda _, seed: layers.AdaTT(num_task_experts=4, units=[16], seed=seed),
    "STEM": lambda _, seed: layers.STEM(units=[16], num_shared_experts=4, num_task_experts=2, seed=seed),
    "HoME": lambda names, seed: layers.HoME(groups={"all": list(names)}, units=[16], seed=seed),
    "PEPNet": lambda _, seed: layers.PEPNet(
        domain=["class_worker"], personal=["det_occ_code", "det_ind_code"], units=[64], gate_units=16, seed=seed
    ),
    "LearningToBranch": lambda _, seed: layers.LearningToBranch(units=[64], num_nodes=2, seed=seed),
}
"""Trunks of about equal size; heads have one hidden layer of 8."""

EPOCHS, BATCH_SIZE = 15, 1024


class Census:
    """The encoded tables of a group of the census data."""

    def __init__(self, folder: pathlib.Path, group: int) -> None:
        train, validation, test, self.schema = census.load_group(folder, group)
        self.names = list(self.schema.tasks)
        self.preprocessor = data.Preprocessor.fit(self.schema, train)
        self.tables = {"train": train, "valid": validation, "test": test}
        self.parts = {part: data.to_batch(table, self.preprocessor) for part, table in self.tables.items()}

    def labels(self, part: str) -> Predictions:
        """Return the labels of a part by task."""
        return {name: np.asarray(self.parts[part].labels[name]) for name in self.names}

    def network(self, make: Make, seed: int, embedding_dim: int) -> tuple[keras.Model, list[tasks.Task]]:
        """Return a network with a trunk, and its heads."""
        heads: list[tasks.Task] = [tasks.BinaryClassification(name, units=(8,)) for name in self.names]
        network = models.build_network(
            self.preprocessor, heads, make(self.names, seed), embedding_dim=embedding_dim,
            regularization=models.Regularization(unknown_rate=0.05), seed=seed,
        )  # fmt: skip
        return network, heads

    def model(self, make: Make, seed: int, *, embedding_dim: int = 4, constant: bool = False) -> models.MultiTaskModel:
        """Return a compiled model; its learning rate falls along a cosine over all epochs, or is the peers' 0.001."""
        network, heads = self.network(make, seed, embedding_dim)
        model = models.MultiTaskModel(network, heads, self.preprocessor, seed=seed)
        steps = -(-len(self.labels("train")[self.names[0]]) // BATCH_SIZE)
        cosine = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * steps, alpha=0.01)
        model.compile(tfmtl.LazyAdam(1e-3 if constant else cosine))
        return model

    def save(self, path: pathlib.Path) -> None:
        """Write the encoded tables as arrays, for programs without tfmtl."""
        categorical = [f.name for f in self.schema.query if isinstance(f, data.Categorical)]
        numeric = [f.name for f in self.schema.query if isinstance(f, data.Numeric)]
        arrays: dict[str, np.ndarray] = {}
        for part, batch in self.parts.items():
            arrays[f"{part}_categorical"] = np.stack([batch.features[name] for name in categorical], axis=1)
            arrays[f"{part}_numeric"] = np.stack([batch.features[name][:, 0] for name in numeric], axis=1)
            arrays[f"{part}_labels"] = np.stack([batch.labels[name] for name in self.names], axis=1)
        sizes = [self.preprocessor.statistics.size(name) for name in categorical]
        np.savez(path, sizes=np.array(sizes), tasks=np.array(self.names), **arrays)


def aucs(labels: Predictions, predictions: Predictions) -> dict[str, float]:
    """Return the area under the ROC curve by task."""
    return {name: float(roc_auc_score(labels[name], predictions[name])) for name in labels}


class BestEpoch(keras.callbacks.Callback):
    """Stops when the mean validation AUC has not risen for some epochs, and restores the weights of the best."""

    def __init__(self, problem: Census, patience: int = 3) -> None:
        super().__init__()
        self.problem, self.patience = problem, patience
        self.best, self.best_epoch, self.weights = 0.0, 0, []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Measure the validation AUC and keep the weights of the best epoch."""
        found = predictions_of(self.model, self.problem.parts["valid"])
        mean = statistics.mean(aucs(self.problem.labels("valid"), found).values())
        if mean > self.best:
            self.best, self.best_epoch, self.weights = mean, epoch + 1, self.model.get_weights()
        self.model.stop_training = epoch + 1 - self.best_epoch >= self.patience

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Restore the weights of the best epoch."""
        self.model.set_weights(self.weights)


def predictions_of(model: models.MultiTaskModel, part: data.Batch) -> Predictions:
    """Return the served values by task."""
    return {name: np.asarray(values) for name, values in model.predict_step(part).items()}


def trained(
    problem: Census, make: Make, seed: int, *, recipe: bool = False, **arguments: Any
) -> tuple[Predictions, int, int]:
    """Train once and return the test predictions, the best epoch and the number of parameters."""
    if recipe:
        return by_recipe(problem, make, seed, arguments["embedding_dim"])
    model, best = problem.model(make, seed, **arguments), BestEpoch(problem)
    model.fit(problem.parts["train"], batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=[best], verbose=0)
    return predictions_of(model, problem.parts["test"]), best.best_epoch, model.network.count_params()


def by_recipe(problem: Census, make: Make, seed: int, embedding_dim: int) -> tuple[Predictions, int, int]:
    """Train by `recipes.fit`, which joins boosted trees; the epoch is the last one, the size that of the network."""
    network, heads = problem.network(make, seed, embedding_dim)
    found = recipes.fit(
        problem.preprocessor, heads, problem.tables["train"], validation=problem.tables["valid"], network=network,
        seed=seed, verbose=0,
    )  # fmt: skip
    print(found, file=sys.stderr, flush=True)
    return predictions_of(found.model, problem.parts["test"]), len(found.history["loss"]), network.count_params()


def quality(
    problem: Census, trunks: Sequence[str], seeds: int, peers: Sequence[Peer], **arguments: Any
) -> Iterator[str]:
    """Yield the lines of a table: mean and interval of each task's AUC, and of the mean AUC's difference to MMoE."""
    labels = problem.labels("test")
    yield f"| model | parameters | {' | '.join(problem.names)} | mean against MMoE, paired | best epochs |"
    yield "|---" * (len(problem.names) + 4) + "|"
    reference: list[float] = []

    def row(name: str, size: int, found: list[dict[str, float]], epochs: list[int]) -> str:
        means = [statistics.mean(scores.values()) for scores in found]
        against = interval([a - b for a, b in zip(means, reference, strict=True)]) if reference else ""
        by_task = " | ".join(interval([scores[task] for scores in found]) for task in problem.names)
        return f"| {name} | {size:,} | {by_task} | {against} | {' '.join(map(str, epochs))} |"

    for name in sorted(trunks, key=lambda trunk: trunk != "MMoE"):
        runs = [trained(problem, TRUNKS[name], seed, **arguments) for seed in range(seeds)]
        found = [aucs(labels, predictions) for predictions, _, _ in runs]
        if name == "MMoE":
            reference = [statistics.mean(scores.values()) for scores in found]
        yield row(name, runs[0][2], found, [epoch for _, epoch, _ in runs])
    for peer in peers:
        for kind in ("shared_bottom", "mmoe", "ple"):
            answers = [peer.ask("quality", model=kind, seed=seed, epochs=EPOCHS, patience=2) for seed in range(seeds)]
            files = [pathlib.Path(answer["predictions_file"]) for answer in answers]
            arrays = [np.load(file) for file in files]
            for file in files:
                file.unlink()
            found = [aucs(labels, dict(zip(problem.names, array.T, strict=True))) for array in arrays]
            yield row(f"{peer.name} {kind}", answers[0]["params"], found, [answer["best_epoch"] for answer in answers])


class _EpochTimes(keras.callbacks.Callback):
    """Measures the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._begin)


def rates(problem: Census, peers: Sequence[Peer], rounds: int) -> Iterator[str]:
    """Yield examples per second of MMoEs of equal size, which train epochs in turn, and ratios to ours by round."""
    model, clock = problem.model(TRUNKS["MMoE"], 0), _EpochTimes()
    rows = len(problem.labels("train")[problem.names[0]])
    for peer in peers:
        options = {"steps_per_execution": 1} if peer.name == "deepctr" else {}
        peer.ask("prepare", model="mmoe", seed=0, batch_size=BATCH_SIZE, **options)
    model.fit(problem.parts["train"], batch_size=BATCH_SIZE, verbose=0)
    seconds: dict[str, list[float]] = {"tfmtl": clock.seconds, **{peer.name: [] for peer in peers}}
    for _ in range(rounds):
        model.fit(problem.parts["train"], batch_size=BATCH_SIZE, callbacks=[clock], verbose=0)
        for peer in peers:
            seconds[peer.name].append(peer.ask("epoch")["seconds"])
    for name, taken in seconds.items():
        ratios = spread(other / own for own, other in zip(seconds["tfmtl"], taken, strict=True))
        yield (f"{name:10s} {rows / statistics.median(taken):9,.0f} examples/s; ours is {ratios} times as fast")


def main() -> None:
    """Parse the arguments and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, required=True, help="folder with the census-income files")
    parser.add_argument("--groups", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--trunks", nargs="*", default=list(TRUNKS), choices=list(TRUNKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=[], help="name=PYTHON of deepctr and rechub")
    parser.add_argument("--embedding-dim", type=int, default=4, help="width of our embeddings; the peers have 4")
    parser.add_argument("--constant", action="store_true", help="train ours at the peers' constant learning rate")
    parser.add_argument("--recipe", action="store_true", help="train ours by `recipes.fit`, which joins boosted trees")
    parser.add_argument("--rate", action="store_true", help="measure only the training rate")
    arguments = parser.parse_args()
    for group in arguments.groups:
        problem = Census(arguments.census, group)
        named = [peer.split("=", 1) for peer in arguments.peers]
        peers = [Peer(name, python, "census_worker.py", problem.save, "--peer", name) for name, python in named]
        setting = {name: getattr(arguments, name) for name in ("embedding_dim", "constant", "recipe")}
        if arguments.rate:
            lines = rates(problem, peers, 9)
        else:
            lines = quality(problem, arguments.trunks, arguments.seeds, peers, **setting)
        print(f"\n## census income, group {group}: {', '.join(problem.names)}\n")
        for line in lines:
            print(line, flush=True)
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    main()
