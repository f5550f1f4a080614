"""The weights of a network, EASE and popularity in retrieval, chosen by ranks on validation rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.data import Batch, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.data.times import moments_of
from tfmtl.evaluation.corpus import REPEATED, Seen, locate, repeated
from tfmtl.evaluation.counting import FloatArray
from tfmtl.models import MultiTaskModel
from tfmtl.models.keras_arguments import require_compiled
from tfmtl.recipes.ease_part import EasePart, EaseParts, EaseSettings, mean, without_ease
from tfmtl.recipes.join_copy import in_words, sampled, with_copy
from tfmtl.recipes.mixture_judge import MixtureJudge, Weights, near_best
from tfmtl.recipes.neighbor_part import EXPONENTS
from tfmtl.tasks import UserNeighbors
from tfmtl.tasks.copies import Copy

_EASE_ALONE = (0.0, 1.0, 0.0)
_RECENCIES = (0.5, 1.0)
_HALF_LIVES = (0.2, 0.1, 0.05)


@dataclasses.dataclass(frozen=True)
class JoinedEase:
    """The result of `join_ease`.

    Attributes:
        model: the compiled model with the chosen mixture as its retrieval scores.
        settings: the settings of EASE.
        weights: of the network, EASE and popularity, relative to their standard deviations over pairs.
        excludes_seen: whether the ranks were measured without the candidates that a user had before.
        values: the metric on validation of `network`, `ease`, `popularity` and `mixture`; and of `copy`, the mixture
            with copies, where candidates repeat and the schema has a history, or of `neighbors`, with their lists.
        metric: the name of the metric.
        copy: the part of the scores that candidates of the history, or neighbors of those of the user, have, or None.
    """

    model: MultiTaskModel
    settings: EaseSettings
    weights: Weights
    excludes_seen: bool
    values: dict[str, float]
    metric: str
    copy: Copy | None = None

    @property
    def mixture(self) -> str:
        """The weights in words."""
        parts = zip(self.weights, ("network", "EASE", "popularity"), strict=True)
        copies = [] if self.copy is None else [in_words(self.copy)]
        return " + ".join([*(f"{weight:.2g} {name}" for weight, name in parts if weight > 0), *copies])

    @property
    def found(self) -> str:
        """The values in words."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.values.items())

    @property
    def read(self) -> str:
        """The settings of EASE and popularity in words."""
        ease = self.settings
        values = " and ".join(f"{value:g}" for value in ease.regularizations)
        entries = f"{'normalized ' if ease.normalized else ''}{ease.weighting} counts"
        als = ", beside ALS" if ease.als > 0 else ""
        recent = f", (1 + position)^-{ease.recency:g} in a history" if ease.recency > 0 else ""
        fading = f", popularity with a half-life of {ease.half_life:.0%} of the rows" if ease.half_life > 0 else ""
        return f"EASE of {ease.source!r} ({entries}, regularization {values}{recent}{als}{fading})"

    def __str__(self) -> str:
        return f"Retrieval scores are {self.mixture}, with {self.read}; {self.metric} on validation: {self.found}."


def join_ease(
    model: MultiTaskModel,
    train: Any,
    validation: Any,
    *,
    task: str | None = None,
    rank: int = 256,
    regularizations: Sequence[float] = (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0),
    exclude_seen: bool | None = None,
    refit: bool = True,
    time: str | None = None,
    k: int = 10,
    max_queries: int = 1000,
    seed: int = 0,
) -> JoinedEase:
    """Join EASE and popularity to the retrieval of a trained model, with the weights that rank best on validation.

    Use it after each training of a retrieval task: on sparse interactions a closed form finds more than a network.

    The mean of NDCG@k and NDCG@10k on validation chooses the settings of EASE by EASE alone, from the user's rows or
    from a history in which the latest may count more; then, on a grid, the weights of network and popularity relative
    to the deviation of each part's scores. Where `rank` holds less than half of the squares of the entries, as in large
    catalogues, EASE of normalized entries is compared; ALS and item-kNN (`UserNeighbors`) join it. `join_copy` follows
    if seen candidates stay in the lists. Settings near the best are averaged; the network has half of its best weight.

    Args:
        model: trained model with a retrieval task, candidates and a user id among its query features.
        train, validation: the table of its training, and a table outside it, later than `train` where rows have a time.
        task: the retrieval task; by default the only one.
        rank, regularizations: the width of EASE's embeddings, at most, and the regularizations to compare.
        exclude_seen: whether to rank without a user's candidates of `train`; by default if less than 5 % come again.
        refit: whether the tables of the result are computed from `train` and `validation` together.
        time: column of both tables with the time of each row; older rows then count less if popularity fades.
        k, max_queries, seed: cut-off of the NDCG, number of validation queries, and seed of their draw.

    Raises:
        ValueError: if the model has no such task or no user id among its inputs, or a table has no positive of it.

    Reference: as `tfmtl.baselines.ease_factors`, `als_factors`.

    Cost: a decomposition for each weighting (a second for 10,000 candidates), and a ranking of at most `max_queries`
    queries and 50 million scores, which take 600 MB, for each regularization; `rank` numbers per user and candidate.
    """
    require_positive_int(rank=rank, k=k, max_queries=max_queries)
    require(len(regularizations) > 0, "`regularizations` must hold at least one number.")
    name, train, validation = _task(model, task), as_frame(train), as_frame(validation)
    model, batches = without_ease(model, name), [_batch(rows, model, name) for rows in (train, validation)]
    seen = Seen.from_frame(model, name, train)
    exclude_seen = repeated(name, batches[1], seen) < REPEATED if exclude_seen is None else exclude_seen
    corpus = sampled(locate(model, name, batches[1], seen if exclude_seen else None), max_queries, seed)
    moments = () if time is None else np.split(moments_of([train, validation], time), [len(train)])
    judge, fitted = MixtureJudge(model, name, corpus, k), EaseParts(model.preprocessor, name, rank, seed, moments)
    best, averaged = _closed_forms(judge, fitted, batches[:1], regularizations)
    weights, values = judge.weights(averaged)
    copy: Copy | None = _neighbors(judge, fitted, batches[: 1 + refit], best, averaged, weights, values)
    weights, copy = (weights, copy) if exclude_seen else judge.copied(averaged, weights, values)
    scaled = tuple(np.divide(weights, judge.deviations(averaged)).tolist())
    part = dataclasses.replace(fitted.fit(batches, best) if refit else averaged, weights=scaled)
    joined = with_copy(part.join(model), name, copy)
    return JoinedEase(joined, best, weights, exclude_seen, values, f"{name} ndcg@{judge.k}", copy)


