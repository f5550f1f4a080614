"""What an export is told of an approximate search."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import Schema, Statistics
from tfmtl.data.columns import to_columns
from tfmtl.serving.index import CorpusIndex, Embed
from tfmtl.serving.verification import probe_features


class Search(abc.ABC):
    """Settings that make an index of a corpus: the `search` of an export.

    Attributes:
        queries: pandas table of query features, some hundred rows as they are expected, for which the recall is
            measured when a model is exported; None for 256 rows made of the vocabularies.
    """

    queries: Any

    @abc.abstractmethod
    def build_index(
        self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int, queries: tf.Tensor
    ) -> CorpusIndex:
        """Return the index.

        Args:
            ids, embeddings, max_k: as in `CorpusIndex`.
            queries: float32 [n, d], embeddings of `sample`.
        """

    def sample(self, schema: Schema, statistics: Statistics) -> dict[str, tf.Tensor]:
        """Return the raw query features for which the recall is measured."""
        if self.queries is None:
            features = probe_features(schema, statistics, rows=256)
            return {feature.name: features[feature.name] for feature in schema.query}
        return {name: tf.constant(column) for name, column in to_columns(self.queries, schema.query).items()}
