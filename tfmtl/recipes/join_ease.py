"""The weights of a network, EASE and popularity in retrieval, chosen by ranks on validation rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.data import Batch, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.corpus import Corpus, Seen, embed, locate, positives
from tfmtl.evaluation.counting import FloatArray, IntArray
from tfmtl.evaluation.ranks import rank_by_scores
from tfmtl.evaluation.retrieval_metrics import retrieval_values
from tfmtl.models import MultiTaskModel
from tfmtl.models.inputs import histories_of
from tfmtl.models.keras_arguments import require_compiled
from tfmtl.recipes.ease_part import EasePart, EaseParts, EaseSettings, Floats, mean
from tfmtl.recipes.join_copy import CopyJudge, in_words, sampled, with_copy
from tfmtl.recipes.shortlist import Shortlist
from tfmtl.tasks import HistoryCopy

Weights = tuple[float, float, float]
"""Weights of the network, EASE and popularity."""

_GRID = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
REPEATED = 0.05
"""Share of repeated pairs among the validation positives from which seen candidates stay in the lists."""
_SAMPLE = 256
"""Queries by which the deviation of scores is measured."""
_DEPTH = 200
"""Candidates of each part among which the weights are chosen."""
_OPTIMISM = 0.5
"""Factor of the network's weight; see `_Judge.weights` and `benchmarks/RESULTS.md`."""
_ALONE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class JoinedEase:
    """The result of `join_ease`.

    Attributes:
        model: the compiled model with the chosen mixture as its retrieval scores.
        settings: the settings of EASE.
        weights: of the network, EASE and popularity, relative to their standard deviations over pairs.
        excludes_seen: whether the ranks were measured without the candidates that a user had before.
        values: the metric on validation of `network`, `ease`, `popularity` and `mixture`; and of `copy`, the mixture
            with copies, where candidates repeat and the schema has a history.
        metric: the name of the metric.
        copy: the part of the scores that candidates of the history have, or None.
    """

    model: MultiTaskModel
    settings: EaseSettings
    weights: Weights
    excludes_seen: bool
    values: dict[str, float]
    metric: str
    copy: HistoryCopy | None = None

    @property
    def mixture(self) -> str:
        """The weights in words."""
        parts = zip(self.weights, ("network", "EASE", "popularity"), strict=True)
        copies = [] if self.copy is None else [f"copies of {in_words(self.copy)}"]
        return " + ".join([*(f"{weight:.2g} {name}" for weight, name in parts if weight > 0), *copies])

    @property
    def found(self) -> str:
        """The values in words."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.values.items())

    def __str__(self) -> str:
        ease = self.settings
        values = " and ".join(f"{value:g}" for value in ease.regularizations)
        return (
            f"Retrieval scores are {self.mixture}, with EASE of {ease.source!r} ({ease.weighting} counts, "
            f"regularization {values}); {self.metric} on validation: {self.found}."
        )


def join_ease(
    model: MultiTaskModel,
    train: Any,
    validation: Any,
    *,
    task: str | None = None,
    rank: int = 256,
    regularizations: Sequence[float] = (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0),
    exclude_seen: bool | None = None,
    refit: bool = True,
    k: int = 10,
    max_queries: int = 1000,
    seed: int = 0,
) -> JoinedEase:
    """Join EASE and popularity to the retrieval of a trained model, with the weights that rank best on validation.

    Use it after each training of a retrieval task: on sparse interactions a closed form finds more than a network, and
    the mixture is as good on the validation rows as the best part, up to one standard error.

    NDCG@k on validation chooses, in this order: the source of the history, the weighting and the regularization by EASE
    alone; then, on a grid, the weights of network and popularity relative to the standard deviation of each part's
    scores; and a `HistoryCopy` (see `join_copy`) where seen candidates stay in the lists. Regularizations, and weights,
    within one standard error of the best ones are averaged, at no cost in serving. The network has half of the weight
    that it has on validation, because the same rows have usually chosen its epoch.

    Args:
        model: trained model with a retrieval task, candidates and a user id among its query features.
        train, validation: the table of its training, and a table outside it, later than `train` where rows have a time.
        task: the retrieval task; by default the only one.
        rank, regularizations: the width of EASE's embeddings, at most, and the regularizations to compare.
        exclude_seen: whether to rank without the candidates that a user had in `train`; by default if less than 5 % of
            the validation positives are pairs that occur in `train`.
        refit: whether the tables of the result are computed from `train` and `validation` together.
        k, max_queries: cut-off of the NDCG, and the number of validation queries that it is measured on.
        seed: seed of the draw of queries and of the decomposition.

    Raises:
        ValueError: if the model has no such task or no user id among its inputs, or a table has no positive of it.

    Reference: that of `tfmtl.baselines.ease_factors`.

    Cost: a decomposition for each weighting (a second for 10,000 candidates), a ranking of at most `max_queries`
    queries and 50 million scores for each weighting and regularization, 600 MB for these scores, and `rank` numbers for
    each user and candidate. The weights are compared on the best 200 candidates of each part.
    """
    require_positive_int(rank=rank, k=k, max_queries=max_queries)
    require(len(regularizations) > 0, "`regularizations` must hold at least one number.")
    name, train, validation = _task(model, task), as_frame(train), as_frame(validation)
    labels = [name] if name in model.schema.tasks else []
    batches = [to_batch(rows, model.preprocessor, labels=labels) for rows in (train, validation)]
    seen = Seen.from_frame(model, name, train)
    exclude_seen = repeated(name, batches[1], seen) < REPEATED if exclude_seen is None else exclude_seen
    corpus = sampled(locate(model, name, batches[1], seen if exclude_seen else None), max_queries, seed)
    judge, fitted = _Judge(model, name, corpus, k), EaseParts(model.preprocessor, name, rank, seed)
    options = fitted.options(batches[:1], regularizations)
    best = _best(judge, options)
    weights, values = judge.weights(averaged := mean(options, best))
    weights, copy = (weights, None) if exclude_seen else judge.copied(averaged, weights, values)
    part = fitted.fit(batches, best) if refit else averaged
    part = dataclasses.replace(part, weights=tuple(np.divide(weights, judge.deviations(averaged)).tolist()))
    joined = with_copy(part.join(model), name, copy)
    return JoinedEase(joined, best, weights, exclude_seen, values, f"{name} ndcg@{judge.k}", copy)


def _best(judge: _Judge, options: Mapping[EaseSettings, EasePart]) -> EaseSettings:
    """Return the best settings by EASE alone, with all regularizations near the best one.

    A single choice among values that differ by less than the noise of the validation rows can be far from the best one
    on other rows; `benchmarks/RESULTS.md` compares both.
    """
    values = {settings: judge.values(part, (0.0, 1.0, 0.0)) for settings, part in options.items()}
    best = max(values, key=lambda settings: float(values[settings].mean()))
    alike = {settings: found for settings, found in values.items() if settings[:2] == best[:2]}
    return best._replace(regularizations=tuple(value for near in near_best(alike) for value in near.regularizations))


def _task(model: MultiTaskModel, task: str | None) -> str:
    require_compiled(model, "join_ease")
    names = [t.name for t in model.tasks if t.retrieves]
    require(bool(names), "The model has no retrieval task; EASE retrieves.")
    require(task is not None or len(names) == 1, "Name one of the retrieval tasks by `task`.", tasks=names)
    require_known([task or names[0]], names, "retrieval task", "`task`")
    user = model.schema.user("EASE")
    inputs = {feature.name for feature in model.schema.query}
    require(user in inputs, f"EASE reads the user {user!r}, which must be one of the query features.")
    return task or names[0]


def repeated(task: str, batch: Batch, seen: Seen) -> float:
    """Return the share of positives with a pair that was seen."""
    rows = positives(batch, task)
    users, items = (batch.ids[role].numpy()[rows] for role in ("query", "candidate"))
    return float(seen.holds(users, items).mean()) if len(rows) else 0.0


class _Scores(NamedTuple):
    """Scores [queries, candidates] and their standard deviation, 1 for equal scores."""

    values: Floats
    deviation: float

    @classmethod
    def of(cls, values: Floats) -> _Scores:
        """Measure the deviation on some queries."""
        deviation = float(np.std(values[:_SAMPLE]))
        return cls(values, deviation if deviation > 0 else 1.0)


class _Judge:
    """Ranks the positives of a corpus by weighted sums of the scores of a network, EASE and popularity."""

    def __init__(self, model: MultiTaskModel, task: str, corpus: Corpus, k: int) -> None:
        self._model, self._corpus, self.k = model, corpus, min(k, len(corpus.candidates))
        self._indices = np.asarray(corpus.candidates.features[model.schema.candidate_id])
        query = embed(model.tower("query"), corpus.queries)[task]
        self._network = _Scores.of(query @ embed(model.tower("candidate"), corpus.candidates.features)[task].T)
        self._last: tuple[EasePart, list[_Scores]] | None = None

    def _scores(self, part: EasePart) -> list[_Scores]:
        """Return the scores of the network, EASE and popularity."""
        if self._last is None or self._last[0] is not part:
            ease = part.queries(self._corpus.queries) @ part.candidates(self._indices).T
            popularity = np.broadcast_to(part.popularity[self._indices], ease.shape)
            self._last = part, [self._network, _Scores.of(ease), _Scores.of(popularity)]
        return self._last[1]

    def deviations(self, part: EasePart) -> list[float]:
        """Return the standard deviation of each part's scores over pairs, 1 for equal scores."""
        return [scores.deviation for scores in self._scores(part)]

    def copied(self, part: EasePart, weights: Weights, values: dict[str, float]) -> tuple[Weights, HistoryCopy | None]:
        """Return the weights that rank best beside a copied part, and this part; the given ones if none is better.

        The NDCG with the part is added to `values`.
        """

        def mixed(chosen: Weights) -> Floats:
            found = zip(chosen, self._scores(part), strict=True)
            parts = [np.float32(weight / scores.deviation) * scores.values for weight, scores in found if weight > 0]
            return np.asarray(sum(parts[1:], parts[0]), np.float32)

        histories = histories_of(self._model.schema)
        if not histories:
            return weights, None
        judge = CopyJudge(self._model, self._corpus, histories, self.k)
        found, copy, values["copy"] = judge.best(mixed, list(dict.fromkeys([weights, *_ALONE])))
        return (found, copy) if values["copy"] > values["mixture"] else (weights, None)

    def values(self, part: EasePart, weights: Weights) -> FloatArray:
        """Return the NDCG at k of the weighted sum for each query."""
        used = [
            (np.float32(weight / scores.deviation), scores.values)
            for weight, scores in zip(weights, self._scores(part), strict=True)
            if weight > 0
        ]

        def mixed(queries: IntArray) -> FloatArray:
            return np.asarray(sum(factor * values[queries] for factor, values in used))

        corpus, size = self._corpus, len(self._corpus.candidates)
        return self._ndcg(rank_by_scores(mixed, size, corpus.query_index, corpus.candidate_index, seen=corpus.seen))

    def _ndcg(self, ranks: FloatArray) -> FloatArray:
        corpus = self._corpus
        return retrieval_values(ranks, corpus.query_index, self.k, items=corpus.items)[1][f"ndcg@{self.k}"]

    def weights(self, part: EasePart) -> tuple[Weights, dict[str, float]]:
        """Return the mean of the weights that rank best, and the values of each part alone and of the mixture.

        It is the mean of those of the grid within one standard error of the best ones, each with a sum of 1. Then that
        of the network is halved: these rows have chosen its epoch, too, and EASE has one more part of the rows in the
        end.
        """
        tried: dict[Weights, FloatArray] = {}
        scores = self._scores(part)
        shortlist = Shortlist.of([each.values for each in scores], self._corpus, max(_DEPTH, 4 * self.k))

        def ndcg(weights: Weights) -> FloatArray:
            ranks = shortlist.ranks([w / each.deviation for w, each in zip(weights, scores, strict=True)])
            return self._ndcg(ranks)

        def best_of(options: Sequence[Weights]) -> Weights:
            for option in options:
                if max(option) > 0 and option not in tried:
                    tried[option] = ndcg(option)
            return max(tried, key=lambda option: float(tried[option].mean()))

        best_of(_ALONE)
        network = best_of([(w, 1.0, 0.0) for w in _GRID])
        best_of([(network[0], network[1], w) for w in _GRID] + [(1.0, 0.0, w) for w in _GRID])
        weights = _discounted(np.mean([np.divide(option, sum(option)) for option in near_best(tried)], axis=0))
        alone = {name: tried[key] for name, key in zip(("network", "ease", "popularity"), _ALONE, strict=True)}
        values = {**alone, "mixture": self.values(part, weights)}
        return weights, {name: float(found.mean()) for name, found in values.items()}


def _discounted(weights: Sequence[float]) -> Weights:
    """Return weights with a sum of 1 after the factor of the network; those of a network alone stay."""
    network, ease, popularity = weights
    total = _OPTIMISM * network + ease + popularity
    if ease + popularity == 0:
        return (1.0, 0.0, 0.0)
    return (_OPTIMISM * network / total, ease / total, popularity / total)


def near_best(values: Mapping[Any, FloatArray]) -> list[Any]:
    """Return the settings that the data cannot tell from the best one.

    These are within one standard error of the difference of two means over queries.

    Args:
        values: the metric of each query by settings.
    """
    best = values[max(values, key=lambda settings: float(values[settings].mean()))]
    behind = {settings: best - found for settings, found in values.items()}
    return [settings for settings, gap in behind.items() if gap.mean() <= gap.std() / math.sqrt(len(gap))]
