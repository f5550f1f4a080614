"""How much a step on one task helps another one."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_known
from tfmtl.allocation.json_form import read_form, write_form

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Affinity:
    """The effect of each task on each other one: above 0 where a step on the first task lowers the loss of the second.

    Attributes:
        tasks: names of the K tasks.
        values: Z [K, K]; Z_ij is the effect of task i on task j. The diagonal is not read.

    Raises:
        ValueError: if the names are not distinct, or the values are not [K, K] and finite outside of the diagonal.

    Example:
        >>> Affinity(["click", "buy"], [[0.0, 0.2], [-0.1, 0.0]]).score(["click", "buy"])
        0.1
    """

    tasks: Sequence[str]
    values: Floats

    def __post_init__(self) -> None:
        names, values = tuple(self.tasks), np.array(self.values, np.float64)
        require(len(names) > 0 and len(set(names)) == len(names), "`tasks` must have distinct names.", tasks=names)
        size = len(names)
        require(values.shape == (size, size), f"`values` must have the shape [{size}, {size}].", shape=values.shape)
        outside = ~np.eye(size, dtype=bool)
        require(bool(np.isfinite(values[outside]).all()), "`values` must be finite outside of the diagonal.")
        values[~outside] = 0.0
        object.__setattr__(self, "tasks", names)
        object.__setattr__(self, "values", values)

    def save(self, path: str | pathlib.Path) -> None:
        """Write the affinity to a JSON file; an older file is replaced in one step."""
        write_form(path, "affinity", {"tasks": self.tasks, "values": self.values.tolist()})

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Affinity:
        """Return the affinity of a file that `save` wrote; raise `ValueError` if it holds none."""
        return cls(**read_form(path, "affinity"))

    def score(self, group: Collection[str]) -> float:
        """Return the score of a group: the sum over its tasks j of the mean of Z_ij over its other tasks; 0 for one."""
        require_known(group, self.tasks, "task", "`group`")
        return score_of(self.values, [self.tasks.index(name) for name in group])


def score_of(values: Floats, members: Sequence[int]) -> float:
    """Return the score of a group of tasks by their numbers; see `Affinity.score`."""
    if len(members) < 2:
        return 0.0
    return float(values[np.ix_(members, members)].sum() / (len(members) - 1))
