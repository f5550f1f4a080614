"""Reports as pandas tables: one model, models side by side, parts of the rows."""

from __future__ import annotations

from tfmtl.evaluation.reports.attack import attack as attack
from tfmtl.evaluation.reports.bootstrap_comparison import as_table as as_table
from tfmtl.evaluation.reports.bootstrap_comparison import bootstrap_comparison as bootstrap_comparison
from tfmtl.evaluation.reports.bootstrap_comparison import delta_m as delta_m
from tfmtl.evaluation.reports.mining import mined_negatives as mined_negatives
from tfmtl.evaluation.reports.reliability import reliability_curve as reliability_curve
from tfmtl.evaluation.reports.report import evaluate as evaluate
from tfmtl.evaluation.reports.report import retained_margin as retained_margin
from tfmtl.evaluation.reports.report import side_by_side as side_by_side
from tfmtl.evaluation.reports.report import trivial_baseline as trivial_baseline
from tfmtl.evaluation.reports.robustness import Robustness as Robustness
from tfmtl.evaluation.reports.robustness import robustness as robustness
from tfmtl.evaluation.reports.similar_items import similar_items as similar_items
from tfmtl.evaluation.reports.slices import activity as activity
from tfmtl.evaluation.reports.slices import by_slice as by_slice
from tfmtl.evaluation.reports.slices import popularity_tiers as popularity_tiers
from tfmtl.evaluation.reports.slices import quantiles as quantiles
from tfmtl.evaluation.reports.transfer import transfer_report as transfer_report
