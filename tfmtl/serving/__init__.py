"""Serving: one SavedModel that retrieves, ranks and recommends from raw features, verified before it is published."""

from __future__ import annotations

from tfmtl.data.examples import to_examples
from tfmtl.serving.budget import Budget, BudgetExceeded
from tfmtl.serving.card import ModelCard
from tfmtl.serving.exporter import Exporter, Servable
from tfmtl.serving.index import CorpusIndex
from tfmtl.serving.inverted_file import InvertedFile
from tfmtl.serving.publishing import compressed_size
from tfmtl.serving.recommender import RecommenderExporter, export
from tfmtl.serving.replacement import add_candidates, replace_candidates
from tfmtl.serving.scann import ScaNN
from tfmtl.serving.score_fusion import ScoreFusion
from tfmtl.serving.search import Search
from tfmtl.serving.server_config import write_server_config
from tfmtl.serving.signature import Signature

__all__ = [
    "Budget",
    "BudgetExceeded",
    "CorpusIndex",
    "Exporter",
    "InvertedFile",
    "ModelCard",
    "RecommenderExporter",
    "ScaNN",
    "ScoreFusion",
    "Search",
    "Servable",
    "Signature",
    "add_candidates",
    "compressed_size",
    "export",
    "replace_candidates",
    "to_examples",
    "write_server_config",
]
