"""RecommenderExporter, the exporter of every model, and `export`, the function that most users need."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from tfmtl._checks import require, require_type
from tfmtl.models import MultiTaskModel
from tfmtl.serving.budget import Budget
from tfmtl.serving.card import ModelCard
from tfmtl.serving.contextual_weights import ContextualWeights
from tfmtl.serving.explainer import Explainer
from tfmtl.serving.explanations import Explanations
from tfmtl.serving.exporter import Exporter, Servable
from tfmtl.serving.index import Search
from tfmtl.serving.ranker import Ranker
from tfmtl.serving.recommender import Recommender, retrieves
from tfmtl.serving.signatures import ENTRIES, EXPLAIN, Entry, signatures_of
from tfmtl.serving.slice_weights import SliceWeights

_LOGGER = logging.getLogger(__name__)


class RecommenderExporter(Exporter):
    """Publishes one SavedModel that retrieves, ranks and recommends from raw features.

    Every input and output of a signature has the batch first ([B, ...]). Features are raw; a missing value is `""`, -1
    or NaN, and lists have up to 65,536 values. The signatures:

    - `retrieve`: query features -> `ids` [B, max_k] and `scores` [B, max_k] of the best candidates of the whole corpus,
      exact unless `search` is given.
    - `retrieve_filtered`: also takes `exclude_ids` [B, n], candidates that never appear (`""` and -1 are ignored),
      `restrict_ids` [B, n], the only candidates that may appear (a row with only `""` or -1 restricts nothing), and
      `k` int32 [B], the number of candidates to return. Positions after the first k, or without an allowed candidate,
      hold the id `""` or -1 and the score 0. A k that is negative (missing) or above `max_k` means `max_k`.
    - `rank`: query, candidate and context features -> the value of each task by task name: probability [B], value in
      label units [B], class probabilities [B, classes], retrieval score [B].
    - `recommend`: query features -> the best `max_k` of `rerank_depth` retrieved candidates, ranked without a context
      (all context features missing) and sorted by `ScoreFusion`: `ids` and `scores` [B, max_k], and the value of each
      task [B, max_k] or [B, max_k, classes]; [B] or [B, classes] for tasks of the query alone.
    - `recommend_filtered`: also takes the context features of the request, each of which may be missing;
      `exclude_ids`, `restrict_ids` and `k`; and for every task in the fusion `weight_<task>` float32 [B] of any sign,
      where NaN means the exported weight. All `rerank_depth` candidates are ranked, in the context of the request, and
      the best k of them are returned.
    - `embed_query`, `embed_candidate`: features of the query or the candidate -> `embedding` [B, d]. The dot products
      of the two are the scores, without the part of `Retrieval(copy=...)`. With `num_interests` K above 1 the
      embedding of a query is [B, K, d], and its largest dot product is the score.
    - `retrieve_examples`, `recommend_examples`, `rank_examples`, `embed_query_examples`, `embed_candidate_examples`:
      `examples`, serialized `tf.Example` protos [B] (see `to_examples`) -> the outputs of `retrieve_filtered`,
      `recommend_filtered`, `rank`, `embed_query` or `embed_candidate`. Inputs that a proto lacks, or holds in another
      type, are missing values; a float may be written as an integer. Names that are no input are ignored.
    - `explain`, `explain_examples`, only with `explain`: as `rank` and `rank_examples` -> `features` [B, F], the names
      of the features, and for each explained task `<task>_attributions` [B, F], the parts of the features in
      `<task>_output` [B], the logit of an event or the served value, above `<task>_base` [B], that of the baseline;
      `<task>_<list>_positions` [B, length], the parts of the ids of a list; `<task>_gap` [B], the rest of the output;
      and `<task>_class` int64 [B], the explained class of a task with several. See `Explanations`.
    - With `Explanations(reasons=n)` the answers of `recommend` also have `<task>_reasons` [B, max_k, n], the names of
      the features and positions (`recent[0]`) with the greatest positive parts, then `""`, and `<task>_reason_parts`
      [B, max_k, n], these parts, for each explained task that reads the candidate.
    - `serving_default`: the same as `recommend`. A model without a retrieval task or without `candidates` has only
      `rank`, `rank_examples` and `serving_default`, which is then the same as `rank`.

    No values make a request fail, except strings that are no protos, so that a server may batch the requests of many
    clients. A request in which the number of rows or the shape of an input differs is refused; the message holds the
    shape of every input.

    Args:
        max_k: length of an answer; by default 100, or the whole corpus if it is smaller.
        rerank_depth: number of candidates per query that `recommend` retrieves and ranks, at least `max_k`; by default
            100 or `max_k`, or the whole corpus if it is smaller.
        retrieval: name of the retrieval task that is served; by default the model's first with a desired label.
        fusion_weights: weights of `recommend` by task name, of any sign. A task without one weighs 1, or -1 if its
            label is not desired (`Label("returned", desired=False)`). The export logs such weights, and the card lists
            all of them. See `ScoreFusion.of`. With `SliceWeights` they depend on a feature of the query, with
            `ContextualWeights` on its embedding.
        search: an `InvertedFile` or `ScaNN` for an approximate search; by default every query is compared with the
            whole corpus.
        explain: `Explanations` for the signature `explain` and the reasons in `recommend`; by default there are none.

    Cost: `retrieve` multiplies each query with the embeddings of the corpus; `recommend` also runs the network on
    `rerank_depth` rows per query.
    """

    entries: ClassVar[tuple[Entry, ...]] = ENTRIES
    """The table of signatures; a subclass adds its own: `entries = (*RecommenderExporter.entries, Entry(...))`."""

    def __init__(
        self,
        max_k: int | None = None,
        rerank_depth: int | None = None,
        retrieval: str | None = None,
        fusion_weights: Mapping[str, float] | SliceWeights | ContextualWeights | None = None,
        search: Search | None = None,
        explain: Explanations | None = None,
    ) -> None:
        if explain is not None:
            require_type(explain, Explanations, "explain", "Write `explain=Explanations(baseline=train)`.")
        self.max_k = max_k
        self.rerank_depth = rerank_depth
        self.retrieval = retrieval
        self.fusion_weights = fusion_weights
        self.search = search
        self.explain = explain

    def servable(self, model: MultiTaskModel) -> Servable:
        """Return the signatures of a model; the embeddings of the candidates are computed here, once."""
        served = self._computations(model)
        if isinstance(served, Recommender) and served.fusion.defaults:
            weights = ", ".join(f"{name} {weight:g}" for name, weight in served.fusion.weights.items())
            _LOGGER.warning(
                "`recommend` sorts by the weights %s, of which you did not give those of %s; "
                "give them in `fusion_weights`, and `desired=False` to the label of a bad event.",
                weights,
                ", ".join(served.fusion.defaults),
            )
        return Servable(
            signatures_of(served, self.entries if self.explain is None else (*self.entries, EXPLAIN)),
            served.resources,
            served.describe(),
            served.functions,
            served.namespaces,
        )

    def _computations(self, model: MultiTaskModel) -> Ranker:
        names = ("max_k", "rerank_depth", "retrieval", "fusion_weights", "search")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        require(
            retrieves(model) or not given, "Only a model with a retrieval task and `candidates` can retrieve.", **given
        )
        explainer = None if self.explain is None else Explainer(model, self.explain)
        if retrieves(model):
            return Recommender(model, **given, explainer=explainer)
        reasons = 0 if self.explain is None else self.explain.reasons
        require(not reasons, "Only a model that retrieves can give reasons of recommendations.", reasons=reasons)
        return Ranker(model, explainer)


def export(
    model: MultiTaskModel,
    directory: str | os.PathLike[str],
    *,
    max_k: int | None = None,
    rerank_depth: int | None = None,
    retrieval: str | None = None,
    fusion_weights: Mapping[str, float] | SliceWeights | ContextualWeights | None = None,
    search: Search | None = None,
    explain: Explanations | None = None,
    version: int | None = None,
    probe: Any = None,
    card: ModelCard | None = None,
    budget: Budget | None = None,
) -> pathlib.Path:
    """Publish a model with `RecommenderExporter(max_k, rerank_depth, retrieval, fusion_weights, search, explain)`.

    Args:
        model: the trained model.
        directory: the folder of the model, which holds its versions.
        max_k, rerank_depth, retrieval, fusion_weights, search, explain: as in `RecommenderExporter`.
        version, probe, card, budget: as in `Exporter.export`.

    Returns:
        `directory/<version>`, complete.

    Raises:
        ValueError, BudgetExceeded, FileExistsError, RuntimeError, OSError: as in `Exporter.export`.
        TypeError: if the baseline of `explain` is no table.
        ImportError: if `search` needs a package that is not installed.
    """
    exporter = RecommenderExporter(max_k, rerank_depth, retrieval, fusion_weights, search, explain)
    return exporter.export(model, directory, version=version, probe=probe, card=card, budget=budget)
