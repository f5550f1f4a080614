"""Interpretation: importance of features, conflicts between tasks, weights of attention, and use of experts."""

from __future__ import annotations

from tfmtl.interpretation.attention import attention_weights as attention_weights
from tfmtl.interpretation.attention import modality_weights as modality_weights
from tfmtl.interpretation.correlated import correlated_features as correlated_features
from tfmtl.interpretation.experts import ExpertUsage as ExpertUsage
from tfmtl.interpretation.experts import expert_usage as expert_usage
from tfmtl.interpretation.importance import Importance as Importance
from tfmtl.interpretation.importance import permutation_importance as permutation_importance
from tfmtl.interpretation.plots import conflict_curves as conflict_curves
from tfmtl.interpretation.plots import conflict_heat_map as conflict_heat_map
from tfmtl.interpretation.plots import importance_bars as importance_bars
