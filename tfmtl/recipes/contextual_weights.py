"""Weights of the tasks in served lists that depend on the query, learned from logged choices and their rewards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import tf
from tfmtl.data import to_batch
from tfmtl.data.columns import to_columns
from tfmtl.data.interchange import as_rows
from tfmtl.evaluation import bootstrap_comparison
from tfmtl.models import MultiTaskModel
from tfmtl.recipes.choice_policy import CONTEXT, SINGLE, Decisions, judge, predicted
from tfmtl.recipes.found_weights import gain_of
from tfmtl.recipes.judged_lists import Floats
from tfmtl.serving import ContextualWeights
from tfmtl.serving.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 16_384
"""Rows that are embedded at a time."""


@dataclasses.dataclass(frozen=True)
class FoundPolicy:
    """The result of `contextual_weights`; `print` shows it as a table.

    Attributes:
        weights: the policy for `export(fusion_weights=...)`.
        comparison: table of `bootstrap_comparison` by policy and estimator, on users outside of the training; the
            differences are those from the best single choice.
        effective_rows: by policy, (sum w)^2 / sum w^2 of the weights of its rows.
        shares: share of the logged queries by choice of the policy.
        penalty: of the regression, infinity if the context does not help.
        rows, users: numbers of rows and users in the log.
    """

    weights: ContextualWeights
    comparison: pd.DataFrame
    effective_rows: dict[str, float]
    shares: tuple[float, ...]
    penalty: float
    rows: int
    users: int

    @property
    def gain(self) -> tuple[float, float, float]:
        """The gain of the policy over the best single choice by SNIPS, with the ends of its interval."""
        return gain_of(self.comparison.loc[(CONTEXT, "snips")])

    @property
    def verdict(self) -> str:
        """One sentence on whether the policy is better than the best single choice."""
        value, low, high = self.gain
        gain = f"the reward by SNIPS changes by {value:+.4f} ({low:+.4f} to {high:+.4f}) on other users"
        if low > 0:
            return f"The policy is better than the best single choice: {gain}."
        return f"The policy is {'worse' if high < 0 else 'not shown to be better'} than the best single choice: {gain}."

    def __str__(self) -> str:
        lines = [f"{'policy':<16}{'estimator':<11}{'reward':<28}{'from the single choice':<36}effective rows"]
        for (name, estimator), row in self.comparison.iterrows():
            value = f"{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
            gain = "" if name == SINGLE else "{:+.4f} ({:+.4f} to {:+.4f})".format(*gain_of(row))
            lines.append(f"{name:<16}{estimator:<11}{value:<28}{gain:<36}{self.effective_rows[name]:.0f}")
        shares = ", ".join(f"{i}: {share:.0%}" for i, share in enumerate(self.shares))
        return "\n".join([*lines, "", f"{self.rows:,} rows of {self.users:,} users. Choices {shares}. {self.verdict}"])


def contextual_weights(
    model: MultiTaskModel,
    log: Any,
    choices: Sequence[Mapping[str, float]],
    *,
    choice: str = "choice",
    reward: str = "reward",
    propensity: str = "propensity",
    retrieval: str | None = None,
    folds: int = 5,
    seed: int = 0,
) -> FoundPolicy:
    """Learn from logged rewards which of a few weights of the tasks `recommend` serves to which queries.

    Use it if lists were served by weights that were drawn from `choices`, with `weight_<task>` of `recommend_filtered`;
    few rewards differ from 0 in most logs, so read the interval. The reward of each choice is regressed on the
    embedding x of the query, with w = 1 / propensity in its rows, and the policy serves the largest prediction:

        c_a = argmin_c sum_i w_ia (r_i - c_0 - c x_i)^2 / sum_i w_ia + penalty |c|^2,  a(x) = argmax_a c_a0 + c_a x

    The penalty is chosen by SNIPS on folds of users; infinity is the best single choice. `comparison` has the values by
    IPS, SNIPS and DR of the policy on users outside of the regressions, with paired intervals.

    Args:
        model: trained model with `candidates`.
        log: table with the features of the query, one row per served list.
        choices: weights by task name; two or more.
        choice: column with the number of the logged choice, from 0.
        reward: column with the reward of the list, such as its purchases.
        propensity: column with the probability of the logged choice.
        retrieval: that of the `export`.
        folds, seed: number of folds of users; seed of folds and bootstrap.

    Raises:
        ValueError: if a column or task is unknown, a choice has no row, a propensity is 0, or there is one user only.

    Reference: importance-weighted regression: Bietti, Agarwal, Langford, "A Contextual Bandit Bake-off", JMLR 2021,
    https://arxiv.org/abs/1802.04064, section 3.1; the estimators: see `evaluation.off_policy_value`.

    Cost: an embedding per row, and 4 `folds` solutions of A systems with d unknowns.
    """
    require_positive_int(folds=folds)
    require(folds > 1, "`folds` must be at least 2, so that the gain is measured on other users.", folds=folds)
    require(len(choices) > 1, "`choices` must hold the weights of at least two choices.", choices=choices)
    model.schema.user("`contextual_weights`")
    frame = as_rows(log, "log")
    require_known([choice, reward, propensity], frame.columns, "column", "the log")
    recommender = Recommender(model, retrieval=retrieval)
    for number, weights in enumerate(choices):
        require_known(weights, recommender.fusion.weights, "task", f"choice {number} of `choices`")
    numbers, rewards, shares = (_numbers(frame, name) for name in (choice, reward, propensity))
    _check(numbers, rewards, shares, len(choices))
    taken = (numbers[:, None] == np.arange(len(choices))).astype(np.float64)
    names = [feature.name for feature in model.schema.query]
    users = to_batch(frame, model.preprocessor, labels=False, features=names).ids["query"].numpy()
    decisions = Decisions(_embeddings(recommender, frame), rewards, shares, taken, users)
    return _found(decisions, choices, folds, seed)


def _found(log: Decisions, choices: Sequence[Mapping[str, float]], folds: int, seed: int) -> FoundPolicy:
    judged, penalty = judge(log, folds, seed)
    coefficients = log.fit(penalty)
    chosen = predicted(coefficients, log.contexts).argmax(axis=1)
    return FoundPolicy(
        ContextualWeights([dict(own) for own in choices], coefficients.tolist()),
        bootstrap_comparison({name: own.values for name, own in judged.items()}, log.users, seed=seed),
        {name: own.effective_rows for name, own in judged.items()},
        tuple((np.bincount(chosen, minlength=len(choices)) / len(chosen)).tolist()),
        penalty,
        len(log.rewards),
        len(np.unique(log.users)),
    )


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    try:
        return np.asarray(frame[name], np.float64)
    except (TypeError, ValueError) as error:
        first = frame[name].iloc[0]
        raise ValueError(f"The column {name!r} of the log must hold numbers. Received: {first!r}.") from error


def _check(numbers: Floats, rewards: Floats, propensities: Floats, count: int) -> None:
    """Raise unless the columns of the log are complete and each choice has a row."""
    known = np.isin(numbers, np.arange(count))
    rule = f"The choices in the log must be the numbers from 0 to {count - 1}."
    require(bool(known.all()), rule, found=numbers[~known][:3].tolist())
    finite = np.isfinite(rewards)
    require(bool(finite.all()), "The rewards in the log must be finite.", found=rewards[~finite][:3].tolist())
    valid = (propensities > 0) & (propensities <= 1)
    rule = "The propensities in the log must be above 0 and at most 1; leave out other rows."
    require(bool(valid.all()), rule, found=propensities[~valid][:3].tolist())
    absent = [number for number in range(count) if number not in numbers]
    require(not absent, "Each choice must have at least one row in the log.", without_rows=absent)


def _embeddings(recommender: Recommender, frame: Any) -> Floats:
    """Return the embeddings [n, d] of the queries, all vectors of a query beside each other."""
    raw = to_columns(frame, recommender.schema.query)
    parts = []
    for start in range(0, len(frame), _ROWS):
        query = {name: tf.convert_to_tensor(column[start : start + _ROWS]) for name, column in raw.items()}
        found = recommender.embed_query(**query)["embedding"].numpy()
        parts.append(found.reshape(len(found), -1).astype(np.float64))
    embeddings: Floats = np.concatenate(parts)
    require(bool(np.isfinite(embeddings).all()), "The embeddings of the queries must be finite.")
    return embeddings
