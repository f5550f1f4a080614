"""Training: optimisers and callbacks."""

from __future__ import annotations

from tfmtl.training.asgd import ASGD
from tfmtl.training.conflicts import ConflictMonitor
from tfmtl.training.grouped_optimizer import GroupedOptimizer
from tfmtl.training.iterate_averages import IterateAverages
from tfmtl.training.lazy_adam import LazyAdam
from tfmtl.training.lazy_adamw import LazyAdamW
from tfmtl.training.lazy_sgd import LazySGD
from tfmtl.training.row_wise_adagrad import RowWiseAdagrad
from tfmtl.training.scaled_rates import ScaledRates
from tfmtl.training.swap_averages import SwapAverages, averaged
from tfmtl.training.touched_rows import TouchedRows

__all__ = [
    "ASGD",
    "ConflictMonitor",
    "GroupedOptimizer",
    "IterateAverages",
    "LazyAdam",
    "LazyAdamW",
    "LazySGD",
    "RowWiseAdagrad",
    "ScaledRates",
    "SwapAverages",
    "TouchedRows",
    "averaged",
]
