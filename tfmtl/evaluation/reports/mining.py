"""Hard negatives that a trained model finds in the corpus."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl._checks import require, require_positive_int
from tfmtl._identity import NO_KEY
from tfmtl.data import to_batch
from tfmtl.data.interchange import as_frame, as_rows
from tfmtl.data.negatives import negative_rows
from tfmtl.evaluation.corpus import Corpus, Seen, embed, locate, positions, positives
from tfmtl.evaluation.ranks import BLOCK_BYTES
from tfmtl.models import MultiTaskModel
from tfmtl.tasks.interests import best_scores, interests_in

_Ints = npt.NDArray[np.int64]


def mined_negatives(
    model: MultiTaskModel,
    table: pd.DataFrame,
    task: str | None = None,
    *,
    ranks: tuple[int, int] = (50, 200),
    per_row: int = 1,
    known: Any = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Return hard negatives: rows with candidates to which the model gives high ranks, but which are no positives.

    Train on the table and these rows together by `Retrieval(explicit_negatives=...)`, or on a ranking task with the
    same label, and call it again after some epochs, since the model changes. The candidates of the first ranks are
    often positives that were not observed; leave them out by `ranks`.

    For each row with a label of the task above 0 the corpus is ranked by the scores of the row's query, without the
    positives of its user in the table and in `known`, and without candidates that are in no row of the table. The new
    rows have candidates drawn uniformly, with replacement, from the ranks a to b, the query and context of their row,
    0 in the label, and no value in other labels and columns.

    Args:
        model: trained model with the candidates.
        table: one row per event, with the columns of the schema.
        task: name of the retrieval task; may be left out if there is one.
        ranks: a and b, from 1, both included. A query with fewer than a candidates gets no rows.
        per_row: new rows for each positive row.
        known: further table of positives, such as the validation rows.
        seed: seed of the draws.

    Returns:
        The new rows alone.

    Raises:
        ValueError: if an argument is out of range, or the task has no label column or positive.

    Reference:
        Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval", ICLR 2021,
        https://arxiv.org/abs/2007.00808, section 4; the search is exact here, and ranks bound false negatives.

    Cost: the scores of all pairs of a distinct query and a candidate, in blocks.
    """
    table = as_rows(table, "table")
    require_positive_int(per_row=per_row)
    first, last = ranks
    require(0 < first <= last, "`ranks` must be two numbers a <= b, from 1.", ranks=ranks)
    name = _task_of(model, task)
    batch = to_batch(table, model.preprocessor)
    corpus = locate(model, name, batch)
    seen = Seen.from_frame(model, name, table if known is None else pd.concat([table, as_frame(known)]))
    rows = positives(batch, name)
    rows = rows[batch.ids["candidate"].numpy()[rows] != NO_KEY]
    examples = _examples(corpus, batch.ids["candidate"].numpy())
    points = np.random.default_rng(seed).random([len(rows), per_row])
    search = _Search(model, name, corpus, seen.spread(corpus.users, corpus.candidates), examples < 0)
    chosen = search.draw(points, first, last)
    made = chosen >= 0
    label = model.schema.label(name).column
    source = np.repeat(rows, per_row)[made.ravel()]
    return negative_rows(table, model.schema, [label], source, examples[chosen[made]])


def _task_of(model: MultiTaskModel, task: str | None) -> str:
    """Return the name of the retrieval task, which must have a label."""
    names = [each.name for each in model.tasks if each.retrieves]
    require(
        task in names if task is not None else len(names) == 1,
        "`task` must name one of the model's retrieval tasks.",
        task=task,
        tasks=names,
    )
    name = names[0] if task is None else task
    rule = f"The retrieval task {name!r} has no label; add one, since without it every row is a positive."
    require(name in model.schema.tasks, rule)
    return name


def _examples(corpus: Corpus, items: _Ints) -> _Ints:
    """Return a row of each candidate of the corpus [C] among rows with the keys `items` [n]; -1 without one."""
    held, example = np.unique(positions(corpus.candidates, items), return_index=True)
    found = np.full(len(corpus.candidates), -1)
    found[held[held >= 0]] = example[held >= 0]
    return found


class _Search(NamedTuple):
    """The exact search of the candidates of the positives' queries.

    Attributes:
        model, task, corpus: the towers, the retrieval task and its positives.
        seen: (query indices, candidate positions) of the pairs that are no negatives, by query.
        absent: whether a candidate is left out, bool [C].
    """

    model: MultiTaskModel
    task: str
    corpus: Corpus
    seen: tuple[_Ints, _Ints]
    absent: npt.NDArray[np.bool_]

    def draw(self, points: npt.NDArray[np.float64], first: int, last: int) -> _Ints:
        """Return candidates [n, k] from the ranks of each positive's query by points in [0, 1) [n, k]; -1 for none."""
        corpus = self.corpus
        query = embed(self.model.tower("query"), corpus.queries)[self.task].astype(np.float32)
        candidate = embed(self.model.tower("candidate"), corpus.candidates.features)[self.task].astype(np.float32)
        order = np.argsort(corpus.query_index, kind="stable")
        found = np.full(points.shape, -1)
        size = max(1, BLOCK_BYTES // (8 * len(candidate) * interests_in(query, candidate)))
        for start in range(0, len(query), size):
            block = np.arange(start, min(start + size, len(query)))
            lists, count = self._lists(query, candidate, block, first, last)
            bounds = np.searchsorted(corpus.query_index[order], [start, start + size])
            rows = order[slice(*bounds)]
            own = corpus.query_index[rows] - start
            at = (points[rows] * count[own, np.newaxis]).astype(np.int64)
            found[rows] = np.where(count[own, np.newaxis] > 0, lists[own[:, np.newaxis], at], -1)
        return found

    def _lists(self, query: Any, candidate: Any, block: _Ints, first: int, last: int) -> tuple[_Ints, _Ints]:
        """Return the candidates of the ranks [b, last - first + 1], and their number [b]."""
        scores = best_scores(query[block], candidate)
        if self.corpus.copied is not None:
            scores = self.corpus.copied.add(scores, self.corpus.queries, block)
        start, end = np.searchsorted(self.seen[0], [block[0], block[-1] + 1])
        scores[self.seen[0][start:end] - block[0], self.seen[1][start:end]] = -np.inf
        scores[:, self.absent] = -np.inf
        last = min(last, scores.shape[1])
        top = np.argpartition(-scores, last - 1, axis=1)[:, :last]
        values = np.take_along_axis(scores, top, axis=1)
        top = np.take_along_axis(top, np.argsort(-values, axis=1, kind="stable"), axis=1)[:, first - 1 :]
        kept = np.isfinite(np.take_along_axis(scores, top, axis=1)).sum(axis=1)
        return (top if top.shape[1] else np.full([len(block), 1], -1)), kept
