"""The weights of a network, EASE and popularity by the ranks of positives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl.evaluation.copied_scores import add_parts, rows_of_ids
from tfmtl.evaluation.corpus import Corpus, embed
from tfmtl.evaluation.counting import FloatArray, IntArray
from tfmtl.evaluation.ranks import rank_by_scores
from tfmtl.evaluation.retrieval_metrics import retrieval_values
from tfmtl.models import MultiTaskModel
from tfmtl.models.inputs import histories_of
from tfmtl.recipes.ease_part import EasePart, Floats
from tfmtl.recipes.join_copy import CopyJudge
from tfmtl.recipes.neighbor_part import Lists
from tfmtl.recipes.shortlist import Shortlist
from tfmtl.tasks import HistoryCopy
from tfmtl.tasks.interests import best_scores

Weights = tuple[float, float, float]
"""Weights of the network, EASE and popularity."""

_GRID = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SHARES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Factors of lists relative to the deviation of the other scores."""
_SAMPLE = 256
"""Queries by which the deviation of scores is measured."""
_DEPTH = 200
"""Candidates of each part among which the weights are chosen."""
_OPTIMISM = 0.5
"""Factor of the network's weight; see `MixtureJudge.weights` and `benchmarks/RESULTS.md`."""
_NAMES = ("network", "ease", "popularity")
_ALONE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class _Scores(NamedTuple):
    """Scores [queries, candidates] and their standard deviation, 1 for equal scores."""

    values: Floats
    deviation: float

    @classmethod
    def of(cls, values: Floats) -> _Scores:
        """Measure the deviation on some queries."""
        deviation = float(np.std(values[:_SAMPLE]))
        return cls(values, deviation if deviation > 0 else 1.0)


