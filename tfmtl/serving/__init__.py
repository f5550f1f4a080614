"""Serving: one SavedModel that retrieves, ranks and recommends from raw features, verified before it is published."""

from __future__ import annotations

from tfmtl.data.examples import to_examples
from tfmtl.serving.budget import Budget, BudgetExceeded
from tfmtl.serving.card import ModelCard
from tfmtl.serving.exporter import Exporter, Servable
from tfmtl.serving.fusion import Fusion
from tfmtl.serving.index import CorpusIndex, Hits
from tfmtl.serving.inverted_file import InvertedFile, InvertedFileIndex
from tfmtl.serving.publishing import compressed_size
from tfmtl.serving.recommender import RecommenderExporter, export
from tfmtl.serving.replacement import add_candidates, replace_candidates
from tfmtl.serving.scann import ScaNN, ScaNNIndex
from tfmtl.serving.search import Search
from tfmtl.serving.server_config import write_server_config
from tfmtl.serving.signature import Signature
from tfmtl.serving.signatures import Recommender
from tfmtl.serving.verification import foreign_operations, probe_features, verify

__all__ = [
    "Budget",
    "BudgetExceeded",
    "CorpusIndex",
    "Exporter",
    "Fusion",
    "Hits",
    "InvertedFile",
    "InvertedFileIndex",
    "ModelCard",
    "Recommender",
    "RecommenderExporter",
    "ScaNN",
    "ScaNNIndex",
    "Search",
    "Servable",
    "Signature",
    "add_candidates",
    "compressed_size",
    "export",
    "foreign_operations",
    "probe_features",
    "replace_candidates",
    "to_examples",
    "verify",
    "write_server_config",
]
