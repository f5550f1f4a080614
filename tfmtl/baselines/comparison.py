"""Comparison: a model beside the baselines of each of its tasks, as one table and one sentence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tfmtl._checks import require_known
from tfmtl._keras import tf
from tfmtl.baselines.als import ALS
from tfmtl.baselines.ease import EASE
from tfmtl.baselines.gradient_boosting import GradientBoosting
from tfmtl.baselines.interactions import Interactions
from tfmtl.baselines.item_knn import ItemKNN
from tfmtl.baselines.personal_frequency import PersonalFrequency
from tfmtl.baselines.popularity import Popularity
from tfmtl.baselines.ranking_baseline import KINDS, RankingBaseline
from tfmtl.baselines.recent_popularity import RecentPopularity
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.baselines.tfidf_linear import TfidfLinear
from tfmtl.baselines.tuned import Tuned, grids
from tfmtl.data import Batch, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.corpus import REPEATED, Outside, Seen, positives, repeated
from tfmtl.evaluation.ranks import Progress, rank_by_scores
from tfmtl.evaluation.reports import side_by_side
from tfmtl.evaluation.reports.outcomes import Gain, Outcome, gain_of, judged_by, of_ranks, of_rows
from tfmtl.evaluation.reports.report import as_series, corpus_of, ids_and_labels, judged, labels_of, predict
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task
from tfmtl.tasks.label_metrics import SMALLER_IS_BETTER

MODEL = "model"

Measured: TypeAlias = tuple[str, str, Callable[[], Outcome]]
"""A task, the name of a method, and the function that measures it."""

Outcomes: TypeAlias = dict[str, dict[str, Outcome]]
"""Outcomes by method and task."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`; it prints as a table and a sentence.

    Attributes:
        table: values by (task, metric); the column `model`, and one column for each baseline, NaN where a baseline does
            not apply.
        sentence: for each task whether the model is better than its best baseline.
        best: name of the best baseline of each task, by its first metric among NDCG@k, AUC, macro AUC, RMSE and the
            pinball loss.
        gains: by task the difference of the model from its best baseline in this metric, above 0 where the model is
            better, with the 95 % interval of a bootstrap over users.
    """

    table: pd.DataFrame
    sentence: str
    best: Mapping[str, str]
    gains: Mapping[str, Gain]

    def __str__(self) -> str:
        table = self.table.to_string(float_format="{:,.4g}".format, na_rep="-")
        return f"{table}\n\n{self.sentence}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(float_format='{:,.4g}'.format, na_rep='-')}<p>{self.sentence}</p>"


def compare(
    model: MultiTaskModel,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    tasks: Sequence[str] | None = None,
    ks: Sequence[int] | int | None = None,
    seen: pd.DataFrame | None = None,
    time: str | None = None,
    outside: Outside = "miss",
    max_rows: int = 200_000,
    tune: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Measure a model and the simple baselines of its tasks on the same rows, with the same metrics.

    Use it before every claim that a network is worth its cost. The baselines are fitted here to `train`, with their
    default arguments or, with `tune`, with chosen ones:

    - retrieval: `Popularity`, `ItemKNN` and `EASE`; `ALS` if `implicit` is installed; `RecentPopularity` with `time`;
      `PersonalFrequency` if `seen` is None or users repeat candidates in `train`
    - binary, multi-class and regression tasks: the constant, `GradientBoosting`, and `TfidfLinear` with a text
    - other tasks: the constant

    The sentence calls a difference level if its 95 % interval holds 0. The interval is that of a bootstrap over users,
    with the same draws for both methods; rows without a user are drawn one by one.

    Args:
        model: the trained model, with `candidates` if it has a retrieval task.
        train: training table with features and labels.
        test: table to measure on.
        tasks: names of the tasks, all by default.
        ks: as in `evaluate`.
        seen: as in `evaluate`: known interactions to remove from the lists of the model and of the baselines. Without
            it a sentence of the result names retrieval tasks with less than 5 % of repeated pairs.
        time: column of `train` with the time of each row, which baselines of retrieval use.
        outside: as in `evaluate`.
        max_rows: largest number of rows to which `GradientBoosting` and `TfidfLinear` are fitted.
        tune: whether `ItemKNN`, `EASE` and `ALS` have the arguments that rank best on a tenth of `train`; see `Tuned`.
        seed: seed of the baselines.
        progress: called after each baseline with the number of finished and of all baselines.

    Raises:
        ValueError: as `evaluate`; also if `train` has no positive inside the corpus or no label of a task.

    Cost: that of `evaluate`, and for each retrieval task a few passes over the interactions, C^3 for EASE with up to
    3000 candidates and one ranking per baseline; for each other task a fit to at most `max_rows` rows. An interval
    takes 200 computations of the metrics of a task on at most 20,000 rows. With `tune`, the fits and rankings of 9
    options of `ItemKNN`, 7 or 14 of `EASE` and 12 of `ALS`.
    """
    train, test = as_frame(train), as_frame(test)
    options: dict[str, Any] = {"ks": ks, "seen": seen, "outside": outside, "seed": seed}
    outcomes = run(of_model(model, test, tasks, **options))
    own = _reports(outcomes).get(MODEL, as_series({}))
    options |= {"time": time, "max_rows": max_rows, "tune": tune}
    outcomes |= run(of_baselines(model, train, test, list(own.index.unique("task")), **options), progress)
    found = compared(outcomes, seed)
    hints = _hints(model, train, test, outcomes[MODEL]) if seen is None and MODEL in outcomes else []
    return dataclasses.replace(found, sentence=" ".join([found.sentence, *hints]))


