"""Adaptation: begin with what another model knows, adapt to users in a few steps, keep up with new data."""

from __future__ import annotations

from tfmtl.adaptation.adapters import with_adapters
from tfmtl.adaptation.drift import Alarm, DriftMonitor, population_stability_index
from tfmtl.adaptation.freezing import GradualUnfreezing, freeze, unfreeze
from tfmtl.adaptation.growth import extend_vocabularies
from tfmtl.adaptation.layerwise_rates import layerwise_rates
from tfmtl.adaptation.maml import MAML
from tfmtl.adaptation.meta_learner import MetaLearner
from tfmtl.adaptation.online import Increment, OnlineLearner
from tfmtl.adaptation.page_hinkley import PageHinkley
from tfmtl.adaptation.parts import layers_of
from tfmtl.adaptation.replay import Replay
from tfmtl.adaptation.reptile import Reptile
from tfmtl.adaptation.vocabulary import extend_statistics, reserve_rows
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
    "extend_statistics",
    "extend_vocabularies",
    "freeze",
    "layers_of",
    "layerwise_rates",
    "population_stability_index",
    "reserve_rows",
    "unfreeze",
    "warm_start",
    "with_adapters",
]
