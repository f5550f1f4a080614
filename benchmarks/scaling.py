"""How cost grows with rows, vocabulary, tasks, experts and candidates, each over three decades.

    python benchmarks/scaling.py [--only rows tasks] [--rounds 5] [--picture docs/scaling.png]

Data are made up, since only cost is measured: ids are log-uniform, as in a long tail. Sizes of a curve take turns; a
table shows medians of the processor's time with their range, and the exponent of a power law fitted to the largest two
decades. Needs 8 GB.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

from optimiser_speed import Entrant

# isort: split
import numpy as np
import pandas as pd
import tensorflow as tf
import tf_keras as keras
from paired import spread

import tfmtl
from tfmtl import data, evaluation, layers, models, tasks

BATCH_SIZE = 1024
Run = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Seconds by size.

    Args:
        name: what is measured.
        make: size to a function that measures once and returns seconds.
        sizes: three decades.
    """

    name: str
    make: Callable[[int], Run]
    sizes: Sequence[int]


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of the processor that a call takes, which other work on the machine changes little."""
    start = time.process_time()
    call()
    return time.process_time() - start


def rows_axis() -> list[Curve]:
    """An epoch of joint retrieval and rating: 10,000 users, 2,000 items."""
    return [Curve("an epoch", _epoch, (10_000, 100_000, 1_000_000, 10_000_000))]


def _epoch(rows: int) -> Run:
    rng = np.random.default_rng(0)
    schema = data.Schema(
        query=[data.Categorical("user", dtype="int64")], candidate=[data.Categorical("item", dtype="int64")],
        labels=[data.Label("rating")],
    )  # fmt: skip
    fitted = pd.DataFrame({"user": np.arange(10_000), "item": np.arange(10_000) % 2000, "rating": 1.0})
    fitted["rating"] = np.arange(10_000) % 5.0
    statistics = data.fit_statistics(schema, fitted)
    heads = [tasks.Retrieval("watched"), tasks.Regression.from_statistics("rating", statistics.labels["rating"])]
    preprocessor = data.Preprocessor(schema, statistics)
    network = models.build_network(schema, statistics, heads)
    corpus = models.Candidates.from_frame(fitted, preprocessor)
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=corpus)
    model.compile(tfmtl.LazyAdam(1e-3))
    ids = {name: np.int32(2 + size ** rng.random(rows)) for name, size in (("user", 9_000), ("item", 1_900))}
    table = data.Batch(
        {name: tf.constant(values) for name, values in ids.items()},
        {"rating": tf.constant(rng.normal(size=rows), tf.float32)}, {"rating": tf.ones(rows)},
    )  # fmt: skip
    fit = functools.partial(model.fit, table, batch_size=BATCH_SIZE, verbose=0)
    fit()  # traces
    return functools.partial(seconds_of, fit)


def vocabulary_axis() -> list[Curve]:
    """A step whose largest table has so many rows of 32 numbers."""

    def lazy(users: int) -> Run:
        entrant = Entrant(users, tfmtl.LazyAdam(1e-3), BATCH_SIZE, count=16, tail=True)
        return lambda: entrant.time()[0]

    def whole(users: int) -> Run:
        entrant = Entrant(users, keras.optimizers.Adam(1e-3), BATCH_SIZE, count=2, tail=True)
        return lambda: entrant.time()[0]

    return [
        Curve("a step, LazyAdam", lazy, (10_000, 100_000, 1_000_000, 10_000_000)),
        Curve("a step, Keras' Adam", whole, (10_000, 100_000, 1_000_000)),
    ]


def tasks_axis() -> list[Curve]:
    """Building a model of so many binary tasks and tracing its step, and a step; trunks of 64 units."""
    trunks = {
        "SharedBottom": lambda names: layers.SharedBottom(names, units=(64,)),
        "MMoE of 4 experts": lambda names: layers.MMoE(names, num_experts=4, units=(16,)),
    }
    sizes = (1, 10, 100, 1000)
    found = []
    for name, trunk in trunks.items():
        found.append(Curve(f"build and first step, {name}", functools.partial(_built, trunk), sizes))
        found.append(Curve(f"a step, {name}", functools.partial(_step, trunk), sizes))
    return found


def experts_axis() -> list[Curve]:
    """A step of two tasks over an `MMoE` of so many experts of 16 units."""

    def of(experts: int) -> Run:
        return _step(lambda names: layers.MMoE(names, num_experts=experts, units=(16,)), 2)

    return [Curve("a step", of, (1, 10, 100, 1000))]


def _model(trunk: Callable[[list[str]], tfmtl.MultiTaskLayer], count: int) -> tuple[models.MultiTaskModel, data.Batch]:
    rng, names = np.random.default_rng(0), [f"task_{i}" for i in range(count)]
    schema = data.Schema(
        query=[data.Categorical("user"), data.Vector("inputs", size=32)], labels=[data.Label(name) for name in names]
    )
    inputs = rng.normal(size=(BATCH_SIZE, 32)).astype("float32")
    labels = pd.DataFrame((rng.random((BATCH_SIZE, count)) < 0.3).astype("float32"), columns=names)
    table = labels.assign(user="somebody", inputs=list(inputs))
    preprocessor = data.Preprocessor(schema, data.fit_statistics(schema, table))
    heads = [tasks.BinaryClassification(name) for name in names]
    network = models.build_network(schema, preprocessor.statistics, heads, trunk(names))
    model = models.MultiTaskModel(network, heads, preprocessor)
    model.compile(tfmtl.LazyAdam(1e-3), steps_per_execution=1)
    model.optimizer.build(model.trainable_variables)
    return model, data.to_batch(table, preprocessor)


def _built(trunk: Callable[[list[str]], tfmtl.MultiTaskLayer], count: int) -> Run:
    def build() -> None:
        model, batch = _model(trunk, count)
        tf.function(model.make_step)(batch)

    return functools.partial(seconds_of, build)


def _step(trunk: Callable[[list[str]], tfmtl.MultiTaskLayer], count: int) -> Run:
    model, batch = _model(trunk, count)
    step = tf.function(model.make_step)
    step(batch)
    return lambda: seconds_of(lambda: [step(batch) for _ in range(10)]) / 10


def candidates_axis() -> list[Curve]:
    """Ranking 1,000 queries of 32 numbers among so many candidates, at most 64 MB at a time."""

    def of(count: int) -> Run:
        rng = np.random.default_rng(0)
        queries, corpus = (rng.standard_normal((rows, 32), np.float32) for rows in (1000, count))
        positives = rng.integers(0, count, 1000)
        rank = functools.partial(
            evaluation.rank_positives, queries, corpus, np.arange(1000), positives, block_bytes=64 << 20
        )
        rank()
        return functools.partial(seconds_of, rank)

    return [Curve("1,000 ranks", of, (1000, 10_000, 100_000, 1_000_000))]


AXES: Mapping[str, Callable[[], list[Curve]]] = {
    "rows": rows_axis, "vocabulary": vocabulary_axis, "tasks": tasks_axis, "experts": experts_axis,
    "candidates": candidates_axis,
}  # fmt: skip


def measure(curve: Curve, rounds: int) -> np.ndarray:
    """Return seconds [rounds, sizes], the sizes in turns; a run of more than 20 seconds is made once."""
    runs = [curve.make(size) for size in curve.sizes]
    found = np.array([[run() for run in runs]])
    for _ in range(rounds - 1):
        again = [run() if last < 20 else np.nan for run, last in zip(runs, found[0], strict=True)]
        found = np.vstack([found, again])
    return found


def exponent(sizes: Sequence[int], seconds: np.ndarray) -> float:
    """Return b of seconds = a size^b over the last three sizes."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0])


