"""Counterfactuals of recommendations: the smallest change of a request that takes a candidate out of the list."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_known, require_positive_int, require_several
from tfmtl._keras import tf, traced
from tfmtl.data.frames import rows_of
from tfmtl.models import MultiTaskModel
from tfmtl.models.explained import Floats, chosen_tasks, encoded_rows, rows_at
from tfmtl.models.inputs import require_candidates

_PAIRS = 1 << 18  # of queries and candidates that are scored at once


@dataclasses.dataclass(frozen=True)
class Counterfactual:
    """The smallest set of items and features, found for one row, without which a candidate leaves the list.

    Attributes:
        positions: positions of the removed items in the history, from 0.
        items: their ids, None for an id outside the vocabulary.
        features: names of the removed features.
        rank_before, rank_after: rank of the candidate before and after the removal, from 1.
        found: whether the removal takes the candidate out; if not, everything was removed in vain.
        smallest: whether all smaller sets were tried.
    """

    positions: list[int]
    items: list[Any]
    features: list[str]
    rank_before: int
    rank_after: int
    found: bool
    smallest: bool


def counterfactuals(
    model: MultiTaskModel,
    table: Any,
    task: str,
    *,
    history: str | None = None,
    features: Sequence[str] = (),
    aligned: Sequence[str] = (),
    k: int = 10,
    budget: int = 2000,
) -> list[Counterfactual]:
    """Find, for the candidate of each row, the smallest set of history items or features that its rank depends on.

    Use it to answer why a candidate is recommended: "because of these films". The set is found greedily, each step
    removing the part with the largest loss of margin over the first candidate outside the list; then parts that are not
    needed return, and then all smaller sets are tried while `budget` allows. Every set is verified by ranking all
    candidates again.

    Args:
        model: a trained model with candidates.
        table: requests, each with a candidate among its best k: a table (pandas, PyArrow, Polars), or a `Batch`.
        task: the task that ranks the candidates, by its served value.
        history: list of ids of which single items may be removed; those behind them move up. None for no items.
        features: query features that may be removed, which are then missing.
        aligned: other lists with an entry per item, such as ages, which lose the same positions.
        k: length of the list.
        budget: sets per row that are tried at most after the greedy search; for 10 parts all sets are below 1024.

    Returns:
        One counterfactual for each row.

    Raises:
        ValueError: if the task, a list or a feature does not exist, no part may be removed, or a candidate is not among
            the best k.

    Example:
        >>> # found = counterfactuals(model, test.head(1), "watched", history="recent_films")
        >>> # found[0].items

    Cost: at most n (n + 3) / 2 and `budget` rankings of all candidates for n parts.

    Reference: Ghazimatin et al., "PRINCE: Provider-side Interpretability with Counterfactual Explanations in
    Recommender Systems", WSDM 2020, https://arxiv.org/abs/1911.08378 (the question; the search here suits any model).
    """
    require_several(features=features, aligned=aligned)
    require_positive_int(k=k, budget=budget)
    ranking = _Ranking(model, chosen_tasks(model, [task])[0], k)
    _check_parts(model, history, features, aligned)
    batch = encoded_rows(model, table)
    targets = ranking.positions(batch)
    removal = _Removal(model, history, features, aligned)
    return [
        _search(ranking, removal, rows_at(batch.features, [i]), int(targets[i]), budget) for i in range(rows_of(batch))
    ]


def _check_parts(model: MultiTaskModel, history: str | None, features: Sequence[str], aligned: Sequence[str]) -> None:
    """Raise unless the parts that may be removed exist."""
    known = {f.name: f for f in model.schema.query}
    lists = [name for name, f in known.items() if f.vocabulary is not None and f.encoded_shape]
    rule = "The model has no list of ids among its query features; leave `history` out and name `features`."
    require(history is None or bool(lists), rule, history=history)
    require_known([] if history is None else [history], lists, "list of ids", "the query features")
    require_known((*features, *aligned), known, "query feature", "the schema")
    require(history is not None or bool(features), "Nothing may be removed; give a `history` or `features`.")
    require(
        history not in features, f"{history!r} is a history, of which items are removed; leave it out of `features`."
    )


class _Ranking:
    """Scores of all candidates for queries."""

    def __init__(self, model: MultiTaskModel, task: Any, k: int) -> None:
        corpus = require_candidates(model)
        require(k < len(corpus), f"`k` must be below the number of candidates, {len(corpus)}.", k=k)
        self.model, self.task, self.k, self.corpus = model, task, k, corpus
        self._towers = (model.tower("query"), model.tower("candidate")) if task.retrieves else None
        self._scores = traced(self._of_queries, reduce_retracing=True)

    def positions(self, batch: Any) -> npt.NDArray[np.int32]:
        """Return the positions of the rows' candidates in the corpus."""
        require("candidate" in batch.ids, "`table` has no ids of candidates.")
        found: npt.NDArray[np.int32] = self.corpus.positions(batch.ids["candidate"]).numpy()
        require(bool((found >= 0).all()), "`table` has a candidate outside the corpus.", row=int(np.argmin(found)))
        return found

    def _of_queries(self, queries: dict[str, tf.Tensor]) -> tf.Tensor:
        rows, size = tf.shape(next(iter(queries.values())))[0], len(self.corpus)
        pairs = {name: tf.repeat(column, size, axis=0) for name, column in queries.items()}
        for name, column in self.corpus.features.items():
            pairs[name] = tf.tile(column, [rows, *[1] * (len(column.shape) - 1)])
        if self._towers is None:
            outputs = self.model(pairs, training=False)[self.task.name]
        else:
            query, candidate = self._towers
            vectors = query({name: queries[name] for name in query.input}, training=False)[self.task.name]
            found = candidate(self.corpus.features, training=False)[self.task.name]
            outputs = {"query": tf.repeat(vectors, size, axis=0), "candidate": tf.tile(found, [rows, 1])}
        served = self.task.served_value(outputs, pairs, pairs[self.model.schema.candidate_id])
        return tf.reshape(tf.cast(served, tf.float32), [rows, size])

    def margins(self, queries: dict[str, tf.Tensor], target: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return the margins of a candidate over the first one outside the list, and its ranks, by query."""
        rows, step = len(next(iter(queries.values()))), max(1, _PAIRS // len(self.corpus))
        scores = np.concatenate(
            [self._scores(rows_at(queries, np.arange(i, min(i + step, rows)))).numpy() for i in range(0, rows, step)]
        ).astype(np.float64)
        own = scores[:, target]
        others = np.delete(scores, target, axis=1)
        bound = np.partition(others, -self.k, axis=1)[:, -self.k]
        return own - bound, 1 + (others > own[:, np.newaxis]).sum(axis=1)


class _Removal:
    """Removal of items and features from an encoded row."""

    def __init__(self, model: MultiTaskModel, history: str | None, features: Sequence[str], aligned: Any) -> None:
        self.history, self.features = history, list(features)
        self.lists = [] if history is None else [history, *aligned]
        self.missing = {name: model.preprocessor.encoded_missing(name) for name in (*self.lists, *features)}
        owner = None if history is None else model.schema.features[history].vocabulary
        self.ids = None if owner is None else model.preprocessor.vocabulary(owner)

    def parts(self, row: dict[str, tf.Tensor]) -> list[int | str]:
        """Return the parts that can be removed: positions of items, and names of features."""
        items = [] if self.history is None else np.flatnonzero(row[self.history].numpy()[0]).tolist()
        return [*items, *self.features]

    def item(self, row: dict[str, tf.Tensor], position: int) -> Any:
        """Return the id at a position of the history; None outside the vocabulary."""
        index = int(row[str(self.history)].numpy()[0, position]) - 2
        return None if index < 0 or self.ids is None else self.ids[index]

    def without(self, row: dict[str, tf.Tensor], sets: Sequence[Any]) -> dict[str, tf.Tensor]:
        """Return one row for each set of removed parts."""
        changed = {name: np.repeat(column.numpy(), len(sets), axis=0) for name, column in row.items()}
        for i, removed in enumerate(sets):
            items = [part for part in removed if not isinstance(part, str)]
            for name in self.lists:
                kept = np.delete(changed[name][i], items, axis=0)
                changed[name][i] = np.concatenate([kept, self.missing[name][: len(items)]])
            for name in removed:
                if isinstance(name, str):
                    changed[name][i] = self.missing[name]
        return {name: tf.constant(column) for name, column in changed.items()}


def _search(ranking: _Ranking, removal: _Removal, row: dict[str, Any], target: int, budget: int) -> Counterfactual:
    """Return the smallest set that was found for one row."""

    def judged(sets: Sequence[Any]) -> tuple[Floats, Any]:
        return ranking.margins(removal.without(row, sets), target)

    before = int(judged([()])[1][0])
    rule = f"The candidate must be among the best {ranking.k} of its request; raise `k`."
    require(before <= ranking.k, rule, rank=before)
    parts = removal.parts(row)
    chosen: tuple[Any, ...] = ()
    rank = before
    while rank <= ranking.k and len(chosen) < len(parts):
        sets = [(*chosen, part) for part in parts if part not in chosen]
        margins, ranks = judged(sets)
        best = int(np.argmin(np.where(ranks > ranking.k, margins - 1e9, margins)))
        chosen, rank = sets[best], int(ranks[best])
    found, smallest = rank > ranking.k, False
    if found:
        chosen = _pruned(chosen, judged, ranking.k)
        chosen, smallest = _smaller(chosen, parts, judged, ranking.k, budget)
        rank = int(judged([chosen])[1][0])
    items = sorted(part for part in chosen if not isinstance(part, str))
    names = [part for part in chosen if isinstance(part, str)]
    return Counterfactual(items, [removal.item(row, p) for p in items], names, before, rank, found, smallest)


def _pruned(chosen: tuple[Any, ...], judged: Any, k: int) -> tuple[Any, ...]:
    """Return the set without parts that are not needed."""
    while len(chosen) > 1:
        sets = [tuple(part for part in chosen if part != left) for left in chosen]
        enough = np.flatnonzero(judged(sets)[1] > k)
        if not len(enough):
            break
        chosen = sets[int(enough[0])]
    return chosen


def _smaller(chosen: Any, parts: Sequence[Any], judged: Any, k: int, budget: int) -> tuple[Any, bool]:
    """Return a smallest set if all smaller sets fit the budget, and whether they did."""
    for size in range(1, len(chosen)):
        budget -= math.comb(len(parts), size)
        if budget < 0:
            return chosen, False
        for sets in _chunks(itertools.combinations(parts, size)):
            enough = np.flatnonzero(judged(sets)[1] > k)
            if len(enough):
                return sets[int(enough[0])], True
    return chosen, True


def _chunks(sets: Iterator[Any], size: int = 256) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(sets, size)):
        yield chunk