def _hints(model: MultiTaskModel, train: pd.DataFrame, test: pd.DataFrame, measured: Collection[str]) -> list[str]:
    """Return a sentence for each retrieval task that was ranked with seen candidates although no pair comes again."""
    chosen = [task for task in model.tasks if task.retrieves and task.name in measured]
    if not chosen or not model.schema.query_id:
        return []
    batch = ids_and_labels(test, model.preprocessor, labels_of(model, test, chosen))
    users, seen = batch.ids["query"].numpy(), {t.name: Seen.from_frame(model, t.name, train) for t in chosen}
    shares = {
        name: repeated(name, batch, pairs)
        for name, pairs in seen.items()
        if np.isin(users[positives(batch, name)], pairs.users).any()
    }
    return [
        f"{name}: the lists hold candidates that users had in `train`, but only {share:.1%} of the test positives are "
        "such pairs; pass `seen=train` to leave them out."
        for name, share in shares.items()
        if share < REPEATED
    ]


def compared(outcomes: Outcomes, seed: int = 0) -> Comparison:
    """Return the comparison of the outcomes of the model, which is called `model`, with those of baselines."""
    reports = _reports(outcomes)
    own = reports.pop(MODEL, as_series({}))
    table = side_by_side({MODEL: own, **reports}).loc[own.index]
    best, gains, clauses = {}, {}, []
    for task in own.index.unique("task"):
        name, metric = strongest(reports, task), judged_by(own, task)
        if name is None or metric is None or np.isnan(own[task, metric]):
            clauses.append(f"{task}: there is nothing to compare with")
            continue
        best[task] = name
        gains[task] = gain_of(outcomes[MODEL][task], outcomes[name][task], metric, seed)
        clauses.append(_clause(table, task, metric, name, gains[task]))
    return Comparison(table, "; ".join(clauses) + ".", best, gains)


def measure(
    model: MultiTaskModel,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    tasks: Sequence[str] | None = None,
    ks: Sequence[int] | int | None = None,
    seen: pd.DataFrame | None = None,
    time: str | None = None,
    outside: Outside = "miss",
    max_rows: int = 200_000,
    tune: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, pd.Series]:
    """Return the report of each baseline by its name, in the form of `evaluate`; see `compare`.

    Use it to show baselines beside reports that already exist. The weights of the model are not used.
    """
    options: dict[str, Any] = {"ks": ks, "seen": seen, "outside": outside, "seed": seed}
    options |= {"time": time, "max_rows": max_rows, "tune": tune}
    planned = of_baselines(model, as_frame(train), as_frame(test), tasks, **options)
    return _reports(run(planned, progress))


