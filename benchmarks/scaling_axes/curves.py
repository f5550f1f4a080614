"""What the axes have in common: measured curves, and ids with the frequencies of shops."""

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
"""Measures one size once: value by line."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of an axis.

    Attributes:
        name: what is measured.
        unit: of the values.
        sizes: where, ascending [s].
        values: by round and size [rounds, s].
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
    """A size that grows, and what is measured as it does.

    Attributes:
        size: what grows, with its unit.
        units: of each line that is measured; lines of one unit are drawn in one picture.
        makers: by family of lines, what prepares a size for measuring.
        sizes: by family, ascending.
        rounds: how often every size is measured, in turns.
    """

    size: str
    units: Mapping[str, str]
    makers: Mapping[str, Callable[[int], Measure]]
    sizes: Mapping[str, Sequence[int]]
    rounds: int = 5

    def measure(self, rounds: int | None = None) -> list[Curve]:
        """Prepare all sizes of a family, measure them in turns, and return the lines of all families."""
        found: dict[str, dict[int, list[float]]] = {}
        for family, make in self.makers.items():
            measures = {size: make(size) for size in self.sizes[family]}
            for _, (size, measure) in itertools.product(range(rounds or self.rounds), measures.items()):
                gc.collect()
                for line, value in measure().items():
                    found.setdefault(line, {}).setdefault(size, []).append(value)
            del measures, measure  # models of a thousand tasks: two families of them would not fit
        return [
            Curve(line, unit, list(found[line]), np.array(list(found[line].values())).T)
            for line, unit in self.units.items()
        ]


class Watch:
    """Seconds of the processor and of the clock since it was made; other work on the machine changes the latter."""

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    @property
    def processor(self) -> float:
        """Seconds that the processor worked for this process."""
        return time.process_time() - self._start[0]

    @property
    def clock(self) -> float:
        """Seconds that went by."""
        return time.perf_counter() - self._start[1]


def long_tail(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Return ids [rows] below `count`, drawn in inverse proportion to their number: Zipf's law of exponent 1."""
    return np.int64(count ** rng.random(rows)) - 1


def decades(first: int, last: int, quick: bool) -> list[int]:
    """Return the powers of 10 from 10^first to 10^last, without the last one if it is to be quick."""
    return [10**power for power in range(first, last + (not quick))]


def interactions(users: int, items: int, rows: int) -> pd.DataFrame:
    """Return a table of `rows` interactions with a rating; the first rows name every user or item."""
    rng = np.random.default_rng(0)
    user, item = long_tail(rng, users, rows), long_tail(rng, items, rows)
    user[: min(users, rows)], item[: min(items, rows)] = np.arange(min(users, rows)), np.arange(min(items, rows))
    return pd.DataFrame({"user": user, "item": item, "rating": rng.integers(1, 6, rows).astype(np.float32)})
