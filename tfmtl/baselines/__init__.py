"""Baselines: simple methods that a network has to exceed, fitted and measured on the same tables."""

from __future__ import annotations

from tfmtl.baselines.als import ALS as ALS
from tfmtl.baselines.als_factors import PairFactors as PairFactors
from tfmtl.baselines.als_factors import als_factors as als_factors
from tfmtl.baselines.comparison import Comparison as Comparison
from tfmtl.baselines.comparison import compare as compare
from tfmtl.baselines.comparison import measure as measure
from tfmtl.baselines.comparison import strongest as strongest
from tfmtl.baselines.ease import EASE as EASE
from tfmtl.baselines.ease import Decomposition as Decomposition
from tfmtl.baselines.ease import ItemFactors as ItemFactors
from tfmtl.baselines.ease import decompose as decompose
from tfmtl.baselines.ease import ease_factors as ease_factors
from tfmtl.baselines.gradient_boosting import GradientBoosting as GradientBoosting
from tfmtl.baselines.interactions import Interactions as Interactions
from tfmtl.baselines.item_knn import ItemKNN as ItemKNN
from tfmtl.baselines.personal_frequency import PersonalFrequency as PersonalFrequency
from tfmtl.baselines.popularity import Popularity as Popularity
from tfmtl.baselines.ranking_baseline import RankingBaseline as RankingBaseline
from tfmtl.baselines.recent_popularity import RecentPopularity as RecentPopularity
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline as RetrievalBaseline
from tfmtl.baselines.tfidf_linear import TfidfLinear as TfidfLinear
from tfmtl.baselines.tuned import Tuned as Tuned
