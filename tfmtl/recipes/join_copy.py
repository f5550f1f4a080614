"""The copy part of a retrieval task, chosen by ranks on validation rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.data import to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.copied_scores import CopiedScores, rows_of_ids
from tfmtl.evaluation.corpus import Corpus, embed, locate
from tfmtl.evaluation.counting import FloatArray, IntArray
from tfmtl.evaluation.ranks import rank_by_scores
from tfmtl.models import MultiTaskModel
from tfmtl.models.inputs import check_tasks, histories_of
from tfmtl.models.keras_arguments import require_compiled
from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.recipes.ease_part import Floats
from tfmtl.tasks import HistoryCopy, UserNeighbors
from tfmtl.tasks.copies import Copy
from tfmtl.tasks.interests import best_scores

Key = TypeVar("Key", bound=Hashable)

WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Weights to compare, in standard deviations of the other scores."""
HALF_LIVES = (None, 200.0, 50.0, 10.0)
_SAMPLE = 256
_MOST_SCORES = 50_000_000


@dataclasses.dataclass(frozen=True)
class JoinedCopy:
    """The result of `join_copy`.

    Attributes:
        model: the compiled model with the chosen part in its retrieval scores, or the given one if none is better.
        copy: the part, or None.
        values: the metric on validation of `model`, the dot products alone, and of `copy`, with the part.
        metric: the name of the metric.
    """

    model: MultiTaskModel
    copy: HistoryCopy | None
    values: dict[str, float]
    metric: str

    def __str__(self) -> str:
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.values.items())
        part = "no copies" if self.copy is None else in_words(self.copy)
        return f"Retrieval scores have {part}; {self.metric} on validation: {found}."


def join_copy(
    model: MultiTaskModel,
    validation: Any,
    *,
    task: str | None = None,
    history: str | None = None,
    k: int = 10,
    max_queries: int = 1000,
    seed: int = 0,
) -> JoinedCopy:
    """Add to a retrieval task the copy part that ranks best on validation, see `HistoryCopy`.

    Use it where users choose the same candidates again; `join_ease` and `fit` include it. NDCG@k on validation chooses
    the half-life and the weight on a grid; the model stays as it is if no part is better.

    Args:
        model: trained, compiled model with a retrieval task and a history of candidates.
        validation: table outside its training, with the history of each row before the row; see `with_histories`.
        task: the retrieval task; by default the only one.
        history: the query's list of candidate ids; by default the best of all.
        k, max_queries: cut-off of the NDCG, and the number of validation queries that it is measured on.
        seed: seed of the draw of queries.

    Raises:
        RuntimeError: if the model is not compiled.
        ValueError: if the model has no such task or history, or the table has no positive of it.

    Cost: about 50 rankings of at most `max_queries` queries and 50 million scores.
    """
    require_positive_int(k=k, max_queries=max_queries)
    require_compiled(model, "join_copy")
    names = [t.name for t in model.tasks if t.retrieves]
    require(task is not None or len(names) == 1, "Name one of the retrieval tasks by `task`.", tasks=names)
    name = task or names[0]
    require_known([name], names, "retrieval task", "`task`")
    histories = histories_of(model.schema)
    require(bool(histories), "The schema has no history to copy from: give it an `IdSequence` of the candidate's ids.")
    require_known(() if history is None else (history,), histories, "history", "`history`")
    labels = [name] if name in model.schema.tasks else []
    batch = to_batch(as_frame(validation), model.preprocessor, labels=labels)
    corpus = sampled(locate(model, name, batch), max_queries, seed)
    query = embed(model.tower("query"), corpus.queries)[name].astype(np.float32)
    candidate = embed(model.tower("candidate"), corpus.candidates.features)[name].astype(np.float32)
    scores = best_scores(query, candidate)
    judge = CopyJudge(model, corpus, histories if history is None else [history], k)
    before = judge.value(scores, None)
    _, copy, value = judge.best(lambda _: scores, [""])
    found = {"model": before, "copy": value}
    metric = f"{name} ndcg@{judge.k}"
    if value <= before:
        return JoinedCopy(model, None, found, metric)
    return JoinedCopy(with_copy(model, name, copy), copy, found, metric)


