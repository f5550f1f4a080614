"""Interpretation: importance of features, influence of rows, embeddings, conflicts of tasks, attention and experts."""

from __future__ import annotations

from tfmtl.interpretation.ablation import expert_ablation as expert_ablation
from tfmtl.interpretation.ablation import usage_by_slice as usage_by_slice
from tfmtl.interpretation.attention import attention_weights as attention_weights
from tfmtl.interpretation.attention import modality_weights as modality_weights
from tfmtl.interpretation.attributions import Attributions as Attributions
from tfmtl.interpretation.correlated import correlated_features as correlated_features
from tfmtl.interpretation.counterfactuals import Counterfactual as Counterfactual
from tfmtl.interpretation.counterfactuals import counterfactuals as counterfactuals
from tfmtl.interpretation.embeddings import EmbeddingMap as EmbeddingMap
from tfmtl.interpretation.embeddings import embedding_map as embedding_map
from tfmtl.interpretation.embeddings import nearest_neighbors as nearest_neighbors
from tfmtl.interpretation.experts import ExpertUsage as ExpertUsage
from tfmtl.interpretation.experts import expert_usage as expert_usage
from tfmtl.interpretation.gradients import gradient_times_input as gradient_times_input
from tfmtl.interpretation.gradients import integrated_gradients as integrated_gradients
from tfmtl.interpretation.importance import Importance as Importance
from tfmtl.interpretation.importance import permutation_importance as permutation_importance
from tfmtl.interpretation.influence import influence_of_rows as influence_of_rows
from tfmtl.interpretation.influence import influential_rows as influential_rows
from tfmtl.interpretation.plots import conflict_curves as conflict_curves
from tfmtl.interpretation.plots import conflict_heat_map as conflict_heat_map
from tfmtl.interpretation.plots import embedding_scatter as embedding_scatter
from tfmtl.interpretation.plots import importance_bars as importance_bars
from tfmtl.interpretation.shapley import shapley_values as shapley_values
