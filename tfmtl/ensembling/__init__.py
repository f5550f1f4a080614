"""Ensembles: several models as one, averaged, weighted or stacked, ready to be served or distilled."""

from __future__ import annotations

from tfmtl.ensembling.ensemble import ensemble
from tfmtl.ensembling.pools import Pool, pool_of

__all__ = ["Pool", "ensemble", "pool_of"]