def _batch(rows: Any, model: MultiTaskModel, task: str) -> Batch:
    return to_batch(rows, model.preprocessor, labels=[task] if task in model.schema.tasks else [])


def _neighbors(
    judge: MixtureJudge,
    fitted: EaseParts,
    batches: Sequence[Batch],
    settings: EaseSettings,
    part: EasePart,
    weights: Weights,
    values: dict[str, float],
) -> UserNeighbors | None:
    """Return the lists of all users by all batches, if those by the first batch rank better where nothing repeats."""
    if judge.keeps_seen:
        return None
    found, user = fitted.similarities(batches[:1], settings), fitted.preprocessor.schema.user("`UserNeighbors`")
    if found is None:
        return None
    lists = {exponent: found.lists(judge.users(user), exponent) for exponent in EXPONENTS}
    chosen = judge.neighbors(part, weights, lists, values)
    every = found if len(batches) == 1 or chosen is None else fitted.similarities(batches, settings)
    return None if chosen is None or every is None else every.part(user, *chosen)


def _closed_forms(
    judge: MixtureJudge, fitted: EaseParts, batches: Sequence[Batch], regularizations: Sequence[float]
) -> tuple[EaseSettings, EasePart]:
    """Return the best settings of EASE and ALS, and the part with the scores of both."""
    options = fitted.options(batches, regularizations)
    values = {settings: judge.values(part, _EASE_ALONE) for settings, part in options.items()}
    histories = [settings for settings in values if settings.source != fitted.preprocessor.schema.query_id]
    if histories:
        recent = _recent(options, _best(values, histories))
        values |= {settings: judge.values(part, _EASE_ALONE) for settings, part in recent.items()}
        options |= recent
    best = _averaged(values)
    best, part = _fading(judge, fitted, batches, best, mean(options, best))
    als = fitted.als(batches, best)
    scale = 0.0 if als is None else judge.scale(part, als)
    return (best, part) if als is None or scale == 0 else (best._replace(als=scale), part.beside(als, scale))


def _fading(
    judge: MixtureJudge, fitted: EaseParts, batches: Sequence[Batch], best: EaseSettings, part: EasePart
) -> tuple[EaseSettings, EasePart]:
    """Return the settings and the part with a popularity that fades, if it ranks better beyond one standard error."""
    if not fitted.moments:
        return best, part
    tried = {value: dataclasses.replace(part, popularity=fitted.fading(batches, value)) for value in _HALF_LIVES}
    values = {value: judge.values(other, (0.0, 0.0, 1.0)) for value, other in {0.0: part, **tried}.items()}
    if 0.0 in near_best(values):
        return best, part
    chosen = max(values, key=lambda value: float(values[value].mean()))
    return best._replace(half_life=chosen), tried[chosen]


def _recent(options: Mapping[EaseSettings, EasePart], best: EaseSettings) -> dict[EaseSettings, EasePart]:
    """Return the parts of the best history in which the latest candidates count more; they need more regularization."""
    return {
        settings._replace(recency=recency): dataclasses.replace(part, recency=recency)
        for recency in _RECENCIES
        for settings, part in options.items()
        if settings._replace(regularizations=best.regularizations) == best
        and settings.regularizations >= best.regularizations
    }


def _best(values: Mapping[EaseSettings, FloatArray], among: Iterable[EaseSettings]) -> EaseSettings:
    return max(among, key=lambda settings: float(values[settings].mean()))


def _averaged(values: Mapping[EaseSettings, FloatArray]) -> EaseSettings:
    """Return the best settings by EASE alone, with all regularizations near the best one.

    A single choice among values that differ by less than the noise of the validation rows can be far from the best one
    on other rows; `benchmarks/RESULTS.md` compares both.
    """
    best = _best(values, values)
    alike = {key: found for key, found in values.items() if key._replace(regularizations=best.regularizations) == best}
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
