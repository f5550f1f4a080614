"""The time of a training step, and of building and tracing the model, by tasks and by experts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from scaling_axes.curves import Axis, Measure, Watch, decades, long_tail
from tfmtl import data, layers, models, tasks, training

BATCH_SIZE = 1024
STEPS = 5
IDS = 10_000
Trunk = Callable[[], layers.MultiTaskLayer]


def tasks_axis(quick: bool) -> Axis:
    """Return the axis of binary tasks, over a shared network and over a mixture of 4 experts."""
    trunks: dict[str, Trunk] = {"SharedBottom": layers.SharedBottom, "MMoE": layers.MMoE}
    makers = {name: functools.partial(_by_tasks, name, trunk) for name, trunk in trunks.items()}
    return Axis("binary tasks", _units(makers), makers, dict.fromkeys(makers, decades(0, 3, quick)), rounds=3)


def experts_axis(quick: bool) -> Axis:
    """Return the axis of experts: a mixture of experts of 16 units with two tasks."""
    makers = {"MMoE": _by_experts}
    return Axis("experts of MMoE, 2 tasks", _units(makers), makers, {"MMoE": decades(0, 3, quick)})


def _units(families: Sequence[str] | dict[str, Callable[[int], Measure]]) -> dict[str, str]:
    steps, builds = ({f"{what}, {family}, CPU": unit for family in families} for what, unit in _LINES.items())
    return {**steps, **builds}


_LINES = {"step": "ms", "build and trace": "seconds"}


def _by_tasks(family: str, trunk: Trunk, count: int) -> Measure:
    return _measure(family, trunk, [f"task_{i}" for i in range(count)])


def _by_experts(count: int) -> Measure:
    return _measure("MMoE", functools.partial(layers.MMoE, num_experts=count, units=(16,)), ["click", "buy"])


def _measure(family: str, trunk: Trunk, names: Sequence[str]) -> Measure:
    """Build a model, run its first step, and return a function that times further steps."""
    rng = np.random.default_rng(0)
    ids = {name: long_tail(rng, IDS, BATCH_SIZE) for name in ("user", "item")}
    table = pd.DataFrame({**ids, **{name: rng.integers(0, 2, BATCH_SIZE).astype(np.float32) for name in names}})
    schema = data.Schema(
        query=[data.Categorical("user", dtype="int64")],
        candidate=[data.Categorical("item", dtype="int64")],
        labels=[data.Label(name) for name in names],
    )
    watch = Watch()
    preprocessor = data.Preprocessor.fit(schema, table)
    heads = [tasks.BinaryClassification(name) for name in names]
    network = models.build_network(preprocessor, heads, trunk())
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=None)
    model.compile(training.LazyAdam(1e-3))
    model.optimizer.build(model.trainable_variables)
    batch = data.to_batch(table, preprocessor)
    model.train_step(batch)
    built = watch.processor

    def measure() -> dict[str, float]:
        watch = Watch()
        for _ in range(STEPS):
            model.train_step(batch)
        values = 1000 * watch.processor / STEPS, built
        return {f"{what}, {family}, CPU": value for what, value in zip(_LINES, values, strict=True)}

    return measure
