"""The best candidates of each part of a score, by which weighted sums of the parts are ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfmtl.evaluation.corpus import Corpus
from tfmtl.evaluation.counting import FloatArray, IntArray, blocks

Floats = npt.NDArray[np.float32]

_MOST_SCORES = 5_000_000


@dataclasses.dataclass(frozen=True)
class Shortlist:
    """The candidates of each query that one of the parts of a score has among its best.

    Use it to compare many weighted sums of the same parts: a candidate near the top of a sum is usually near the top of
    one of its parts. Ranks above the depth are counted too low. All positives of a query are in its shortlist, so that
    their ranks fit together, however many they are.

    Attributes:
        scores: [parts, queries, m], of the candidates of the shortlist.
        columns: [queries, m] positions in the corpus; -1 for a position that the row has already.
        own: [parts, n], of the positives.
        query_index, candidate_index: [n], as in `Corpus`.
    """

    scores: Floats
    columns: IntArray
    own: Floats
    query_index: IntArray
    candidate_index: IntArray

    @classmethod
    def of(cls, parts: Sequence[Floats], corpus: Corpus, depth: int) -> Shortlist:
        """Return the union of the `depth` best candidates of each part and the positives, without the seen ones.

        Args:
            parts: scores [queries, candidates].
            corpus: the positives, and the seen pairs.
            depth: number of candidates of each part and query, at most.
        """
        total, size = parts[0].shape
        depth = min(depth, size)
        positives = _padded(*_positives(corpus), total)
        found = [
            _best(parts, corpus, positives, first, last, depth)
            for first, last in blocks(total, max(1, _MOST_SCORES // size))
        ]
        scores, columns = (np.concatenate(each, axis=-2) for each in zip(*found, strict=True))
        own = np.stack([part[corpus.query_index, corpus.candidate_index] for part in parts])
        return cls(scores, columns, own, corpus.query_index, corpus.candidate_index)

    def ranks(self, weights: Sequence[float]) -> npt.NDArray[np.float64]:
        """Return the ranks [n] of the positives by a weighted sum, from 0, as in `rank_positives`."""
        used = [(np.float32(weight), part) for part, weight in enumerate(weights) if weight > 0]
        mixed = np.asarray(sum(weight * self.scores[part] for weight, part in used))
        own = np.asarray(sum(weight * self.own[part] for weight, part in used))
        mixed[self.columns < 0] = -np.inf
        ranks = np.empty(len(own))
        for first, last in blocks(len(own), max(1, _MOST_SCORES // mixed.shape[1])):
            rows, bound = self.query_index[first:last], own[first:last, None]
            ties = (mixed[rows] == bound) & (self.columns[rows] != self.candidate_index[first:last, None])
            ranks[first:last] = (mixed[rows] > bound).sum(axis=1) + ties.sum(axis=1) / 2
        ranks[self.candidate_index < 0] = np.inf
        return ranks


def _best(
    parts: Sequence[Floats], corpus: Corpus, positives: IntArray, first: int, last: int, depth: int
) -> tuple[Floats, IntArray]:
    """Return the scores [parts, b, m] and columns [b, m] of the shortlists of some queries."""
    seen, positive = (_within(pairs, first, last) for pairs in (corpus.seen, _positives(corpus)))
    masked = []
    for part in parts:
        block: FloatArray = np.array(part[first:last])
        kept = block[positive]
        block[seen] = -np.inf
        block[positive] = kept  # a positive is kept in its list even if it was seen
        masked.append(block)
    tops = [np.argpartition(block, block.shape[1] - depth, axis=1)[:, -depth:] for block in masked]
    own = np.where(positives[first:last] < 0, tops[0][:, :1], positives[first:last])
    columns = np.sort(np.concatenate([*tops, own], axis=1), axis=1)
    scores = np.stack([np.take_along_axis(block, columns, axis=1) for block in masked])
    again = np.pad(columns[:, 1:] == columns[:, :-1], ((0, 0), (1, 0)))
    return scores, np.where(again | ~np.isfinite(scores[0]), -1, columns)


def _positives(corpus: Corpus) -> tuple[IntArray, IntArray]:
    known = corpus.candidate_index >= 0
    return corpus.query_index[known], corpus.candidate_index[known]


def _padded(rows: IntArray, columns: IntArray, total: int) -> IntArray:
    """Return the columns of each of `total` rows [total, longest], padded by -1."""
    order = np.argsort(rows, kind="stable")
    rows, count = rows[order], np.bincount(rows, minlength=total)
    found = np.full([total, int(count.max(initial=0))], -1)
    found[rows, np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)] = columns[order]
    return found


def _within(pairs: tuple[IntArray, IntArray] | None, first: int, last: int) -> tuple[IntArray, IntArray]:
    """Return the rows, from 0, and columns of the pairs of some queries."""
    rows, columns = (np.zeros(0, np.int64),) * 2 if pairs is None else pairs
    chosen = (rows >= first) & (rows < last) & (columns >= 0)
    return rows[chosen] - first, columns[chosen]