def show(axis: str, curve: Curve, found: np.ndarray) -> np.ndarray:
    """Print a row a size; return the medians."""
    medians = np.nanmedian(found, axis=0)
    print(f"\n**{curve.name}, by {axis}**: grows with the power {exponent(curve.sizes, medians):.2f}\n")
    print(f"| {axis} | CPU milliseconds (range) |\n|---|---|")
    for size, seconds in zip(curve.sizes, found.T, strict=True):
        print(f"| {size:,} | {spread(1000 * seconds[~np.isnan(seconds)], ',.1f')} |", flush=True)
    return medians


def draw(lines: Mapping[str, Mapping[str, tuple[Sequence[int], np.ndarray]]], path: pathlib.Path) -> None:
    """Draw a panel an axis, both scales logarithmic, beside a dotted line of linear growth."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(lines), figsize=(3.2 * len(lines), 3), squeeze=False, layout="constrained")
    for panel, (axis, curves) in zip(panels[0], lines.items(), strict=True):
        for name, (sizes, seconds) in curves.items():
            panel.loglog(sizes, seconds, marker="o", markersize=3, label=name)
        sizes = np.array(next(iter(curves.values()))[0], float)
        start = min(seconds[0] for _, seconds in curves.values())
        panel.loglog(sizes, start * sizes / sizes[0], ":", color="grey", label="linear")
        panel.set_ylim(top=3 * max(seconds.max() for _, seconds in curves.values()))
        panel.set(title=axis, xlabel=f"number of {axis}".replace("of vocabulary", "of rows of a table"))
        panel.legend(fontsize=6, frameon=False)
    panels[0][0].set_ylabel("CPU seconds")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Parse the arguments, print tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decades", type=int, default=3, help="fewer leave the largest sizes out")
    parser.add_argument("--picture", type=pathlib.Path, help="where to draw")
    arguments = parser.parse_args()
    lines: dict[str, dict[str, tuple[Sequence[int], np.ndarray]]] = {}
    for axis in arguments.only:
        lines[axis] = {}
        for curve in AXES[axis]():
            curve = dataclasses.replace(curve, sizes=curve.sizes[: arguments.decades + 1])
            lines[axis][curve.name] = curve.sizes, show(axis, curve, measure(curve, arguments.rounds))
            keras.backend.clear_session()
            gc.collect()
    if arguments.picture:
        draw(lines, arguments.picture)


if __name__ == "__main__":
    main()
