"""Compression: distil a small student from a large teacher, then prune and quantise it."""

from __future__ import annotations

from tfmtl.compression.distillation import distil
from tfmtl.compression.distilled import DistilledModel
from tfmtl.compression.lite import to_lite
from tfmtl.compression.pruning import UpdatePruning, prune, prune_model, strip
from tfmtl.compression.quantization import quantize, quantize_model
from tfmtl.compression.sparsity import check_sparsity, sparsity
from tfmtl.compression.tables import shrink_tables

__all__ = [
    "DistilledModel",
    "UpdatePruning",
    "check_sparsity",
    "distil",
    "prune",
    "prune_model",
    "quantize",
    "quantize_model",
    "shrink_tables",
    "sparsity",
    "strip",
    "to_lite",
]
