"""The parts of a retrieval score beside the dot product: copies of the history, or lists of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmtl.tasks.history_copy import HistoryCopy
from tfmtl.tasks.user_neighbors import UserNeighbors

Copy = HistoryCopy | UserNeighbors
"""Both have `history`, the query feature that they read, `of_pairs`, `of_history` and `config`."""


def copy_of(given: Copy | Mapping[str, Any] | None) -> Copy | None:
    """Return the part of an argument, which is one already or the attributes of one."""
    if not isinstance(given, Mapping):
        return given
    return UserNeighbors(**given) if "rows" in given else HistoryCopy(**given)
