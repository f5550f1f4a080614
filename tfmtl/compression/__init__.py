"""Compression: distil a small student from a large teacher, then prune and quantise it."""

from __future__ import annotations

from tfmtl.compression.distillation import distil
from tfmtl.compression.distilled import DistilledModel, cosine_distance
from tfmtl.compression.lite import to_lite
from tfmtl.compression.pruning import OptimizerSchedule, UpdatePruning, prune, prune_model, strip
from tfmtl.compression.quantisation import quantise, quantise_model
from tfmtl.compression.sparsity import check_sparsity, is_prunable, prunable_weights, sparsity
from tfmtl.compression.tables import shrink_tables

__all__ = [
    "DistilledModel",
    "OptimizerSchedule",
    "UpdatePruning",
    "check_sparsity",
    "cosine_distance",
    "distil",
    "is_prunable",
    "prunable_weights",
    "prune",
    "prune_model",
    "quantise",
    "quantise_model",
    "shrink_tables",
    "sparsity",
    "strip",
    "to_lite",
]
