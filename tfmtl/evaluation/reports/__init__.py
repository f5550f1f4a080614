"""Reports as pandas tables: one model, models side by side, parts of the rows."""

from __future__ import annotations

from tfmtl.evaluation.reports.bootstrap_comparison import as_table, bootstrap_comparison, delta_m
from tfmtl.evaluation.reports.report import (
    constant_prediction,
    evaluate,
    ranking_report,
    retained_margin,
    side_by_side,
    trivial_baseline,
)
from tfmtl.evaluation.reports.slices import activity, by_slice, popularity_tiers, quantiles

__all__ = [
    "activity",
    "as_table",
    "bootstrap_comparison",
    "by_slice",
    "constant_prediction",
    "delta_m",
    "evaluate",
    "popularity_tiers",
    "quantiles",
    "ranking_report",
    "retained_margin",
    "side_by_side",
    "trivial_baseline",
]
