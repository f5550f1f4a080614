"""Evaluation: retrieval metrics on the whole corpus, metrics of labels, baselines and reports."""

from __future__ import annotations

import importlib
from typing import Any as _Any

from tfmtl.evaluation.baselines import popularity as popularity
from tfmtl.evaluation.callbacks import RetrievalEvaluation as RetrievalEvaluation
from tfmtl.evaluation.catalog import catalog_metrics as catalog_metrics
from tfmtl.evaluation.diversity import diversity_metrics as diversity_metrics
from tfmtl.evaluation.diversity import diversity_values as diversity_values
from tfmtl.evaluation.grouped_auc import grouped_auc as grouped_auc
from tfmtl.evaluation.lists import list_metrics as list_metrics
from tfmtl.evaluation.off_policy import OffPolicyValue as OffPolicyValue
from tfmtl.evaluation.off_policy import off_policy_value as off_policy_value
from tfmtl.evaluation.progress_bar import ProgressBar as ProgressBar
from tfmtl.evaluation.ranks import rank_positives as rank_positives
from tfmtl.evaluation.reports import Robustness as Robustness
from tfmtl.evaluation.reports import activity as activity
from tfmtl.evaluation.reports import as_table as as_table
from tfmtl.evaluation.reports import attack as attack
from tfmtl.evaluation.reports import bootstrap_comparison as bootstrap_comparison
from tfmtl.evaluation.reports import by_slice as by_slice
from tfmtl.evaluation.reports import delta_m as delta_m
from tfmtl.evaluation.reports import evaluate as evaluate
from tfmtl.evaluation.reports import mined_negatives as mined_negatives
from tfmtl.evaluation.reports import popularity_tiers as popularity_tiers
from tfmtl.evaluation.reports import quantiles as quantiles
from tfmtl.evaluation.reports import reliability_curve as reliability_curve
from tfmtl.evaluation.reports import retained_margin as retained_margin
from tfmtl.evaluation.reports import robustness as robustness
from tfmtl.evaluation.reports import side_by_side as side_by_side
from tfmtl.evaluation.reports import similar_items as similar_items
from tfmtl.evaluation.reports import transfer_report as transfer_report
from tfmtl.evaluation.reports import trivial_baseline as trivial_baseline
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics as retrieval_metrics
from tfmtl.evaluation.row_metrics import AUC as AUC
from tfmtl.evaluation.row_metrics import F1 as F1
from tfmtl.evaluation.row_metrics import R2 as R2
from tfmtl.evaluation.row_metrics import AveragePrecision as AveragePrecision
from tfmtl.evaluation.row_metrics import CalibrationError as CalibrationError
from tfmtl.evaluation.row_metrics import GroupedAUC as GroupedAUC
from tfmtl.evaluation.row_metrics import KeptRows as KeptRows
from tfmtl.evaluation.thresholds import best_f1 as best_f1
from tfmtl.evaluation.thresholds import calibration_error as calibration_error
from tfmtl.tasks.label_metrics import binary_metrics as binary_metrics
from tfmtl.tasks.label_metrics import multiclass_metrics as multiclass_metrics
from tfmtl.tasks.label_metrics import regression_metrics as regression_metrics
from tfmtl.tasks.number_metrics import level_metrics as level_metrics
from tfmtl.tasks.number_metrics import mean_deviance as mean_deviance
from tfmtl.tasks.number_metrics import normalized_gini as normalized_gini
from tfmtl.tasks.number_metrics import quantile_metrics as quantile_metrics
from tfmtl.tasks.number_metrics import xauc as xauc


def __getattr__(name: str) -> _Any:
    if name == "write_report":  # it reads the packages of this row, so that it lies above them
        return importlib.import_module("tfmtl.reporting").write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
