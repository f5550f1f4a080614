"""Adaptation: begin with what another model knows, train parts of it, and learn to adapt to a user in a few steps."""

from __future__ import annotations

from tfmtl.adaptation.adapters import with_adapters
from tfmtl.adaptation.freezing import GradualUnfreezing, freeze, unfreeze
from tfmtl.adaptation.maml import MAML
from tfmtl.adaptation.meta_learner import MetaLearner
from tfmtl.adaptation.parts import layers_of
from tfmtl.adaptation.rates import discriminative
from tfmtl.adaptation.reptile import Reptile
from tfmtl.adaptation.warm_start import WarmStart, warm_start

__all__ = [
    "MAML",
    "GradualUnfreezing",
    "MetaLearner",
    "Reptile",
    "WarmStart",
    "discriminative",
    "freeze",
    "layers_of",
    "unfreeze",
    "warm_start",
    "with_adapters",
]
