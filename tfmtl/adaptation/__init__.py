"""Adaptation: begin with what another model knows, adapt to users in a few steps, keep up with new data."""

from __future__ import annotations

from tfmtl.adaptation.adapters import with_adapters
from tfmtl.adaptation.drift import Alarm, DriftMonitor, psi
from tfmtl.adaptation.freezing import GradualUnfreezing, freeze, unfreeze
from tfmtl.adaptation.growth import grow
from tfmtl.adaptation.maml import MAML
from tfmtl.adaptation.meta_learner import MetaLearner
from tfmtl.adaptation.online import Increment, OnlineLearner
from tfmtl.adaptation.page_hinkley import PageHinkley
from tfmtl.adaptation.parts import layers_of
from tfmtl.adaptation.rates import discriminative
from tfmtl.adaptation.replay import Replay
from tfmtl.adaptation.reptile import Reptile
from tfmtl.adaptation.vocabulary import extend_statistics, leave_room
from tfmtl.adaptation.warm_start import WarmStart, warm_start

__all__ = [
    "MAML",
    "Alarm",
    "DriftMonitor",
    "GradualUnfreezing",
    "Increment",
    "MetaLearner",
    "OnlineLearner",
    "PageHinkley",
    "Replay",
    "Reptile",
    "WarmStart",
    "discriminative",
    "extend_statistics",
    "freeze",
    "grow",
    "layers_of",
    "leave_room",
    "psi",
    "unfreeze",
    "warm_start",
    "with_adapters",
]