def in_words(copy: Copy) -> str:
    """Return the copied history and the half-life of its entries, or the length of the users' lists."""
    if isinstance(copy, UserNeighbors):
        return f"{copy.width} neighbors of each user"
    decay = "" if copy.half_life is None else f" (half-life {copy.half_life:g} entries)"
    return f"copies of {copy.history!r}{decay}"


def with_copy(model: MultiTaskModel, task: str, copy: Copy | None) -> MultiTaskModel:
    """Return a compiled model with the same network and state, and another copy part of a retrieval task."""
    copied = model.with_network(model.network)
    for own in copied.tasks:
        if own.name == task:
            own.copy = copy
    check_tasks(copied.tasks, copied.network, copied.preprocessor)
    copied.compile(fresh_copy(model.optimizer))
    return copied


class CopyJudge:
    """Ranks the positives of a corpus by given scores and copied parts.

    Args:
        model: holds the vocabulary and the schema.
        corpus: the positives.
        histories: names of the query features to copy from.
        k: cut-off of the NDCG; of a smaller corpus, its size.
    """

    def __init__(self, model: MultiTaskModel, corpus: Corpus, histories: Sequence[str], k: int) -> None:
        self.k = min(k, len(corpus.candidates))
        self._corpus, self.histories = corpus, list(histories)
        self._rows = rows_of_ids(model, corpus.candidates)

    def value(self, scores: Floats, copy: HistoryCopy | None) -> float:
        """Return the NDCG at k of scores [queries, candidates] with a copied part."""
        corpus = self._corpus
        part = None if copy is None else CopiedScores(copy, self._rows)

        def mixed(chosen: IntArray) -> FloatArray:
            block = np.array(scores[chosen], np.float32)
            return block if part is None else part.add(block, corpus.queries, chosen)

        size = len(corpus.candidates)
        ranks = rank_by_scores(mixed, size, corpus.query_index, corpus.candidate_index, seen=corpus.seen)
        return corpus.metrics(ranks, self.k)[f"ndcg@{self.k}"]

    def best(self, scores: Callable[[Key], Floats], keys: Sequence[Key]) -> tuple[Key, HistoryCopy, float]:
        """Return the key of the best scores beside a copied part, this part, and the NDCG of both together.

        The scores of the first key decide on history and half-life, with every weight; then those of each key compare
        every weight.

        Args:
            scores: function from a key to scores [queries, candidates]; one result is held at a time.
            keys: the keys, the most promising first.
        """
        tried: dict[tuple[Key, HistoryCopy], float] = {}

        def compare(key: Key, half_lives: Sequence[float | None], histories: Sequence[str]) -> None:
            base = scores(key)
            unit = deviation(base)
            for history, half_life, weight in itertools.product(histories, half_lives, WEIGHTS):
                copy = HistoryCopy(history, weight * unit, half_life)
                tried[key, copy] = self.value(base, copy)

        compare(keys[0], HALF_LIVES, self.histories)
        _, chosen = max(tried, key=tried.__getitem__)
        for key in keys[1:]:
            compare(key, [chosen.half_life], [chosen.history])
        key, copy = max(tried, key=tried.__getitem__)
        return key, copy, tried[key, copy]


def deviation(scores: Floats) -> float:
    """Return the standard deviation of scores [queries, candidates], 1 if they are equal."""
    found = float(np.std(scores[:_SAMPLE]))
    return found if found > 0 else 1.0


def sampled(corpus: Corpus, count: int, seed: int) -> Corpus:
    """Return the positives of at most `count` queries, drawn at random."""
    total, count = int(corpus.query_index.max()) + 1, min(count, max(1, _MOST_SCORES // len(corpus.candidates)))
    if total <= count:
        return corpus
    chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    place = np.full(total, -1)
    place[chosen] = np.arange(count)
    kept = place[corpus.query_index] >= 0
    seen = corpus.seen
    if seen is not None:
        within = place[seen[0]] >= 0
        seen = place[seen[0]][within], seen[1][within]
    return dataclasses.replace(
        corpus,
        queries={name: column[chosen] for name, column in corpus.queries.items()},
        query_index=place[corpus.query_index][kept],
        items=corpus.items[kept],
        candidate_index=corpus.candidate_index[kept],
        seen=seen,
    )