def run(planned: Iterable[Measured], progress: Progress | None = None) -> Outcomes:
    """Return the outcomes of planned measurements by method and task."""
    planned = list(planned)
    found: Outcomes = {}
    for i, (task, method, outcome) in enumerate(planned):
        found.setdefault(method, {})[task] = outcome()
        if progress is not None:
            progress(i + 1, len(planned))
    return found


def _reports(outcomes: Outcomes) -> dict[str, pd.Series]:
    """Return the report of each method by its name, in the form of `evaluate`."""
    return {
        method: as_series({(task, m): value for task, outcome in found.items() for m, value in outcome.values.items()})
        for method, found in outcomes.items()
    }


def _chosen(model: MultiTaskModel, tasks: Sequence[str] | None) -> list[Task]:
    require_known(tasks or (), [task.name for task in model.tasks], "task", "`tasks`")
    return [task for task in model.tasks if tasks is None or task.name in tasks]


def of_baselines(
    model: MultiTaskModel, train: pd.DataFrame, test: pd.DataFrame, tasks: Sequence[str] | None, **options: Any
) -> list[Measured]:
    """Return the measurements of the baselines of each task; see `compare` for the options."""
    chosen = _chosen(model, tasks)
    batch = ids_and_labels(test, model.preprocessor, labels_of(model, test, chosen))
    planned: list[Measured] = []
    for task in chosen:
        of_task = _of_retrieval if task.retrieves else _of_ranking
        planned += of_task(model, task, train, test, batch, **options)
    return planned


def of_model(
    model: MultiTaskModel,
    test: pd.DataFrame,
    tasks: Sequence[str] | None,
    *,
    ks: Sequence[int] | int | None,
    seen: pd.DataFrame | None,
    outside: Outside,
    seed: int,
    batch: Batch | None = None,
    predictions: Mapping[str, Any] | None = None,
) -> Iterator[Measured]:
    """Yield the outcomes of the model; `batch` and `predictions` are those of `test`, if they are there already."""
    require_known([outside], ("miss", "ignore"), "value", "`outside`")
    chosen = _chosen(model, tasks)
    if batch is None:
        batch = to_batch(test, model.preprocessor, labels=labels_of(model, test, chosen))
    if predictions is None:
        predictions = predict(model, batch) if any(not task.retrieves for task in chosen) else {}

    def of_retrieval(task: Task) -> Outcome:
        corpus = corpus_of(model, task.name, batch, seen)
        ranks = corpus.rank(model.tower("query"), model.tower("candidate"), task.name)
        return of_ranks(corpus, ranks, ks, outside)

    for task in chosen:
        if task.retrieves and len(positives(batch, task.name)):
            yield task.name, MODEL, functools.partial(of_retrieval, task)
        elif not task.retrieves:
            labels, weights, users, rows = _known(model, task, batch)
            if len(rows):
                served = tf.nest.map_structure(lambda values, rows=rows: values[rows], predictions[task.name])
                yield task.name, MODEL, functools.partial(of_rows, task, labels, served, weights, users, seed)


def _known(model: MultiTaskModel, task: Task, batch: Batch) -> tuple[Any, Any, Any, Any]:
    """Return labels, weights and users of the rows with a label, and the positions of these rows."""
    labels, weights = judged(task, model.schema, batch)
    rows = np.flatnonzero(weights > 0)
    users = batch.ids["query"].numpy() if "query" in batch.ids else np.arange(len(weights))
    return labels[rows], weights[rows], users[rows], rows


def strongest(reports: Mapping[str, pd.Series], task: str) -> str | None:
    """Return the name of the report with the best value of a task's first metric; None if no report has one.

    The metric is the first of NDCG@k with the least k, AUC, macro AUC, RMSE and the pinball loss.

    Example:
        >>> index = pd.MultiIndex.from_tuples([("stars", "rmse")], names=["task", "metric"])
        >>> strongest({"a": pd.Series([0.9], index), "b": pd.Series([0.8], index)}, "stars")
        'b'
    """
    values: dict[str, float] = {}
    for name, report in reports.items():
        metric = judged_by(report, task)
        if metric is not None and not np.isnan(report[task, metric]):
            values[name] = report[task, metric] * (-1 if metric in SMALLER_IS_BETTER else 1)
    return max(values, key=values.__getitem__) if values else None


