"""Training: optimisers and callbacks."""

from __future__ import annotations

from tfmtl.training.asgd import ASGD as ASGD
from tfmtl.training.conflicts import ConflictMonitor as ConflictMonitor
from tfmtl.training.grouped_optimizer import GroupedOptimizer as GroupedOptimizer
from tfmtl.training.held_out_losses import HeldOutLosses as HeldOutLosses
from tfmtl.training.iterate_averages import IterateAverages as IterateAverages
from tfmtl.training.lazy_adam import LazyAdam as LazyAdam
from tfmtl.training.lazy_adamw import LazyAdamW as LazyAdamW
from tfmtl.training.lazy_sgd import LazySGD as LazySGD
from tfmtl.training.meta_gradients import MetaGradients as MetaGradients
from tfmtl.training.row_wise_adagrad import RowWiseAdagrad as RowWiseAdagrad
from tfmtl.training.scaled_rates import ScaledRates as ScaledRates
from tfmtl.training.swap_averages import SwapAverages as SwapAverages
from tfmtl.training.swap_averages import averaged as averaged
from tfmtl.training.touched_rows import TouchedRows as TouchedRows
