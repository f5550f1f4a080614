"""Evaluation: full-corpus retrieval metrics, task metrics, baselines, reports."""

from __future__ import annotations

from tfmtl.evaluation.baselines import (
    class_frequencies,
    popularity,
    popularity_scorer,
    prior_probability,
    weighted_mean,
)
from tfmtl.evaluation.callbacks import RetrievalEvaluation
from tfmtl.evaluation.catalogue import catalogue_metrics
from tfmtl.evaluation.lists import list_metrics
from tfmtl.evaluation.progress_bar import ProgressBar
from tfmtl.evaluation.ranks import rank_by_scores, rank_positives
from tfmtl.evaluation.reports import (
    activity,
    as_table,
    by_slice,
    compare,
    comparison,
    constant_prediction,
    delta_m,
    evaluate,
    popularity_tiers,
    quantiles,
    ranking_report,
    retained_margin,
    trivial_baseline,
)
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics, retrieval_values
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
    "by_slice",
    "calibration_error",
    "catalogue_metrics",
    "class_frequencies",
    "compare",
    "comparison",
    "constant_prediction",
    "delta_m",
    "evaluate",
    "grouped_auc",
    "list_metrics",
    "multiclass_metrics",
    "popularity",
    "popularity_scorer",
    "popularity_tiers",
    "prior_probability",
    "quantiles",
    "rank_by_scores",
    "rank_positives",
    "ranking_report",
    "regression_metrics",
    "retained_margin",
    "retrieval_metrics",
    "retrieval_values",
    "trivial_baseline",
    "weighted_mean",
]
