"""Adversarial training on census income: AUC with and without an attack, the time of a step, few labels, and domains.

    python benchmarks/robustness.py --census FOLDER [--seeds 3] [--rows 40000] [--epochs 4] [--strength 0.1]
        [--only domains]

An MMoE trains `income` and `never_married` on rows of the official training split; AUC is that of rows of the official
test split. The attack moves the encodings of each row, with the labels in hand and at the strength of the training,
and attacks one task at a time. All trainings make as many updates of the weights. The steps of all models take turns,
and their CPU times are divided by that of the plain model in the same round. With few labels, the label of `income` is
kept in a share of the training rows. The domains are the private sector, which has labels, and the government, the
rows of which have none in training; a discriminator of the sector makes both alike.
Differences are paired by seed.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

# isort: split
import census
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import interval, spread

from tfmtl import data, evaluation, keras, layers, models, tasks

QUESTIONS = ("income", "never_married")
BATCH_SIZE, TEST_ROWS = 1024, 20_000
SHARES = (0.01, 0.1, 1.0)
ATTACKS = {"clean": (0.0, 1), "FGSM": (1.0, 1), "PGD": (1.0, 5)}  # shares of the strength, and steps


def methods(strength: float) -> dict[str, layers.AdversarialTraining | None]:
    """Return the ways to train, by name."""
    return {
        "plain": None,
        "FGSM": layers.Adversarial(strength),
        "PGD": layers.Adversarial(strength, steps=3),
        "free": layers.FreeAdversarial(strength, replays=4),
        "VAT": layers.VirtualAdversarial(strength),
    }


class Problem:
    """The tables of the benchmark, and models that are traced once for all seeds.

    Args:
        folder: the data of census income.
        rows: number of training rows.
        epochs: epochs of each training.
        strength: radius of the perturbations, in training and in attacks.
    """

    def __init__(self, folder: pathlib.Path, rows: int, epochs: int, strength: float) -> None:
        train, test = census.load(folder)
        self.train = train.sample(rows, random_state=0).reset_index(drop=True)
        self.test = test.sample(TEST_ROWS, random_state=0).reset_index(drop=True)
        self.preprocessor = data.Preprocessor.fit(census.schema(train, QUESTIONS), self.train)
        self.epochs, self.strength, self.methods = epochs, strength, methods(strength)
        self._traced: dict[str, models.MultiTaskModel] = {}

    def model(self, method: str, seed: int) -> models.MultiTaskModel:
        """Return a compiled model."""
        heads = [tasks.BinaryClassification(name, units=(8,)) for name in QUESTIONS]
        network = models.build_network(
            self.preprocessor, heads, layers.MMoE(num_experts=8, units=[16], seed=seed), embedding_dim=4,
            regularization=models.Regularization(unknown_rate=0.0, adversarial=self.methods[method]), seed=seed,
        )  # fmt: skip
        model = models.MultiTaskModel(network, heads, self.preprocessor, seed=seed)
        model.compile(keras.optimizers.Adam(0.003))
        return model

    def trained(self, method: str, seed: int, rows: pd.DataFrame) -> models.MultiTaskModel:
        """Return a trained model, valid until the next call."""
        model = self.model(method, seed)
        first = self._traced.setdefault(method, model)
        if first is not model:  # train the first model again: tracing takes as long as training
            first.network.set_weights(model.network.get_weights())
            first.adopt_state(model).seed = seed
            for variable in first.optimizer.variables:
                if "learning_rate" not in variable.name:
                    variable.assign(tf.zeros_like(variable))
        first.fit(rows, batch_size=BATCH_SIZE, epochs=self.epochs // self.updates(method), verbose=0)
        return first

    def updates(self, method: str) -> int:
        """Return the number of updates of the weights for each batch."""
        return int(getattr(self.methods[method], "replays", 1))

    def few(self, share: float, seed: int) -> pd.DataFrame:
        """Return the training rows with the label of `income` in a share of them."""
        kept = np.random.default_rng(seed).random(len(self.train)) < share
        return self.train.assign(income=self.train["income"].where(kept))


def attacks(problem: Problem, seeds: int) -> None:
    """Print the AUC of each task and method under each attack, and the share of the lost AUC that is still lost."""
    print(f"\nTest AUC at strength {problem.strength}, and the loss of AUC under attack divided by that of plain\n")
    columns = [f"{task}, {name}" for task in QUESTIONS for name in ATTACKS]
    print(f"| training | {' | '.join(columns)} | {' | '.join(QUESTIONS)}: clean against plain |")
    print("|---" * (len(columns) + 3) + "|")
    plain: Any = None
    for method in problem.methods:
        trained = (problem.trained(method, seed, problem.train) for seed in range(seeds))
        found = np.array([_aucs(problem, model) for model in trained])  # [seeds, tasks, attacks]
        plain = found if plain is None else plain
        lost, before = ((aucs[:, :, :1] - aucs).mean(axis=0) for aucs in (found, plain))
        cells = [
            interval(found[:, i, j]) + (f" (x {lost[i, j] / before[i, j]:.2f})" if j else "")
            for i in range(len(QUESTIONS))
            for j in range(len(ATTACKS))
        ]
        against = [interval(found[:, i, 0] - plain[:, i, 0], "+.4f") for i in range(len(QUESTIONS))]
        print(f"| {method} | {' | '.join([*cells, *against])} |", flush=True)


def _aucs(problem: Problem, model: models.MultiTaskModel) -> list[list[float]]:
    reports = [
        evaluation.attack(model, problem.test, strength=share * problem.strength, steps=steps)
        for share, steps in ATTACKS.values()
    ]
    return [[float(report[task, "auc"]) for report in reports] for task in QUESTIONS]


def few_labels(problem: Problem, seeds: int) -> None:
    """Print the AUC of `income` by the share of its labels, with the same rows and steps for all shares."""
    print("\nTest AUC of income on clean rows, by the share of its training labels\n")
    shares = [f"{share:.0%}" for share in SHARES]
    print(f"| training | {' | '.join([*shares, *(f'{share}, against plain' for share in shares)])} |")
    print("|---" * (1 + 2 * len(SHARES)) + "|")
    plain: Any = None
    for method in ("plain", "FGSM", "VAT"):
        found = np.array([[_clean(problem, method, share, seed) for seed in range(seeds)] for share in SHARES])
        plain = found if plain is None else plain
        cells = [*map(interval, found), *(interval(values, "+.4f") for values in found - plain)]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


def _clean(problem: Problem, method: str, share: float, seed: int) -> float:
    model = problem.trained(method, seed, problem.few(share, seed))
    return float(evaluation.evaluate(model, problem.test, tasks=["income"])["income", "auc"])


def step_times(problem: Problem, rounds: int) -> None:
    """Print the CPU time of steps in turns, divided by that of the plain model in the same round."""
    whole = data.to_batch(problem.train.iloc[: 4 * BATCH_SIZE], problem.preprocessor)
    starts = range(0, 4 * BATCH_SIZE, BATCH_SIZE)
    batches = [tf.nest.map_structure(lambda column, at=i: column[at : at + BATCH_SIZE], whole) for i in starts]
    steps = {name: _traced(problem.model(name, 0)) for name in problem.methods}
    seconds = np.array([[_seconds(step, batches) for step in steps.values()] for _ in range(rounds + 2)])[2:]
    seconds /= [problem.updates(name) for name in steps]
    print(f"\nCPU time of an update with {BATCH_SIZE} rows, {rounds} rounds\n")
    print("| training | milliseconds | ratio, with the middle half of the rounds |\n|---|---|---|")
    for i, name in enumerate(steps):
        ratio = spread(seconds[:, i] / seconds[:, 0], half=True)
        print(f"| {name} | {1e3 * np.median(seconds[:, i]):.1f} | {ratio} |", flush=True)


DOMAIN_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
_GOVERNMENT = ("Federal government", "State government", "Local government")


def sectors(table: pd.DataFrame) -> pd.DataFrame:
    """Return the employees of the private sector and of the government, with the column `sector` for their class."""
    government, private = table["class_worker"].isin(_GOVERNMENT), table["class_worker"] == "Private"
    named = table.assign(sector=np.where(government, "government", "private")).drop(columns="class_worker")
    return named[government | private].reset_index(drop=True)


class Sectors(Problem):
    """The tables of both sectors, with methods by the weight of a discriminator of the sector.

    Args:
        folder, rows, epochs, strength: as in `Problem`.
    """

    def __init__(self, folder: pathlib.Path, rows: int, epochs: int, strength: float) -> None:
        super().__init__(folder, rows, epochs, strength)
        train, test = census.load(folder)
        self.train, self.test = (sectors(table.sample(frac=1.0, random_state=0)) for table in (train, test))
        self.train = self.train.iloc[:rows]
        self.preprocessor = data.Preprocessor.fit(census.schema(self.train, QUESTIONS), self.train)
        self.methods = dict.fromkeys(map(str, DOMAIN_WEIGHTS))

    def model(self, method: str, seed: int) -> models.MultiTaskModel:
        """Return a compiled model that does not read the sector."""
        heads = [tasks.BinaryClassification(name, units=(8,)) for name in QUESTIONS]
        noise = models.Regularization(
            unknown_rate=0.0, domain=layers.DomainAdversary("sector", float(method), units=(16,))
        )
        network = models.build_network(
            self.preprocessor, heads, layers.MMoE(num_experts=8, units=[16], seed=seed),
            embedding_dim={"sector": 0, "": 4}, regularization=noise, seed=seed,
        )  # fmt: skip
        model = models.MultiTaskModel(network, heads, self.preprocessor, seed=seed)
        model.compile(keras.optimizers.Adam(0.003))
        return model

    def aucs(self, method: str, seed: int, rows: pd.DataFrame) -> list[float]:
        """Return the test AUC of the tasks in the government, then in the private sector."""
        model = self.trained(method, seed, rows)
        parts = [self.test[self.test["sector"] == name] for name in ("government", "private")]
        reports = [evaluation.evaluate(model, part, tasks=list(QUESTIONS)) for part in parts]
        return [float(report[task, "auc"]) for report in reports for task in QUESTIONS]


def domains(problem: Sectors, seeds: int) -> None:
    """Print the AUC in the sector without labels and in the other one, by the weight of the discriminator."""
    print("\nTest AUC without labels of the government in training, by the weight of the discriminator\n")
    columns = [f"{sector}, {task}" for sector in ("government", "private") for task in QUESTIONS]
    print(f"| weight | {' | '.join(columns)} | {' | '.join(f'{name}: against 0' for name in columns[:2])} |")
    print("|---" * (len(columns) + 3) + "|")
    hidden = problem.train["sector"] == "government"
    partly = problem.train.assign(**{name: problem.train[name].mask(hidden) for name in QUESTIONS})
    plain: Any = None
    for weight, rows in [*((str(weight), partly) for weight in DOMAIN_WEIGHTS), ("0.0", problem.train)]:
        found = np.array([problem.aucs(weight, seed, rows) for seed in range(seeds)])
        plain = found if plain is None else plain
        cells = [interval(values) for values in found.T]
        cells += [interval(found[:, i] - plain[:, i], "+.4f") for i in range(2)]
        print(f"| {weight if rows is partly else '0, all labels'} | {' | '.join(cells)} |", flush=True)


def _traced(model: models.MultiTaskModel) -> Any:
    model.build_optimizer()
    return tf.function(model.make_step)


def _seconds(step: Any, batches: Sequence[data.Batch]) -> float:
    start = time.process_time()
    for batch in batches:
        step(batch)
    return (time.process_time() - start) / len(batches)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--strength", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", choices=("attacks", "domains"))
    given = parser.parse_args()
    if given.only != "attacks":
        by_sector = Sectors(given.census, given.rows, given.epochs, given.strength)
        step_times(by_sector, given.rounds)
        domains(by_sector, given.seeds)
    if given.only == "domains":
        return
    problem = Problem(given.census, given.rows, given.epochs, given.strength)
    step_times(problem, given.rounds)
    attacks(problem, given.seeds)
    few_labels(problem, given.seeds)


if __name__ == "__main__":
    main()
