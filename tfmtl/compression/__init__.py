"""Compression: distil a small student from a large teacher, then prune and quantise it."""

from __future__ import annotations

from tfmtl.compression.distillation import distil as distil
from tfmtl.compression.distilled import DistilledModel as DistilledModel
from tfmtl.compression.lite import to_lite as to_lite
from tfmtl.compression.pruning import UpdatePruning as UpdatePruning
from tfmtl.compression.pruning import prune as prune
from tfmtl.compression.pruning import prune_model as prune_model
from tfmtl.compression.pruning import strip as strip
from tfmtl.compression.quantization import quantize as quantize
from tfmtl.compression.quantization import quantize_model as quantize_model
from tfmtl.compression.sparsity import check_sparsity as check_sparsity
from tfmtl.compression.sparsity import sparsity as sparsity
from tfmtl.compression.tables import shrink_tables as shrink_tables
