"""The exporter of recommenders, and `export`, which is all that most users need."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tfmtl.models import MultiTaskModel
from tfmtl.serving.budget import Budget
from tfmtl.serving.card import ModelCard
from tfmtl.serving.exporter import Exporter, Servable
from tfmtl.serving.search import Search
from tfmtl.serving.signatures import Recommender


class RecommenderExporter(Exporter):
    """Publishes one SavedModel that retrieves, ranks and recommends.

    Signatures, every input and output with the batch first ([B, ...]); features are raw, a missing value is `""`, -1 or
    NaN, lists may have any width:

    - `retrieve`: query features -> `ids` [B, max_k], `scores` [B, max_k], over the whole corpus, exact unless
      `search` says otherwise.
    - `retrieve_filtered`: also `exclude_ids` [B, n], which never appear (`""` and -1 exclude nothing), `restrict_ids`
      [B, n], beside which nothing appears (a row of `""` or -1 alone restricts nothing), and `k` int32 [B]: the first k
      places are filled, the others and those for which no candidate is left hold the id `""` or -1 and the score 0. A
      negative k stands for a missing one; it and any above `max_k` mean `max_k`.
    - `rank`: query, candidate and context features -> each task's value by task name: probability [B], value in label
      units [B], class probabilities [B, classes], retrieval score [B].
    - `recommend`: query features -> the `max_k` retrieved candidates ranked (context missing), fused by
      `ScoreFusion` and sorted: `ids`, `scores` [B, max_k], each task's value [B, max_k] or [B, max_k, classes];
      tasks of the query alone [B] or [B, classes].
    - `recommend_filtered`: also `exclude_ids`, `restrict_ids`, `k` and, for every task that takes part in the fusion,
      `weight_<task>` float32 [B]: NaN takes the exported weight, a negative one counts as 0. All `max_k` candidates are
      ranked, the best k of them are answered.
    - `embed_query`, `embed_candidate`: their features -> `embedding` [B, d], whose dot products are the scores.
    - `retrieve_examples`, `recommend_examples`, `rank_examples`, `embed_query_examples`, `embed_candidate_examples`:
      `examples`, serialized `tf.Example` protos [B] (see `to_examples`) -> as `retrieve_filtered`,
      `recommend_filtered`, ...; what a proto lacks is missing.
    - `serving_default`: `recommend`; of a model without retrieval task or `candidates` it is `rank`, and the only other
      signatures are `rank` and `rank_examples`.

    No request fails because of the values in it (but a string that is no proto), so that a server may batch the
    requests of many clients.

    Args:
        max_k: candidates retrieved, ranked and answered a query; by default 100, or the whole corpus if it is smaller.
        retrieval: name of the retrieval task that is served; by default the model's first.
        fusion_weights: default weights of `recommend` by task name, see `ScoreFusion.of`.
        search: an `InvertedFile` or `ScaNN` for an approximate search; by default the whole corpus is compared.

    Cost: a `retrieve` of one query is a product with the corpus' embeddings; `recommend` adds the network on `max_k`
    rows.
    """

    def __init__(
        self,
        max_k: int | None = None,
        retrieval: str | None = None,
        fusion_weights: Mapping[str, float] | None = None,
        search: Search | None = None,
    ) -> None:
        self.max_k = max_k
        self.retrieval = retrieval
        self.fusion_weights = fusion_weights
        self.search = search

    def servable(self, model: MultiTaskModel) -> Servable:
        """Return the signatures of a model; what `recommend` needs of the candidates is computed here, once."""
        recommender = Recommender(model, self.max_k, self.retrieval, self.fusion_weights, self.search)
        namespaces = recommender.index.namespaces if recommender.retrieves else ()
        return Servable(
            recommender.signatures(), recommender.resources, recommender.describe(), recommender.functions, namespaces
        )


def export(
    model: MultiTaskModel,
    directory: str | os.PathLike[str],
    *,
    max_k: int | None = None,
    retrieval: str | None = None,
    fusion_weights: Mapping[str, float] | None = None,
    search: Search | None = None,
    version: int | None = None,
    probe: Any = None,
    card: ModelCard | None = None,
    budget: Budget | None = None,
) -> pathlib.Path:
    """Publish a model with `RecommenderExporter(max_k, retrieval, fusion_weights, search)`.

    Args:
        model: the trained model.
        directory: the model's folder, which holds its versions.
        max_k, retrieval, fusion_weights, search: as in `RecommenderExporter`.
        version, probe, card, budget: as in `Exporter.export`.

    Returns:
        `directory/<version>`.

    Raises:
        ValueError, BudgetExceeded, FileExistsError, RuntimeError, OSError: as in `Exporter.export`.
        ImportError: if `search` needs a package that is not installed.
    """
    exporter = RecommenderExporter(max_k, retrieval, fusion_weights, search)
    return exporter.export(model, directory, version=version, probe=probe, card=card, budget=budget)
