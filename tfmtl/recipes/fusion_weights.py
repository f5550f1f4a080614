"""Weights of the tasks in served lists, chosen by the lists themselves on validation rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.data import Categorical
from tfmtl.data.interchange import as_rows
from tfmtl.evaluation import bootstrap_comparison
from tfmtl.evaluation.corpus import Ints
from tfmtl.evaluation.ranks import Progress
from tfmtl.models import MultiTaskModel
from tfmtl.models.inputs import require_candidates
from tfmtl.recipes.found_weights import ALONE, DEFAULT, FOUND, SLICED, FoundWeights, gain_of
from tfmtl.recipes.judged_lists import Floats, JudgedLists
from tfmtl.recipes.weight_search import Weights, mixed, search_weights, starts_of
from tfmtl.serving.index import Search
from tfmtl.serving.recommender import Recommender


def fusion_weights(
    model: MultiTaskModel, validation: Any, *, main: str | Mapping[str, float], k: int = 10, seen: Any = None,
    rerank_depth: int | None = None, retrieval: str | None = None, search: Search | None = None,
    slices: str | None = None, min_users: int | Sequence[int] = 200, any_sign: bool = False, folds: int = 5,
    seed: int = 0, progress: Progress | None = None,
) -> FoundWeights:  # fmt: skip
    """Find the weights of the tasks by which `recommend` serves the lists with the largest NDCG of a main event.

    Use it before the export of a model with retrieval and ranking tasks: `export(fusion_weights=found.weights)`.

    The judged lists are those of `recommend`: its shortlist, standardised values and order. The grade of a candidate is
    sum_l u_l y_l over labels l with utilities u; NDCG@k is sum_{j <= k} g_j / log2(j + 1) over that of the best list.
    Differential evolution searches the directions w with the signs of the default weights, which stay where no others
    are better. The rows of a search show too large a gain: so users are split into folds, and `comparison` and
    `verdict` judge the lists of each fold by weights of the other folds. `weights` are those of all users.

    Args:
        model: trained model with `candidates`.
        validation: table with query features, candidate ids and the labels of `main`, of rows that no part of the model
            has read; `recipes.fit` reads its own `validation` in the end.
        main: name of the label that makes a candidate relevant, or utilities by name of label; negative ones lower the
            value of a list. Queries without a positive grade do not count.
        k: length of the lists.
        seen: table of interactions to leave out of the lists, as in `evaluate`.
        rerank_depth, retrieval, search: those of the `export`.
        slices: `Categorical` query feature; a value with n users, at least m = `min_users`, has the weights
            (n w_own + m w_all) / (n + m). Export them by `by_slice` of the result.
        min_users: see `slices`. Of several values, and no slices at all, the one with the largest NDCG of the folds is
            chosen; those of the other folds choose for the users of a fold.
        any_sign: whether a weight may have another sign than by default.
        folds, seed: number of folds of users; seed of folds, searches and bootstrap.
        progress: called with the numbers of ranked queries and of all queries.

    Raises:
        ValueError: if a label, task or feature is unknown, there is no ranking task, no positive, or one user only.

    Reference: Storn, Price, "Differential Evolution", Journal of Global Optimization 1997,
    https://doi.org/10.1023/A:1008202821328, by SciPy; the grades: Järvelin, Kekäläinen, ACM TOIS 2002.

    Cost: a retrieval and ranking per query; then `folds` + 1 searches, each of up to 31 max(20, 8 T) sorts of the
    shortlists with T tasks.
    """
    utilities = _utilities(model, main)
    require_positive_int(k=k, folds=folds)
    least = _least(min_users)
    require(folds > 1, "`folds` must be at least 2, so that the gain is measured on other users.", folds=folds)
    _check_slices(model, slices)
    model.schema.user("`fusion_weights`")
    require_candidates(model)
    recommender = Recommender(model, k, rerank_depth, retrieval, None, search)
    lists = JudgedLists.of(recommender, validation, utilities, seen, progress)
    values = None if slices is None else _values(model, validation, slices)[lists.rows]
    starts = starts_of(recommender.fusion.weights, recommender.retrieval)
    return _found(lists, values, slices, _Chooser(starts, any_sign, seed, least), folds)


@dataclasses.dataclass(frozen=True)
class _Own:
    """The weights of all queries, and those of each slice alone with its number of users."""

    every: Weights
    slices: dict[Any, tuple[Weights, int]]

    def mixed(self, least: int | None) -> dict[Any, Weights]:
        """Return the weights by value for some `min_users`; none for None."""
        if least is None:
            return {}
        return {
            value: mixed(own, self.every, users / (users + least))
            for value, (own, users) in self.slices.items()
            if users >= least
        }


@dataclasses.dataclass(frozen=True)
class _Chooser:
    """The search for all queries of some lists, and for each slice with enough users."""

    starts: list[list[float]]
    any_sign: bool
    seed: int
    min_users: tuple[int, ...]

    @property
    def levels(self) -> list[int | None]:
        """The values of `min_users` to compare, the largest first; None, without slices, precedes several."""
        several = sorted(self.min_users, reverse=True)
        return [None, *several] if len(several) > 1 else [*several]

    def choose(self, lists: JudgedLists, values: Any | None) -> _Own:
        """Return the weights of all queries, and those by value [Q] of the slice feature."""
        every = self._search(lists, self.starts)
        found: dict[Any, tuple[Weights, int]] = {}
        for value in [] if values is None else np.unique(values[[not _is_missing(value) for value in values]]).tolist():
            part = lists.of_queries(values == value)
            users = len(np.unique(part.users))
            if users >= min(self.min_users):
                found[value] = self._search(part, [list(every), *self.starts]), users
        return _Own(every, found)

    def _search(self, lists: JudgedLists, starts: list[list[float]]) -> Weights:
        return search_weights(lists, starts, self.any_sign, self.seed)


def _found(lists: JudgedLists, values: Any | None, by: str | None, chooser: _Chooser, folds: int) -> FoundWeights:
    """Return the weights of all users, and the comparison on users outside of the searches."""
    held_out, level = _held_out(lists, values, chooser, folds)
    metric = f"ndcg@{lists.k}"
    measured = {DEFAULT: lists.ndcg(chooser.starts[0]), ALONE: lists.ndcg(chooser.starts[1]), **held_out}
    models = {name: lambda w, own=own: {metric: float(np.average(own, weights=w))} for name, own in measured.items()}
    own = chooser.choose(lists, values)
    against_found = None
    if values is not None:
        both = {name: models[name] for name in (FOUND, SLICED)}
        against_found = gain_of(bootstrap_comparison(both, lists.users, seed=chooser.seed).loc[(SLICED, metric)])
    return FoundWeights(
        _named(lists, own.every),
        _named(lists, tuple(chooser.starts[0])),
        by,
        {value: _named(lists, weights) for value, weights in own.mixed(level).items()},
        bootstrap_comparison(models, lists.users, seed=chooser.seed),
        metric,
        float(lists.best().mean()),
        len(lists.ideal),
        len(np.unique(lists.users)),
        None if values is None else level,
        against_found,
    )


def _held_out(
    lists: JudgedLists, values: Any | None, chooser: _Chooser, folds: int
) -> tuple[dict[str, Floats], int | None]:
    """Return the metric [Q] of each query by weights that other users gave, and the best `min_users` of all users."""
    fold, levels = _folds(lists.users, folds, chooser.seed), chooser.levels
    found, sliced = np.zeros(len(fold)), np.zeros([len(levels), len(fold)])
    for number in np.unique(fold):
        inside = fold == number
        own = chooser.choose(lists.of_queries(~inside), None if values is None else values[~inside])
        found[inside] = lists.of_queries(inside).ndcg(own.every)
        sliced[:, inside] = found[inside]
        for row, level in zip(sliced, levels, strict=True):
            for value, weights in own.mixed(level).items():
                chosen = inside & (values == value)
                row[chosen] = lists.of_queries(chosen).ndcg(weights)
    if values is None:
        return {FOUND: found}, levels[0]
    by_fold = np.zeros(len(fold))
    for number in np.unique(fold):
        inside = fold == number
        by_fold[inside] = sliced[int(sliced[:, ~inside].mean(axis=1).argmax()), inside]
    return {FOUND: found, SLICED: by_fold}, levels[int(sliced.mean(axis=1).argmax())]


def _folds(users: Ints, folds: int, seed: int) -> Ints:
    """Return the fold [Q] of each query; a user is in one fold."""
    _, user = np.unique(users, return_inverse=True)
    count = int(user.max()) + 1
    require(count > 1, "The validation rows must have positives of at least two users.", users=count)
    return np.random.default_rng(seed).permutation(count)[user] % min(folds, count)


def _utilities(model: MultiTaskModel, main: str | Mapping[str, float]) -> dict[str, float]:
    """Return the utilities by name of label."""
    given = {main: 1.0} if isinstance(main, str) else dict(main)
    require(bool(given), "`main` must name at least one label.", main=main)
    require_known(given, model.schema.tasks, "label", "`main`")
    for name, utility in given.items():
        valid = isinstance(utility, int | float) and math.isfinite(utility)
        require(valid, f"The utility of label {name!r} must be a finite number.", utility=utility)
        classes = model.schema.label(name).classes
        require(not classes, f"The label {name!r} of `main` holds classes; name one of numbers.", classes=classes)
    return {name: float(utility) for name, utility in given.items()}


def _least(min_users: int | Sequence[int]) -> tuple[int, ...]:
    """Return the values of `min_users` to choose from."""
    given = (min_users,) if isinstance(min_users, int) else tuple(min_users)
    require(bool(given), "`min_users` must hold at least one number.", min_users=min_users)
    for number in given:
        require_positive_int(min_users=number)
    return given


def _check_slices(model: MultiTaskModel, slices: str | None) -> None:
    """Raise unless the slices are those of a categorical query feature."""
    query = {feature.name: feature for feature in model.schema.query}
    require_known([] if slices is None else [slices], query, "query feature", "`slices`")
    valid = slices is None or isinstance(query[slices], Categorical)
    require(valid, "`slices` must name a Categorical query feature.", slices=slices)


def _values(model: MultiTaskModel, table: Any, slices: str) -> Any:
    """Return the raw value [n] of the slice feature of each row."""
    feature = model.schema.features[slices]
    return feature.read(as_rows(table, "validation")[feature.column])


def _is_missing(value: Any) -> bool:
    return value in ("", -1)


def _named(lists: JudgedLists, weights: Weights) -> dict[str, float]:
    return dict(zip(lists.tasks, weights, strict=True))
