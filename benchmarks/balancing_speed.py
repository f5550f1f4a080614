"""Step time of every balancer that reads gradients, against the plain sum of losses, interleaved in one run.

    python benchmarks/balancing_speed.py --census FOLDER                # MMoE on census income, 2, 4 and 8 tasks
    python benchmarks/balancing_speed.py --joint 100000                 # retrieval and rating, made-up interactions
    python benchmarks/balancing_speed.py --rows 10000 1000000           # the same by the size of the vocabulary
    python benchmarks/balancing_speed.py --learned FOLDER               # learned policies on census income, 8 tasks

Learned policies are measured with their callbacks by the CPU time of one thread, medians and ranges of rounds of 64
steps; also an episode in which TD3 learns, against `fit` with as many steps. The others are medians over rounds, with
the range of their middle half. The second plain sum shows the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import census
import numpy as np
import pandas as pd
import tensorflow as tf
from paired import spread

from tfmtl import allocation, balancing, data, keras, layers, models, tasks, training
from tfmtl.allocation.policies.td3 import TD3

BATCH_SIZE, BATCHES = 4096, 4
LEARNED_BATCH, HELD_OUT, ROUND_STEPS = 1024, 8192, 64
LIMITS = {("representation", 2): 1.25, ("representation", 8): 1.6, ("shared", 2): 2.2, ("shared", 8): 6.0}


def balancers(names: Sequence[str], at: str) -> dict[str, Callable[[], balancing.Balancer]]:
    """Return a factory for every balancer that reads gradients, at one location."""
    kinds = [
        balancing.MGDA, balancing.PCGrad, balancing.GradVac, balancing.CAGrad, balancing.IMTLG, balancing.NashMTL,
        balancing.FairGrad, balancing.AlignedMTL, balancing.UPGrad, balancing.DualProj, balancing.PELTR,
        balancing.GradNorm, balancing.GradCraft,
    ]  # fmt: skip
    made: dict[str, Callable[[], balancing.Balancer]] = {kind.__name__: lambda kind=kind: kind(at=at) for kind in kinds}
    made["CRMOGM(MGDA)"] = lambda: balancing.CRMOGM(balancing.MGDA(at=at))
    if at == "shared":
        whole = [balancing.GradDrop, balancing.MoCo, balancing.DBMTL, balancing.ExcessMTL]
        made |= {kind.__name__: kind for kind in whole}
        made["MetaBalance"] = lambda: balancing.MetaBalance(names[0])
    return made


@dataclasses.dataclass
class Race:
    """Steps of several models on the same batches, timed in turn.

    Attributes:
        batches: the batches of each round.
        rounds: number of turns of each model.
        clock: returns seconds.
    """

    batches: Sequence[data.Batch]
    rounds: int
    clock: Callable[[], float] = time.perf_counter
    steps: dict[str, Callable[[data.Batch], Any]] = dataclasses.field(default_factory=dict)

    def enter(self, name: str, model: models.MultiTaskModel, callback: keras.callbacks.Callback | None = None) -> None:
        """Add a model and trace its step, which a callback may follow."""
        model.compile(tfmtl.LazyAdam(1e-3))
        model.optimizer.build(model.trainable_variables)
        if callback is not None:
            callback.set_params({})
            callback.set_model(model)
            callback.on_train_begin()
        step = tf.function(model.make_step)

        def followed(batch: data.Batch) -> None:
            step(batch)
            if callback is not None:
                callback.on_train_batch_end(0)

        self.steps[name] = followed
        followed(self.batches[0])

    def run(self) -> dict[str, np.ndarray]:
        """Return the seconds per step [rounds] by name."""
        seconds: dict[str, list[float]] = {name: [] for name in self.steps}
        for _ in range(self.rounds):
            for name, step in self.steps.items():
                start = self.clock()
                for batch in self.batches:
                    step(batch)
                seconds[name].append((self.clock() - start) / len(self.batches))
        return {name: np.asarray(values) for name, values in seconds.items()}


def split(whole: data.Batch) -> list[data.Batch]:
    """Cut a table into batches."""
    cuts = range(0, BATCHES * BATCH_SIZE, BATCH_SIZE)
    return [tf.nest.map_structure(lambda c, at=at: c[at : at + BATCH_SIZE], whole) for at in cuts]


def show(title: str, seconds: dict[str, np.ndarray], limit: float | None, *, half: bool = True) -> None:
    """Print the ratios to the plain sum."""
    base = seconds["plain sum"]
    print(f"\n{title}: plain sum {1000 * np.median(base):.1f} ms per step" + (f", limit {limit}" if limit else ""))
    for name, values in seconds.items():
        missed = "  MISSED" if limit and np.median(values / base) > limit else ""
        print(f"  {name:20s} {spread(values / base, half=half)}{missed}", flush=True)


def race_census(folder: pathlib.Path, rounds: int, only: Sequence[str]) -> None:
    """Time all balancers on MMoE with 8 experts of 16 units for 2, 4 and 8 tasks, in groups that fit in memory."""
    table = census.load(folder)[0]
    for count in (2, 4, 8):
        names = list(census.QUESTIONS)[:count]
        preprocessor = data.Preprocessor.fit(census.schema(table, names), table)
        batches = split(data.to_batch(table.iloc[: BATCHES * BATCH_SIZE], preprocessor))

        def model(
            balancer: balancing.Balancer, names: list[str] = names, preprocessor: Any = preprocessor
        ) -> models.MultiTaskModel:
            trunk = layers.MMoE(num_experts=8, units=(16,))
            return census.model(preprocessor, names, trunk, balancer=balancer)

        for at in ("representation", "shared"):
            race = Race(batches, rounds)
            race.enter("plain sum", model(balancing.FixedWeights()))
            race.enter("plain sum again", model(balancing.FixedWeights()))
            for name, make in balancers(names, at).items():
                if not only or name in only:
                    race.enter(name, model(make()))
            show(f"census, {count} tasks, at {at!r}", race.run(), LIMITS.get((at, count)))


def race_learned(folder: pathlib.Path, rounds: int, only: Sequence[str]) -> None:
    """Time the learned policies on MMoE with 8 tasks, with their callbacks."""
    table, names = census.load(folder)[0].iloc[: ROUND_STEPS * LEARNED_BATCH + HELD_OUT], list(census.QUESTIONS)
    preprocessor = data.Preprocessor.fit(census.schema(table, names), table)
    train, held_out = (data.to_batch(part, preprocessor) for part in (table.iloc[:-HELD_OUT], table.iloc[-HELD_OUT:]))

    def model(balancer: balancing.Balancer, seed: int = 0) -> models.MultiTaskModel:
        trunk = layers.MMoE(num_experts=8, units=(16,), seed=seed)
        made = census.model(preprocessor, names, trunk, seed, balancer=balancer)
        made.compile(tfmtl.LazyAdam(1e-3))
        return made

    actor, options = allocation.WeightPolicy(), {"every_n_steps": ROUND_STEPS, "num_steps": 10**6}
    entrants: dict[str, tuple[balancing.Balancer, Any]] = {
        "plain sum again": (balancing.FixedWeights(), None),
        "Exp3S": (balancing.Exp3S(), None),
        "Exp3S, every step": (balancing.Exp3S(update_every=1), None),
        "ThompsonSampling": (balancing.ThompsonSampling(), training.HeldOutLosses(held_out)),
        "AutoLambda": (balancing.AutoLambda(), training.MetaGradients(held_out)),
        "AutoLambda, every 10": (balancing.AutoLambda(), training.MetaGradients(held_out, every_n_steps=10)),
        "MultiDDS": (balancing.MultiDDS(), training.MetaGradients(held_out)),
        "actor": (balancing.AssignedWeights(), allocation.LearnedWeights(actor, held_out, **options)),
    }  # fmt: skip
    cuts = range(0, ROUND_STEPS * LEARNED_BATCH, LEARNED_BATCH)
    batches = [tf.nest.map_structure(lambda c, at=at: c[at : at + LEARNED_BATCH], train) for at in cuts]
    race = Race(batches, rounds, time.process_time)
    race.enter("plain sum", model(balancing.FixedWeights()))
    for name, (balancer, callback) in entrants.items():
        if not only or name in only:
            race.enter(name, model(balancer), callback)
    show("census, 8 tasks, CPU of a step", race.run(), 1.25, half=False)
    if not only or "episode" in only:
        race_episodes(model, train, held_out, min(rounds, 3))


def race_episodes(make: Callable[..., models.MultiTaskModel], train: Any, held_out: Any, rounds: int) -> None:
    """Time episodes of 8 actions of 32 steps: with the plain sum, and with TD3 that learns, against `fit`."""
    environment = allocation.WeightEnvironment(
        lambda seed: make(balancing.AssignedWeights(), seed), train, held_out, steps_per_action=32, num_actions=8
    )
    plain, learner = make(balancing.FixedWeights()), TD3(allocation.WeightPolicy())

    def fit(steps: int = 256) -> None:
        plain.fit(train, batch_size=LEARNED_BATCH, steps_per_epoch=steps, verbose=0)

    def follow() -> None:
        state, _ = environment.reset()
        for _ in range(environment.num_actions):
            environment.step(np.zeros(len(state)))

    turns = {"plain sum": fit, "reset": environment.reset, "environment": follow,
             "TD3 learns": lambda: learner.run_episode(environment, 0)}  # fmt: skip
    fit(32)
    for episode in range(2):  # it learns after 16 transitions
        learner.run_episode(environment, episode)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            start = time.process_time()
            turn()
            seconds[name].append((time.process_time() - start) / 256)
    show("an episode of 256 steps", {name: np.array(values) for name, values in seconds.items()}, 1.25, half=False)


def interactions(rows: int, size: int, seed: int) -> pd.DataFrame:
    """Return random ratings of `size` users and items, some of which are more popular."""
    rng = np.random.default_rng(seed)
    popular = (size * rng.random((2, rows)) ** 3).astype(np.int64)
    return pd.DataFrame({"user": popular[0], "item": popular[1], "watched": 1.0, "rating": rng.normal(size=rows)})


@functools.cache
def prepared(size: int) -> tuple[data.Preprocessor, models.Candidates]:
    """Return the encoding of `size` users and items, and the corpus."""
    schema = data.Schema(
        query=[data.Categorical("user", dtype="int64")],
        candidate=[data.Categorical("item", dtype="int64")],
        labels=[data.Label("watched"), data.Label("rating")],
    )
    every = np.arange(size)
    table = pd.DataFrame({"user": every, "item": every, "watched": 1.0, "rating": every % 5.0})
    preprocessor = data.Preprocessor.fit(schema, table)
    return preprocessor, models.Candidates.from_frame(table, preprocessor)


def joint(size: int, balancer: balancing.Balancer) -> models.MultiTaskModel:
    """Return the joint model of retrieval and rating with `size` rows in both tables."""
    preprocessor, candidates = prepared(size)
    heads = [tasks.Retrieval("watched"), tasks.Regression.from_statistics("rating", preprocessor.statistics)]
    plain = models.Regularization(unknown_rate=0.0)
    network = models.build_network(preprocessor, heads, embedding_dim=32, regularization=plain)
    return models.MultiTaskModel(network, heads, preprocessor, balancer, candidates)


def race_joint(size: int, rounds: int, only: Sequence[str]) -> None:
    """Time all balancers on the joint model."""
    table = interactions(BATCHES * BATCH_SIZE, size, seed=0)
    for at in ("representation", "shared"):
        race = Race(split(data.to_batch(table, prepared(size)[0])), rounds)
        race.enter("plain sum", joint(size, balancing.FixedWeights()))
        race.enter("plain sum again", joint(size, balancing.FixedWeights()))
        for name, make in balancers(["watched", "rating"], at).items():
            if not only or name in only:
                race.enter(name, joint(size, make()))
        show(f"retrieval and rating, {size:,} rows per table, at {at!r}", race.run(), LIMITS[at, 2])


def race_rows(sizes: Sequence[int], rounds: int, only: Sequence[str]) -> None:
    """Time each balancer with tables of several sizes; the batches touch the same rows of each."""
    table = interactions(BATCHES * BATCH_SIZE, min(sizes), seed=0)
    names = ["watched", "rating"]
    makers = {("plain sum", ""): balancing.FixedWeights}
    makers |= {(n, at): make for at in ("representation", "shared") for n, make in balancers(names, at).items()}
    print(f"\nstep time against tables of {sizes[0]:,} rows, limit 1.2:")
    for (name, at), make in makers.items():
        if only and name not in only:
            continue
        race = Race(split(data.to_batch(table, prepared(sizes[0])[0])), rounds)
        for size in sizes:
            race.enter(str(size), joint(size, make()))
        seconds = race.run()
        first = seconds.pop(str(sizes[0]))
        cells = [f"{int(size):,} rows {spread(values / first, half=True)}" for size, values in seconds.items()]
        print(f"  {name:16s} {at:15s}", "; ".join(cells), flush=True)


def main() -> None:
    """Parse the arguments and run the benchmarks that they name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, help="folder with the census-income files")
    parser.add_argument("--learned", type=pathlib.Path, help="folder with the census-income files")
    parser.add_argument("--joint", type=int, help="rows of the tables of the joint model of retrieval and rating")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[], help="numbers of rows to compare, the first with all"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="names of balancers")
    arguments = parser.parse_args()
    if not (arguments.census or arguments.joint or arguments.rows or arguments.learned):
        arguments.joint, arguments.rows = 100_000, [10_000, 1_000_000]
    if arguments.census:
        race_census(arguments.census, arguments.rounds, arguments.only)
    if arguments.learned:
        race_learned(arguments.learned, arguments.rounds, arguments.only)
    if arguments.joint:
        race_joint(arguments.joint, arguments.rounds, arguments.only)
    if arguments.rows:
        race_rows(arguments.rows, arguments.rounds, arguments.only)


if __name__ == "__main__":
    main()