def _clause(table: pd.DataFrame, task: str, metric: str, best: str, gain: Gain) -> str:
    """Return the judgement of one task."""
    value, other = float(table[MODEL][task, metric]), float(table[best][task, metric])
    count = int(table.loc[(task, metric)].drop(MODEL).notna().sum())
    how = {"better": "better than", "worse": "worse than", "level": "level with"}[gain.verdict]
    ranked = f"the best of {count} baselines" if count > 1 else "the only baseline"
    interval = f"by {gain.value:+.2g}, in 95 % of samples {gain.low:+.2g} to {gain.high:+.2g}"
    verdict = "" if gain.verdict == "better" else ": the network is not worth it yet"
    return f"{task}: the model's {metric} {value:.4g} is {how} {best} {other:.4g}, {ranked} ({interval}){verdict}"


def _of_retrieval(
    model: MultiTaskModel,
    task: Task,
    train: pd.DataFrame,
    test: pd.DataFrame,
    batch: Batch,
    *,
    time: str | None,
    ks: Sequence[int] | int | None,
    seen: pd.DataFrame | None,
    outside: Outside,
    seed: int,
    tune: bool,
    max_rows: int,
) -> Iterator[Measured]:
    del test, max_rows
    if not len(positives(batch, task.name)):
        return
    corpus = corpus_of(model, task.name, batch, seen)
    interactions = Interactions.from_frame(model, task.name, train, time)

    def measured(baseline: RetrievalBaseline) -> Outcome:
        scorer = baseline.fit(interactions).scorer(corpus.users)
        ranks = rank_by_scores(
            scorer, len(corpus.candidates), corpus.query_index, corpus.candidate_index, seen=corpus.seen
        )
        return of_ranks(corpus, ranks, ks, outside)

    for baseline in _retrieval_baselines(interactions, seen is None, tune, seed):
        yield task.name, baseline.name, functools.partial(measured, baseline)


def _retrieval_baselines(interactions: Interactions, keep_seen: bool, tune: bool, seed: int) -> list[RetrievalBaseline]:
    """Return the baselines that the data allow."""
    found: list[RetrievalBaseline] = [Popularity()]
    if interactions.times is not None:
        found.append(RecentPopularity())
    repeated = bool((interactions.matrix().data > 1).any())
    if keep_seen or repeated:
        found.append(PersonalFrequency())
    if tune:
        return [*found, *(Tuned(options, keep_seen, seed) for options in grids(repeated, seed))]
    found += [ItemKNN(), EASE(seed=seed)]
    return [*found, ALS(seed=seed)] if ALS.installed() else found


def _of_ranking(
    model: MultiTaskModel,
    task: Task,
    train: pd.DataFrame,
    test: pd.DataFrame,
    batch: Batch,
    *,
    max_rows: int,
    seed: int,
    **retrieval: Any,
) -> Iterator[Measured]:
    del retrieval
    labels, weights, users, rows = _known(model, task, batch)
    if not len(rows):
        return

    def constant() -> Outcome:
        known = judged(task, model.schema, ids_and_labels(train, model.preprocessor, labels_of(model, train, [task])))
        return of_rows(task, labels, task.constant_prediction(*known, len(rows)), weights, users, seed)

    def measured(baseline: RankingBaseline) -> Outcome:
        predicted = baseline.fit(model.schema, task, train).predict(test.iloc[rows])
        return of_rows(task, labels, predicted, weights, users, seed)

    yield task.name, "Constant", constant
    methods: tuple[Any, ...] = (GradientBoosting, TfidfLinear) if isinstance(task, KINDS) else ()
    for method in methods:
        if method.features(model.schema, task):
            yield task.name, method.__name__, functools.partial(measured, method(max_rows=max_rows, seed=seed))
