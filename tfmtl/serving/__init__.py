"""Serving: one SavedModel that retrieves, ranks and recommends from raw features, verified before it is published."""

from __future__ import annotations

from tfmtl.data.examples import to_examples as to_examples
from tfmtl.serving.budget import Budget as Budget
from tfmtl.serving.budget import BudgetExceeded as BudgetExceeded
from tfmtl.serving.card import ModelCard as ModelCard
from tfmtl.serving.contextual_weights import ContextualWeights as ContextualWeights
from tfmtl.serving.explanations import Explanations as Explanations
from tfmtl.serving.exporter import Exporter as Exporter
from tfmtl.serving.exporter import Servable as Servable
from tfmtl.serving.index import CorpusIndex as CorpusIndex
from tfmtl.serving.index import Search as Search
from tfmtl.serving.inverted_file import InvertedFile as InvertedFile
from tfmtl.serving.publishing import compressed_size as compressed_size
from tfmtl.serving.recommender_exporter import RecommenderExporter as RecommenderExporter
from tfmtl.serving.recommender_exporter import export as export
from tfmtl.serving.replacement import add_candidates as add_candidates
from tfmtl.serving.replacement import replace_candidates as replace_candidates
from tfmtl.serving.scann import ScaNN as ScaNN
from tfmtl.serving.score_fusion import ScoreFusion as ScoreFusion
from tfmtl.serving.server_config import write_server_config as write_server_config
from tfmtl.serving.signature import Signature as Signature
from tfmtl.serving.signatures import Entry as Entry
from tfmtl.serving.slice_weights import SliceWeights as SliceWeights
from tfmtl.serving.table_answers import TableAnswers as TableAnswers
from tfmtl.serving.table_answers import load as load
