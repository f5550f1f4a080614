"""Evaluation: full-corpus retrieval metrics, task metrics, baselines, reports."""

from __future__ import annotations

from tfmtl.evaluation.baselines import popularity
from tfmtl.evaluation.callbacks import RetrievalEvaluation
from tfmtl.evaluation.catalog import catalog_metrics
from tfmtl.evaluation.lists import list_metrics
from tfmtl.evaluation.progress_bar import ProgressBar
from tfmtl.evaluation.ranks import rank_positives
from tfmtl.evaluation.reports import (
    activity,
    as_table,
    bootstrap_comparison,
    by_slice,
    constant_prediction,
    delta_m,
    evaluate,
    popularity_tiers,
    quantiles,
    ranking_report,
    retained_margin,
    side_by_side,
    trivial_baseline,
)
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics
from tfmtl.evaluation.row_metrics import AUC, F1, R2, AveragePrecision, CalibrationError, GroupedAUC, KeptRows
from tfmtl.evaluation.task_metrics import binary_metrics, grouped_auc, multiclass_metrics, regression_metrics
from tfmtl.evaluation.thresholds import best_f1, calibration_error

__all__ = [
    "AUC",
    "F1",
    "R2",
    "AveragePrecision",
    "CalibrationError",
    "GroupedAUC",
    "KeptRows",
    "ProgressBar",
    "RetrievalEvaluation",
    "activity",
    "as_table",
    "best_f1",
    "binary_metrics",
    "bootstrap_comparison",
    "by_slice",
    "calibration_error",
    "catalog_metrics",
    "constant_prediction",
    "delta_m",
    "evaluate",
    "grouped_auc",
    "list_metrics",
    "multiclass_metrics",
    "popularity",
    "popularity_tiers",
    "quantiles",
    "rank_positives",
    "ranking_report",
    "regression_metrics",
    "retained_margin",
    "retrieval_metrics",
    "side_by_side",
    "trivial_baseline",
]
