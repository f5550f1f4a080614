"""Adaptation: warm start from another model, meta-learning for new users, and online learning on new data."""

from __future__ import annotations

from tfmtl.adaptation.adapters import with_adapters as with_adapters
from tfmtl.adaptation.drift import Alarm as Alarm
from tfmtl.adaptation.drift import DriftMonitor as DriftMonitor
from tfmtl.adaptation.drift import population_stability_index as population_stability_index
from tfmtl.adaptation.fine_tuning import GradualUnfreezing as GradualUnfreezing
from tfmtl.adaptation.fine_tuning import freeze as freeze
from tfmtl.adaptation.fine_tuning import layerwise_rates as layerwise_rates
from tfmtl.adaptation.fine_tuning import unfreeze as unfreeze
from tfmtl.adaptation.growth import extend_vocabularies as extend_vocabularies
from tfmtl.adaptation.maml import MAML as MAML
from tfmtl.adaptation.meta_learner import MetaLearner as MetaLearner
from tfmtl.adaptation.online import Increment as Increment
from tfmtl.adaptation.online import OnlineLearner as OnlineLearner
from tfmtl.adaptation.page_hinkley import PageHinkley as PageHinkley
from tfmtl.adaptation.parts import layers_of as layers_of
from tfmtl.adaptation.replay import Replay as Replay
from tfmtl.adaptation.reptile import Reptile as Reptile
from tfmtl.adaptation.vocabulary import extend_statistics as extend_statistics
from tfmtl.adaptation.vocabulary import reserve_rows as reserve_rows
from tfmtl.adaptation.warm_start import WarmStart as WarmStart
from tfmtl.adaptation.warm_start import warm_start as warm_start
