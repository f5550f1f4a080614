"""Ensembles: several models as one, averaged, weighted or stacked, ready to be served or distilled."""

from __future__ import annotations

from tfmtl.ensembling.ensemble import ensemble as ensemble
from tfmtl.ensembling.snapshots import Snapshots as Snapshots
from tfmtl.ensembling.snapshots import member_seeds as member_seeds
from tfmtl.ensembling.stacking import stack as stack
from tfmtl.ensembling.weighting import fit_weights as fit_weights
from tfmtl.ensembling.weighting import select_weights as select_weights
