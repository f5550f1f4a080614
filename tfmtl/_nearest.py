"""The nearest rows of a table of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[Any]
Positions = npt.NDArray[Any]


def unit_rows(table: Vectors) -> Vectors:
    """Return rows of length 1; rows of zeros remain.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    units: Vectors = np.divide(table, norms, out=np.zeros_like(table), where=norms > 0)
    return units


def best_of(scores: Vectors, own: Positions, k: int) -> tuple[Positions, Vectors]:
    """Return the positions and scores [b, k] of the best columns, the own one after all others.

    Args:
        scores: [b, n]; the own column of each row becomes -infinity in it.
        own: own column of each row [b]; negative for none.
        k: at most n.

    Example:
        >>> best_of(np.array([[9.0, 1.0, 2.0]], np.float32), np.array([0]), 2)[0].tolist()
        [[2, 1]]
    """
    inside = np.flatnonzero(own >= 0)
    scores[inside, own[inside]] = -np.inf
    chosen = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    best = np.take_along_axis(scores, chosen, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(best, order, axis=1)
