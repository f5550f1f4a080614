"""Ensembles: several models as one, averaged, weighted or stacked, ready to be served or distilled."""

from __future__ import annotations

from tfmtl.ensembling.ensemble import ensemble
from tfmtl.ensembling.pools import Pool, pool_of
from tfmtl.ensembling.snapshots import Snapshots, member_seeds
from tfmtl.ensembling.stacking import stack, stacker_for
from tfmtl.ensembling.weighting import fit_weights, select_weights

__all__ = [
    "Pool",
    "Snapshots",
    "ensemble",
    "fit_weights",
    "member_seeds",
    "pool_of",
    "select_weights",
    "stack",
    "stacker_for",
]
