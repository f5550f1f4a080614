"""Tuned: a baseline of retrieval with arguments chosen on held-out interactions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfmtl._checks import require
from tfmtl._identity import NO_KEY
from tfmtl.baselines.als import ALS
from tfmtl.baselines.ease import EASE
from tfmtl.baselines.interactions import Floats, Interactions, Ints, Weighting
from tfmtl.baselines.item_knn import ItemKNN
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.evaluation.counting import FloatArray
from tfmtl.evaluation.ranks import rank_by_scores
from tfmtl.evaluation.retrieval_metrics import retrieval_values

_HELD_OUT = 0.1
_K = 10
_MOST_QUERIES = 1000


class Tuned(RetrievalBaseline):
    """A baseline with the arguments that rank best on a tenth of its own interactions, fitted again to all of them.

    Use it for claims about networks: baselines with default arguments are easier to exceed. `compare(tune=True)` does.

    The newest tenth is held out, or a random tenth if the interactions have no times. NDCG@10 of at most 1000 of its
    users decides; of equal options the first is chosen.

    Args:
        options: baselines of one class with different arguments.
        keep_seen: whether the candidates that a user had before stay in the lists that are compared.
        seed: seed of the draws.

    Attributes:
        chosen: the best option; after `fit`.

    Raises:
        ValueError: if there is no option, or the options are of several classes.

    Example:
        >>> from tfmtl.baselines import ItemKNN
        >>> users = np.repeat(np.arange(40), 3)
        >>> items = (users % 2) * 3 + np.tile([0, 1, 2], 40)  # two tastes of three items each
        >>> options = [ItemKNN(neighbors=1, shrinkage=1e9), ItemKNN(neighbors=2)]
        >>> Tuned(options).fit(Interactions(users, items, num_candidates=6)).chosen.neighbors
        2

    Cost: a fit for each option and one more, and a ranking for each option.
    """

    def __init__(self, options: Sequence[RetrievalBaseline], keep_seen: bool = False, seed: int = 0) -> None:
        classes = sorted({type(option).__name__ for option in options})
        require(len(classes) == 1, "`options` must hold baselines of one class.", classes=classes)
        self.options = list(options)
        self.keep_seen = keep_seen
        self.seed = seed
        self.chosen = self.options[0]

    @property
    def name(self) -> str:
        """The name of the options' class."""
        return self.options[0].name

    def _fit(self, interactions: Interactions) -> None:
        held_out = _HeldOut.of(interactions, self.keep_seen, self.seed) if len(self.options) > 1 else None
        if held_out is not None:
            self.chosen = self.options[int(np.argmax([held_out.value(option) for option in self.options]))]
        self.chosen.fit(interactions)

    def _for_strangers(self) -> Floats:
        return self.chosen._for_strangers()

    def _scores(self, rows: Ints) -> FloatArray:
        return self.chosen._scores(rows)


class _HeldOut(NamedTuple):
    """Interactions to learn from, and later or random ones to choose by.

    Attributes:
        rest: the interactions to learn from.
        users: keys of users [Q].
        positives: query and candidate of each pair to rank, [2, n].
        seen: query and candidate of each pair to leave out of the lists, [2, m], or None.
    """

    rest: Interactions
    users: Ints
    positives: Ints
    seen: Ints | None

    @classmethod
    def of(cls, every: Interactions, keep_seen: bool, seed: int) -> _HeldOut | None:
        """Hold out a tenth; return None if there is nothing to learn from or to rank."""
        rng = np.random.default_rng(seed)
        users, items, size = np.asarray(every.users), np.asarray(every.candidate_index), every.num_candidates
        times = None if every.times is None else np.asarray(every.times)
        out = rng.random(len(users)) < _HELD_OUT if times is None else times > np.quantile(times, 1 - _HELD_OUT)
        if out.all():
            return None
        rest = Interactions(users[~out], items[~out], size, None if times is None else times[~out])
        keys = np.unique(users[out & (users != NO_KEY)])
        keys = np.sort(rng.choice(keys, min(_MOST_QUERIES, len(keys)), replace=False))
        pairs = np.searchsorted(keys, users) * size + items
        judged, known = (np.unique(pairs[part & np.isin(users, keys)]) for part in (out, ~out))
        if not keep_seen:
            judged = np.setdiff1d(judged, known)
        if not len(judged):
            return None
        seen = None if keep_seen else np.stack(np.divmod(known, size))
        return cls(rest, keys, np.stack(np.divmod(judged, size)), seen)

    def value(self, option: RetrievalBaseline) -> float:
        """Return the NDCG at 10 of a baseline that is fitted here."""
        scorer, size = option.fit(self.rest).scorer(self.users), self.rest.num_candidates
        seen = None if self.seen is None else (self.seen[0], self.seen[1])
        ranks = rank_by_scores(scorer, size, self.positives[0], self.positives[1], seen=seen)
        k = min(_K, size)
        return float(retrieval_values(ranks, self.positives[0], k)[1][f"ndcg@{k}"].mean())


def grids(repeated: bool, seed: int) -> list[list[RetrievalBaseline]]:
    """Return the options of each baseline with arguments that matter: item-kNN, EASE, and ALS if it is installed.

    Args:
        repeated: whether pairs occur more than once, so that weightings of repetitions differ.
        seed: seed of the baselines.
    """
    weightings: tuple[Weighting, ...] = ("binary", "log") if repeated else ("binary",)
    found: list[list[RetrievalBaseline]] = [
        [ItemKNN(neighbors, shrinkage) for neighbors in (20, 100, 500) for shrinkage in (0.0, 10.0, 100.0)],
        [
            EASE(value, weighting=weighting, seed=seed)
            for weighting in weightings
            for value in (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
        ],
    ]
    if ALS.installed():
        options = itertools.product((32, 128), (0.01, 1.0, 10.0), (1.0, 10.0))
        found.append([ALS(factors, penalty, alpha, seed=seed) for factors, penalty, alpha in options])
    return found