class MixtureJudge:
    """Ranks the positives of a corpus by weighted sums of the scores of a network, EASE and popularity."""

    def __init__(self, model: MultiTaskModel, task: str, corpus: Corpus, k: int) -> None:
        self._model, self._corpus, self.k = model, corpus, min(k, len(corpus.candidates))
        self._indices = np.asarray(corpus.candidates.features[model.schema.candidate_id])
        query = embed(model.tower("query"), corpus.queries)[task]
        candidate = embed(model.tower("candidate"), corpus.candidates.features)[task]
        self._network = _Scores.of(best_scores(query.astype(np.float32), candidate.astype(np.float32)))
        self._last: tuple[EasePart, list[_Scores]] | None = None

    def _scores(self, part: EasePart) -> list[_Scores]:
        """Return the scores of the network, EASE and popularity."""
        if self._last is None or self._last[0] is not part:
            ease = self._closed_form(part)
            popularity = np.broadcast_to(part.popularity[self._indices], ease.shape)
            self._last = part, [self._network, _Scores.of(ease), _Scores.of(popularity)]
        return self._last[1]

    def _closed_form(self, part: EasePart) -> Floats:
        """Return the scores of EASE, with those of ALS where it is beside it."""
        scores: Floats = part.queries(self._corpus.queries) @ part.candidates(self._indices).T
        return scores

    def deviations(self, part: EasePart) -> list[float]:
        """Return the standard deviation of each part's scores over pairs, 1 for equal scores."""
        return [scores.deviation for scores in self._scores(part)]

    def scale(self, part: EasePart, other: EasePart) -> float:
        """Return the factor of another part's scores that ranks best beside those of `part`.

        It is the mean of those of the grid within one standard error of the best one, relative to the deviations.
        """
        scores = [_Scores.of(self._closed_form(each)) for each in (part, other)]
        shortlist = Shortlist.of([each.values for each in scores], self._corpus, max(_DEPTH, 20 * self.k))
        unit, own = (each.deviation for each in scores)
        tried = {share: self._quality(shortlist.ranks([1 / unit, share / own])) for share in _GRID}
        return float(np.mean(near_best(tried))) * unit / own

    def copied(self, part: EasePart, weights: Weights, values: dict[str, float]) -> tuple[Weights, HistoryCopy | None]:
        """Return the weights that rank best beside a copied part, and this part; the given ones if none is better.

        The NDCG with the part is added to `values`.
        """
        histories = histories_of(self._model.schema)
        if not histories:
            return weights, None
        judge = CopyJudge(self._model, self._corpus, histories, self.k)
        found, copy, values["copy"] = judge.best(
            lambda chosen: self._mixed(part, chosen), list(dict.fromkeys([weights, *_ALONE]))
        )
        return (found, copy) if values["copy"] > values["mixture"] else (weights, None)

    def neighbors(
        self, part: EasePart, weights: Weights, lists: Mapping[float, Lists], values: dict[str, float]
    ) -> tuple[float, float] | None:
        """Return the exponent and the factor of the lists that rank best beside the weighted sum, or None.

        Args:
            part: EASE, with ALS where it is beside it.
            weights: of the network, EASE and popularity.
            lists: those of the users of the queries by exponent.
            values: the NDCG with the lists is added.
        """
        mixed, rows = _Scores.of(self._mixed(part, weights)), rows_of_ids(self._model, self._corpus.candidates)
        tried: dict[tuple[float, float], FloatArray] = {}
        for exponent, own in lists.items():
            listed = np.zeros_like(mixed.values)
            add_parts(listed, rows[own.ids], own.parts)
            unit = _Scores.of(listed).deviation / mixed.deviation
            shortlist = Shortlist.of([mixed.values, listed], self._corpus, max(_DEPTH, 20 * self.k))
            for share in (0.0, *_SHARES):
                tried[exponent, share / unit] = self._quality(shortlist.ranks([1.0, share / unit]))
        best = max(tried, key=lambda option: float(tried[option].mean()))
        same = {scale: found for (exponent, scale), found in tried.items() if exponent == best[0]}
        chosen = best[0], float(np.mean(near_best(same)))
        if chosen[1] == 0 or best[1] == 0:
            return None
        values["neighbors"] = self._ndcg_of(mixed.values, lists[chosen[0]], chosen[1], rows)
        return chosen if values["neighbors"] > values["mixture"] else None

    def _ndcg_of(self, mixed: Floats, lists: Lists, scale: float, rows: IntArray) -> float:
        """Return the NDCG at k of scores [queries, candidates] with the lists of the queries' users."""

        def scores(chosen: IntArray) -> FloatArray:
            block = np.array(mixed[chosen], np.float32)
            add_parts(block, rows[lists.ids[chosen]], np.float32(scale) * lists.parts[chosen])
            return block

        corpus, size = self._corpus, len(self._corpus.candidates)
        index = corpus.query_index, corpus.candidate_index
        return self._ndcg(rank_by_scores(scores, size, *index, seen=corpus.seen))

    @property
    def keeps_seen(self) -> bool:
        """Whether the candidates that a user had before stay in the lists."""
        return self._corpus.seen is None

    def users(self, feature: str) -> IntArray:
        """Return the encoded users of the queries."""
        return np.asarray(self._corpus.queries[feature], np.int64)

    def values(self, part: EasePart, weights: Weights) -> FloatArray:
        """Return the mean of the NDCG at k and at 10 k of the weighted sum for each query."""
        return self._quality(self._ranks(part, weights))

    def _mixed(self, part: EasePart, weights: Weights, queries: IntArray | slice = slice(None)) -> Floats:
        """Return the weighted sum of the scores in units of their deviations [queries, candidates]."""
        found = zip(weights, self._scores(part), strict=True)
        used = [(np.float32(weight / scores.deviation), scores.values) for weight, scores in found if weight > 0]
        return np.asarray(sum(factor * values[queries] for factor, values in used), np.float32)

    def _ranks(self, part: EasePart, weights: Weights) -> FloatArray:
        corpus, size = self._corpus, len(self._corpus.candidates)
        index = corpus.query_index, corpus.candidate_index
        return rank_by_scores(lambda rows: self._mixed(part, weights, rows), size, *index, seen=corpus.seen)

    def _quality(self, ranks: FloatArray) -> FloatArray:
        """Return the mean of the NDCG at k and at 10 k of each query; that at k alone has more noise."""
        corpus, cut_offs = self._corpus, sorted({self.k, min(10 * self.k, len(self._corpus.candidates))})
        found = retrieval_values(ranks, corpus.query_index, cut_offs, items=corpus.items)[1]
        return np.asarray(np.mean([found[f"ndcg@{k}"] for k in cut_offs], axis=0))

    def _ndcg(self, ranks: FloatArray) -> float:
        return self._corpus.metrics(np.asarray(ranks, np.float64), self.k)[f"ndcg@{self.k}"]

    def weights(self, part: EasePart) -> tuple[Weights, dict[str, float]]:
        """Return the mean of the weights that rank best, and the NDCG at k of each part alone and of the mixture.

        It is the mean of those of the grid within one standard error of the best ones, each with a sum of 1. Then that
        of the network is halved: these rows have chosen its epoch, too, and EASE has one more part of the rows in the
        end.
        """
        tried: dict[Weights, FloatArray] = {}
        scores = self._scores(part)
        shortlist = Shortlist.of([each.values for each in scores], self._corpus, max(_DEPTH, 20 * self.k))

        def ranks(weights: Weights) -> FloatArray:
            return shortlist.ranks([w / each.deviation for w, each in zip(weights, scores, strict=True)])

        def best_of(options: Sequence[Weights]) -> Weights:
            for option in options:
                if max(option) > 0 and option not in tried:
                    tried[option] = self._quality(ranks(option))
            return max(tried, key=lambda option: float(tried[option].mean()))

        best_of(_ALONE)
        network = best_of([(w, 1.0, 0.0) for w in _GRID])
        best_of([(network[0], network[1], w) for w in _GRID] + [(1.0, 0.0, w) for w in _GRID])
        weights = discounted(np.mean([np.divide(option, sum(option)) for option in near_best(tried)], axis=0))
        values = {name: self._ndcg(ranks(key)) for name, key in zip(_NAMES, _ALONE, strict=True)}
        return weights, {**values, "mixture": self._ndcg(self._ranks(part, weights))}


def discounted(weights: Sequence[float]) -> Weights:
    """Return weights with a sum of 1 after the factor of the network; those of a network alone stay."""
    network, ease, popularity = weights
    total = _OPTIMISM * network + ease + popularity
    if ease + popularity == 0:
        return (1.0, 0.0, 0.0)
    return (_OPTIMISM * network / total, ease / total, popularity / total)


def near_best(values: Mapping[Any, FloatArray]) -> list[Any]:
    """Return the best settings and those within one standard error of them.

    The error is that of the difference of two means over queries.

    Args:
        values: the metric of each query by settings.
    """
    best = values[max(values, key=lambda settings: float(values[settings].mean()))]
    behind = {settings: best - found for settings, found in values.items()}
    return [settings for settings, gap in behind.items() if gap.mean() <= gap.std() / math.sqrt(len(gap))]
