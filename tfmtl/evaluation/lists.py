"""Ranking metrics of given lists: groups of candidates with scores and grades."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl.evaluation.retrieval_metrics import cut_offs
from tfmtl.tasks.label_metrics import observed, require_vector

_Floats = npt.NDArray[np.float64]


def list_metrics(
    grades: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike, ks: Sequence[int] | int = (10,)
) -> dict[str, float]:
    r"""Return ranking metrics of lists, such as NDCG, MAP and MRR, averaged over the lists.

    Use it for lists that are given, such as impressions; for the whole corpus use `evaluate`. Each group is a list,
    ordered by score. A row is relevant if its grade is above 0. With the grades g_1, g_2, ... of a list in its order:

    - `precision@k` = #{relevant in the first k} / k
    - `recall@k` = #{relevant in the first k} / #{relevant}
    - `hit_rate@k` = 1 if one of the first k is relevant else 0
    - `ndcg@k` = sum_{j <= k} g_j / log2(j + 1), divided by that of the best order
    - `map` = mean over the relevant rows of the precision at their positions
    - `mrr` = 1 / position of the first relevant row

    Groups without a relevant row do not count, because all of their orders are equally good. If scores are tied,
    `ndcg` is the mean over the orders of the tied rows; the other metrics put the relevant rows of a tie last, so that
    a constant score has no advantage.

    Args:
        grades: [n] non-negative; rows with the grade NaN are left out.
        scores: [n]; the highest score is first.
        groups: [n] list of each row, of any sortable dtype.
        ks: cut-offs, integers from 1.

    Returns:
        `{metric: value}`; NaN if no group has a relevant row.

    Raises:
        ValueError: if a grade is negative, a score is not finite, lengths differ or a cut-off is below 1.

    Example:
        >>> found = list_metrics([0, 1, 1, 0], [0.9, 0.8, 0.1, 0.2], ["a", "a", "b", "b"], ks=[1, 2])
        >>> round(found["ndcg@2"], 4), found["precision@1"], found["map"]
        (0.6309, 0.0, 0.5)

    Reference: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 2002; ties:
    McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
    Scores", ECIR 2008.

    Cost: two sorts of the rows.
    """
    rows = observed(grades, scores)
    require_vector(rows)
    require(bool((rows.labels >= 0).all()), "Grades must be 0 or more, or NaN.", grades=rows.labels)
    ks = cut_offs(ks)
    require(len(ks) > 0, "`ks` must hold at least one cut-off.", ks=ks)
    for k in ks:
        require_positive_int(k=k)
    every = np.asarray(groups)
    require(every.shape == np.shape(grades), "`groups` must name one list for each row.", groups=every.shape)
    _, group = np.unique(every[~np.isnan(np.asarray(grades, np.float64))], return_inverse=True)
    lists = _Lists(group, rows.labels, rows.predictions)
    metrics: dict[str, float] = {}
    for k in ks:
        metrics |= lists.at(k)
    return {**metrics, **lists.whole()}


class _Lists:
    """The rows in the order of group, score, and grade within ties."""

    def __init__(self, group: npt.NDArray[np.int64], grade: _Floats, score: _Floats) -> None:
        self.count = int(group.max(initial=-1)) + 1
        order = np.lexsort((grade, -score, group))
        self.group, self.grade, self.score = group[order], grade[order], score[order]
        self.position = self._positions(self.group)  # from 0
        self.relevant = self.grade > 0
        self.size = self.sum(self.relevant)
        self.counted = self.size > 0
        best = np.lexsort((-grade, group))
        self.best, self.best_group = grade[best], group[best]

    def _positions(self, group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        sizes = np.bincount(group, minlength=self.count)
        return np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    def sum(self, values: npt.NDArray[np.generic]) -> _Floats:
        return np.bincount(self.group, weights=values, minlength=self.count).astype(np.float64)

    def mean(self, values: _Floats) -> float:
        return float(values[self.counted].mean()) if self.counted.any() else float("nan")

    def at(self, k: int) -> dict[str, float]:
        hits = self.sum(self.relevant & (self.position < k))
        discount = np.where(self.position < k, 1 / np.log2(self.position + 2), 0)
        ideal = np.bincount(self.best_group, weights=self.best * discount, minlength=self.count)
        gain = self.sum(self.grade * self._shared(discount))
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                f"precision@{k}": self.mean(hits / k),
                f"recall@{k}": self.mean(hits / self.size),
                f"hit_rate@{k}": self.mean((hits > 0).astype(float)),
                f"ndcg@{k}": self.mean(gain / ideal),
            }

    def whole(self) -> dict[str, float]:
        found: npt.NDArray[np.float64] = np.cumsum(self.relevant) - np.repeat(
            np.cumsum(self.size) - self.size, np.bincount(self.group)
        )
        precision = np.where(self.relevant, found / (self.position + 1), 0)
        first = self.relevant & (found == 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "map": self.mean(self.sum(precision) / self.size),
                "mrr": self.mean(self.sum(first / (self.position + 1))),
            }

    def _shared(self, discount: _Floats) -> _Floats:
        """Return the mean discount over the rows that are tied with each row."""
        if not len(discount):
            return discount
        new = np.append(True, (self.group[1:] != self.group[:-1]) | (self.score[1:] != self.score[:-1]))
        start = np.flatnonzero(new)
        length = np.diff(np.append(start, len(discount)))
        return np.repeat(np.add.reduceat(discount, start) / length, length)
