"""Transitions of earlier episodes, for off-policy learning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.allocation.affinity import Floats

Singles = npt.NDArray[np.float32]


class Transitions(NamedTuple):
    """Some transitions of one environment.

    Attributes:
        states, actions, rewards: [n, K, 5], [n, K], [n].
        following: the states after the actions [n, K, 5].
        ended: 1.0 where the episode ended [n].
    """

    states: Singles
    actions: Singles
    rewards: Singles
    following: Singles
    ended: Singles


class Replay:
    """Keeps transitions by the number of tasks, and draws batches of one number."""

    def __init__(self) -> None:
        self._kept: dict[int, list[tuple[Floats, Floats, float, Floats, float]]] = {}

    def add(self, state: Floats, action: Floats, reward: float, following: Floats, ended: bool) -> None:
        """Keep a transition."""
        self._kept.setdefault(len(action), []).append((state, action, reward, following, float(ended)))

    def __len__(self) -> int:
        """Return the number of transitions."""
        return sum(map(len, self._kept.values()))

    def deviation(self, tasks: int) -> float:
        """Return the standard deviation of all rewards with a number of tasks, at least a thousandth of their size."""
        rewards = np.array([kept[2] for kept in self._kept[tasks]])
        return float(max(rewards.std(), 1e-3 * np.abs(rewards).max(), 1e-9))

    def draw(self, size: int, rng: np.random.Generator) -> Transitions:
        """Return transitions drawn with repetition, all of them with one number of tasks."""
        counts = {number: len(kept) for number, kept in self._kept.items()}
        total = np.array(list(counts.values()), np.float64)
        chosen = self._kept[list(counts)[int(rng.choice(len(counts), p=total / total.sum()))]]
        rows = [chosen[int(i)] for i in rng.integers(len(chosen), size=size)]
        states, actions, rewards, following, ended = (np.array(c, np.float32) for c in zip(*rows, strict=True))
        return Transitions(states, actions, rewards, following, ended)
