"""Measured curves, which all axes return, and random ids with a long tail."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

Measure: TypeAlias = Callable[[], Mapping[str, float]]
"""A function that measures one size once and returns a value per curve."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One measured curve of an axis.

    Attributes:
        name: the measured quantity.
        unit: unit of the values.
        sizes: measured sizes in ascending order [s].
        values: values by round and size [rounds, s].
    """

    name: str
    unit: str
    sizes: Sequence[int]
    values: np.ndarray

    @property
    def medians(self) -> np.ndarray:
        """The medians over the rounds [s]."""
        return np.median(self.values, axis=0)

    def exponent(self, decades: float = np.inf) -> float:
        """Return the slope of log(median) over log(size), fitted to the last decades."""
        chosen = np.asarray(self.sizes) >= self.sizes[-1] / 10**decades * 0.99
        if chosen.sum() < 2:
            return float("nan")
        slope, _ = np.polyfit(np.log(np.asarray(self.sizes)[chosen]), np.log(self.medians[chosen]), 1)
        return float(slope)


@dataclasses.dataclass(frozen=True)
class Axis:
    """A growing size, and the quantities measured along it.

    Attributes:
        size: name and unit of the size.
        units: unit of each curve; curves of one unit are drawn in one picture.
        makers: by family of curves, a function that prepares the measurement of a size.
        sizes: sizes by family, in ascending order.
        rounds: number of measurements of every size, in turn.
    """

    size: str
    units: Mapping[str, str]
    makers: Mapping[str, Callable[[int], Measure]]
    sizes: Mapping[str, Sequence[int]]
    rounds: int = 5

    def measure(self, rounds: int | None = None) -> list[Curve]:
        """Prepare all sizes of a family, measure them in turn, and return the curves of all families."""
        found: dict[str, dict[int, list[float]]] = {}
        for family, make in self.makers.items():
            measures = {size: make(size) for size in self.sizes[family]}
            for _, (size, measure) in itertools.product(range(rounds or self.rounds), measures.items()):
                gc.collect()
                for line, value in measure().items():
                    found.setdefault(line, {}).setdefault(size, []).append(value)
            del measures, measure  # two families of models with a thousand tasks would not fit into memory
        return [
            Curve(line, unit, list(found[line]), np.array(list(found[line].values())).T)
            for line, unit in self.units.items()
        ]


class Watch:
    """CPU and wall seconds since its creation; other load on the machine affects the latter."""

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    @property
    def processor(self) -> float:
        """CPU seconds of this process."""
        return time.process_time() - self._start[0]

    @property
    def clock(self) -> float:
        """Wall seconds."""
        return time.perf_counter() - self._start[1]


def long_tail(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Return ids [rows] below `count`, drawn in inverse proportion to their number: Zipf's law of exponent 1."""
    return np.int64(count ** rng.random(rows)) - 1


def decades(first: int, last: int, quick: bool) -> list[int]:
    """Return the powers of 10 from 10^first to 10^last, without the last one if `quick`."""
    return [10**power for power in range(first, last + (not quick))]


def interactions(users: int, items: int, rows: int) -> pd.DataFrame:
    """Return a table of `rows` interactions with a rating; the first rows contain every user and item."""
    rng = np.random.default_rng(0)
    user, item = long_tail(rng, users, rows), long_tail(rng, items, rows)
    user[: min(users, rows)], item[: min(items, rows)] = np.arange(min(users, rows)), np.arange(min(items, rows))
    return pd.DataFrame({"user": user, "item": item, "rating": rng.integers(1, 6, rows).astype(np.float32)})
