"""Weights of the tasks in served lists, chosen by the lists themselves on validation rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.data import Categorical
from tfmtl.data.interchange import as_rows
from tfmtl.evaluation import bootstrap_comparison
from tfmtl.evaluation.counting import IntArray
from tfmtl.evaluation.ranks import Progress
from tfmtl.models import MultiTaskModel
from tfmtl.models.inputs import require_candidates
from tfmtl.recipes.judged_lists import Floats, JudgedLists
from tfmtl.recipes.weight_search import Weights, mixed, search_weights, starts_of
from tfmtl.serving.index import Search
from tfmtl.serving.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd

DEFAULT, ALONE, FOUND, SLICED = "default weights", "retrieval alone", "found weights", "found by slice"


@dataclasses.dataclass(frozen=True)
class FusionWeights:
    """The result of `fusion_weights`; `print` shows it as a table.

    Attributes:
        weights: found weights by task name, for `export(fusion_weights=...)`.
        defaults: weights by task name that `export` has without an argument.
        slices: weights by value of the slice feature and task name; other values have `weights`.
        comparison: table of `bootstrap_comparison` on users outside of the search.
        metric: name of the metric, such as `"ndcg@10"`.
        ceiling: mean metric of the best order of each shortlist, which no weights exceed.
        queries, users: numbers of queries and users with a positive.
    """

    weights: dict[str, float]
    defaults: dict[str, float]
    slices: dict[Any, dict[str, float]]
    comparison: pd.DataFrame
    metric: str
    ceiling: float
    queries: int
    users: int

    @property
    def gain(self) -> tuple[float, float, float]:
        """The gain of the found weights over the default ones, with the ends of its interval."""
        return _gain(self.comparison.loc[(FOUND, self.metric)])

    @property
    def verdict(self) -> str:
        """One sentence on whether the found weights are better than the default ones."""
        value, low, high = self.gain
        gain = f"{self.metric} changes by {value:+.4f} ({low:+.4f} to {high:+.4f}) on users outside of the search"
        if low > 0:
            return f"The found weights are better: {gain}."
        if high < 0:
            return f"The found weights are worse, keep the default ones: {gain}."
        return f"The found weights may be no better than the default ones: {gain}, an interval with 0."

    def __str__(self) -> str:
        sets = {DEFAULT: self.defaults, FOUND: self.weights} | {f"of {v!r}": own for v, own in self.slices.items()}
        wide = max(map(len, (*sets, SLICED)))
        lines = [f"{'':<{wide}}" + "".join(f"  {task:>8}" for task in self.defaults)]
        for name, own in sets.items():
            cells = (f"  {own[task]:>{max(8, len(task))}.4f}" for task in self.defaults)
            lines.append(f"{name:<{wide}}" + "".join(cells))
        lines += ["", f"{'':<{wide}}  {self.metric:<26}  difference from the default weights"]
        for (name, _), row in self.comparison.iterrows():
            value = f"{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
            gain = "" if name == DEFAULT else "{:+.4f} ({:+.4f} to {:+.4f})".format(*_gain(row))
            lines.append(f"{name:<{wide}}  {value:<26}  {gain}".rstrip())
        lines.append(f"{'best order':<{wide}}  {self.ceiling:.4f}")
        return "\n".join([*lines, "", f"{self.queries:,} queries of {self.users:,} users. {self.verdict}"])


def fusion_weights(
    model: MultiTaskModel,
    validation: Any,
    *,
    main: str | Mapping[str, float],
    k: int = 10,
    seen: Any = None,
    rerank_depth: int | None = None,
    retrieval: str | None = None,
    search: Search | None = None,
    slices: str | None = None,
    min_users: int = 200,
    any_sign: bool = False,
    folds: int = 5,
    generations: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
) -> FusionWeights:
    """Find the weights of the tasks by which `recommend` serves the lists with the largest NDCG of the main event.

    Use it before an export of a model with retrieval and ranking tasks, and pass `weights` of the result to `export`.

    The judged lists are those of `recommend`: the same shortlist, standardised values and order. The grade of a
    candidate is sum_l u_l y_l over the labels l with their utilities u, and a list has NDCG@k = DCG / best DCG with
    the gains g_j / log2(j + 1). Weights are searched by differential evolution in the directions of the default signs,
    and the default weights stay where no others are better.

    A gain on the rows of a search is too large. So users are split into folds; the lists of each fold are judged by
    the weights that the other folds give. `comparison` and `verdict` are of these; `weights` are of all users.

    Args:
        model: trained model with `candidates`.
        validation: table outside of the training, with query features, candidate ids and the labels of `main`.
        main: name of the label that makes a candidate relevant, or utilities by name of label; a negative utility
            lowers the value of a list. Queries without a positive grade do not count.
        k: length of the judged lists.
        seen: table of interactions to leave out of the lists, as in `evaluate`.
        rerank_depth, retrieval, search: as in `export`; give the same.
        slices: `Categorical` query feature; a value with at least `min_users` users has weights of its own, w =
            (n w_own + m w_all) / (n + m) with n users and m = `min_users`. Clients send them in the inputs
            `weight_<task>` of `recommend_filtered`.
        min_users: see `slices`.
        any_sign: whether a weight may have another sign than by default.
        folds: number of folds of users.
        generations: largest number of generations of a search.
        seed: seed of folds, searches and bootstrap.
        progress: called with the numbers of ranked queries and of all queries.

    Raises:
        ValueError: if a label, task or feature is unknown, the model has no task to weigh beside the retrieval, or
            the rows have no positive or one user only.

    Reference: Storn, Price, "Differential Evolution", Journal of Global Optimization 1997,
    https://doi.org/10.1023/A:1008202821328; Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques",
    ACM TOIS 2002.

    Cost: one retrieval and ranking of `rerank_depth` candidates per query; then `folds` + 1 searches on arrays, each
    of up to `generations` + 1 times max(20, 8 T) sorts of the shortlists with T tasks.
    """
    utilities = _utilities(model, main)
    require_positive_int(k=k, folds=folds, generations=generations, min_users=min_users)
    require(folds > 1, "`folds` must be at least 2, so that the gain is measured on other users.", folds=folds)
    _check_slices(model, slices)
    model.schema.user("`fusion_weights`")
    require_candidates(model)
    recommender = Recommender(model, k, rerank_depth, retrieval, None, search)
    defaults = dict(recommender.fusion.weights)
    require(
        len(defaults) > 1,
        "`fusion_weights` needs a ranking task with one value per candidate beside the retrieval.", tasks=[*defaults],
    )  # fmt: skip
    lists = JudgedLists.of(recommender, validation, utilities, seen, progress)
    values = None if slices is None else _values(model, validation, slices)[lists.rows]
    chooser = _Chooser(starts_of(defaults, recommender.retrieval), any_sign, generations, seed, min_users)
    held_out = _held_out(lists, values, chooser, folds)
    measured = {DEFAULT: lists.ndcg(chooser.starts[0]), ALONE: lists.ndcg(chooser.starts[1]), **held_out}
    metric = f"ndcg@{k}"
    models = {name: lambda w, own=own: {metric: float(np.average(own, weights=w))} for name, own in measured.items()}
    compared = bootstrap_comparison(models, lists.users, seed=seed)
    every, by_value = chooser.choose(lists, values)
    return FusionWeights(
        _named(lists, every), defaults, {value: _named(lists, own) for value, own in by_value.items()}, compared,
        metric, float(lists.best().mean()), len(lists.ideal), len(np.unique(lists.users)),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Chooser:
    """The search for all queries of some lists, and for each slice with enough users."""

    starts: list[list[float]]
    any_sign: bool
    generations: int
    seed: int
    min_users: int

    def choose(self, lists: JudgedLists, values: Any | None) -> tuple[Weights, dict[Any, Weights]]:
        """Return the weights of all queries, and those by value [Q] of the slice feature."""
        every = self._search(lists, self.starts)
        found: dict[Any, Weights] = {}
        for value in [] if values is None else np.unique(values[[not _is_missing(value) for value in values]]).tolist():
            part = lists.of_queries(values == value)
            users = len(np.unique(part.users))
            if users >= self.min_users:
                own = self._search(part, [list(every), *self.starts])
                found[value] = mixed(own, every, users / (users + self.min_users))
        return every, found

    def _search(self, lists: JudgedLists, starts: list[list[float]]) -> Weights:
        return search_weights(lists, starts, self.any_sign, self.generations, self.seed)


def _held_out(lists: JudgedLists, values: Any | None, chooser: _Chooser, folds: int) -> dict[str, Floats]:
    """Return the metric [Q] of each query by weights that other users gave."""
    found = {name: np.zeros(len(lists.ideal)) for name in (FOUND, *([] if values is None else [SLICED]))}
    fold = _folds(lists.users, folds, chooser.seed)
    for number in np.unique(fold):
        inside = fold == number
        every, by_value = chooser.choose(lists.of_queries(~inside), None if values is None else values[~inside])
        found[FOUND][inside] = lists.of_queries(inside).ndcg(every)
        if values is not None:
            found[SLICED][inside] = found[FOUND][inside]
            for value, own in by_value.items():
                chosen = inside & (values == value)
                found[SLICED][chosen] = lists.of_queries(chosen).ndcg(own)
    return found


def _folds(users: IntArray, folds: int, seed: int) -> IntArray:
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
        require(not classes, f"The label {name!r} of `main` has classes; name a label of numbers.", classes=classes)
    return {name: float(utility) for name, utility in given.items()}


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


def _gain(row: Any) -> tuple[float, float, float]:
    return tuple(float(row[name]) for name in ("difference", "difference_low", "difference_high"))  # type: ignore[return-value]
