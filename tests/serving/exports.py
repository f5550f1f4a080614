"""Exports that several tests read, made once per run."""

from __future__ import annotations

import fcntl
import math
import pathlib
from typing import Any

import pandas as pd
from servers.models import MAX_K, IdType, build

from tfmtl.serving import Budget, InvertedFile, ModelCard, export

_METRICS = {("rating", "rmse"): 0.5, ("clicked", "auc"): 0.7, ("seen", "ndcg@10"): math.nan}
_INDEX = pd.MultiIndex.from_tuples(_METRICS, names=["task", "metric"])
CARD = ModelCard("A test.", pd.Series(list(_METRICS.values()), _INDEX), data="abc")
BUDGET = Budget(
    size=10_000,
    latency={"rank": 10_000.0, "retrieve": 10_000.0},
    rows=3,
    at_most={("rating", "rmse"): 0.5},
    at_least={("clicked", "auc"): 0.7},
)


class Exports:
    """The exported models of `build`.

    Args:
        folder: a folder that all processes of a run share.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def of(self, ids: IdType = "string", *, searched: bool = False) -> pathlib.Path:
        """Return the folder of a model, which holds version 1; do not change it.

        Args:
            ids: the type of the ids.
            searched: whether retrieval uses an inverted file, of which it reads every block.
        """
        search = InvertedFile(block=4, probes=99) if searched else None
        return self._once(f"{ids}{'_searched' * searched}", ids, search=search)

    def described(self) -> pathlib.Path:
        """Return the version with string ids, `CARD` and `BUDGET`; do not change it."""
        return self._once("described", "string", card=CARD, budget=BUDGET) / "1"

    def _once(self, name: str, ids: IdType, **arguments: Any) -> pathlib.Path:
        path = self.folder / name
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (path / "1").exists():
                export(build(ids)[0], path, max_k=MAX_K, **arguments)
        return path
