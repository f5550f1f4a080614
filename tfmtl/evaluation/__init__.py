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
from tfmtl.evaluation.progress_bar import ProgressBar
from tfmtl.evaluation.ranks import rank_by_scores, rank_positives
from tfmtl.evaluation.reports import (
    compare,
    constant_prediction,
    evaluate,
    ranking_report,
    retained_margin,
    trivial_baseline,
)
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics
from tfmtl.evaluation.task_metrics import binary_metrics, grouped_auc, multiclass_metrics, regression_metrics

__all__ = [
    "ProgressBar",
    "RetrievalEvaluation",
    "binary_metrics",
    "class_frequencies",
    "compare",
    "constant_prediction",
    "evaluate",
    "grouped_auc",
    "multiclass_metrics",
    "popularity",
    "popularity_scorer",
    "prior_probability",
    "rank_by_scores",
    "rank_positives",
    "ranking_report",
    "regression_metrics",
    "retained_margin",
    "retrieval_metrics",
    "trivial_baseline",
    "weighted_mean",
]
