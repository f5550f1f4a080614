"""Ensembles: several models as one, averaged, weighted or stacked, ready to be served or distilled."""

from __future__ import annotations

from tfmtl.ensembling.ensemble import ensemble
from tfmtl.ensembling.pools import Pool, pool_of
from tfmtl.ensembling.snapshots import Snapshots, seeds
from tfmtl.ensembling.stacking import meta_learner, stack
from tfmtl.ensembling.weighting import fit_weights, select_weights

__all__ = [
    "Pool",
    "Snapshots",
    "ensemble",
    "fit_weights",
    "meta_learner",
    "pool_of",
    "seeds",
    "select_weights",
    "stack",
]
