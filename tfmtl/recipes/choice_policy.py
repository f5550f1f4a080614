"""A linear policy over a few choices, learned from logged decisions with propensities and judged on other users."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.recipes.judged_lists import Floats

Ints = npt.NDArray[np.int64]

PENALTIES = (math.inf, 10.0, 1.0, 0.1)
"""Penalties to choose from; the first one ignores the context."""
LOGGED, SINGLE, CONTEXT = "logged", "single choice", "by context"


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Logged decisions.

    Attributes:
        contexts: [n, d], of any scale.
        rewards: [n].
        propensities: [n] probability of the logged action, in (0, 1].
        probabilities: [n, A] probability of the logged action under each choice: 1 for a logged choice and 0 for the
            others, or that of a candidate in the lists of each choice.
        users: [n] user of each row.
    """

    contexts: Floats
    rewards: Floats
    propensities: Floats
    probabilities: Floats
    users: npt.NDArray[np.generic]

    @property
    def ratios(self) -> Floats:
        """The weights [n, A] of the rows for each choice."""
        found: Floats = self.probabilities / self.propensities[:, None]
        return found

    def of_rows(self, rows: npt.NDArray[np.bool_]) -> Decisions:
        """Return some of the rows."""
        return Decisions(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def fit(self, penalty: float) -> Floats:
        """Return the coefficients [A, d + 1] of the rewards of each choice: a weighted ridge regression.

        With w = `ratios` of a choice and standardised x: min_{b, c} sum w (r - b - c x)^2 / sum w + penalty |c|^2.
        Without rows of a choice b is the mean reward.

        Args:
            penalty: infinity for c = 0.
        """
        center, scale = self.contexts.mean(axis=0), self.contexts.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        inputs = (self.contexts - center) / scale
        found = np.zeros([self.ratios.shape[1], inputs.shape[1] + 1])
        for own, weight in zip(found, self.ratios.T, strict=True):
            weight = weight / weight.sum() if weight.any() else np.full(len(weight), 1 / len(weight))
            mean, reward = weight @ inputs, weight @ self.rewards
            if math.isfinite(penalty):
                moved = inputs - mean
                matrix = moved.T @ (weight[:, None] * moved) + penalty * np.eye(len(mean))
                own[1:] = np.linalg.solve(matrix, moved.T @ (weight * (self.rewards - reward)))
            own[0] = reward - own[1:] @ mean
        found[:, 1:] /= scale
        found[:, 0] -= found[:, 1:] @ center
        return found


def predicted(coefficients: Floats, contexts: Floats) -> Floats:
    """Return the reward [n, A] of each choice."""
    found: Floats = contexts @ coefficients[:, 1:].T + coefficients[:, 0]
    return found


@dataclasses.dataclass(frozen=True)
class Judged:
    """The rows under one policy, by coefficients of other users.

    Attributes:
        ratios: [n] w, probability of the logged action under the policy, divided by its propensity.
        predictions: [n] q, reward of the policy's choice by a regression on other users.
        rewards: [n].
    """

    ratios: Floats
    predictions: Floats
    rewards: Floats

    def values(self, weights: npt.ArrayLike) -> dict[str, float]:
        """Return the mean reward by estimator, as `off_policy_value` does; q is that of the choice, not of the action.

        Args:
            weights: [n] multiplicities of the rows.
        """
        count = np.asarray(weights, np.float64)
        mass = count @ self.ratios
        gains = self.ratios * self.rewards
        doubly = self.predictions + self.ratios * (self.rewards - self.predictions)
        return {
            "ips": float(count @ gains / count.sum()),
            "snips": float(count @ gains / mass) if mass > 0 else math.nan,
            "dr": float(count @ doubly / count.sum()),
        }

    @property
    def effective_rows(self) -> float:
        """(sum w)^2 / sum w^2."""
        squares = float(self.ratios @ self.ratios)
        return float(self.ratios.sum()) ** 2 / squares if squares > 0 else 0.0


def judge(log: Decisions, folds: int, seed: int) -> tuple[dict[str, Judged], float]:
    """Return the logged policy, the best single choice and the policy on users outside, and the best penalty of all.

    Users are split into folds; the coefficients of each fold are those of the others. The penalty of a fold is the one
    with the largest SNIPS value on the rows of the other folds.

    Args:
        log: the decisions.
        folds: number of folds, at least 2.
        seed: of the folds.
    """
    fold, rows = folds_of(log.users, folds, seed), np.arange(len(log.rewards))
    chosen = np.zeros([len(PENALTIES), len(rows)], np.int64)
    best = np.zeros([len(PENALTIES), len(rows)])
    for number in np.unique(fold):
        inside = fold == number
        for row, penalty in enumerate(PENALTIES):
            values = predicted(log.of_rows(~inside).fit(penalty), log.contexts[inside])
            chosen[row, inside], best[row, inside] = values.argmax(axis=1), values.max(axis=1)
    ratios = log.ratios[rows, chosen]
    policies = [Judged(own, q, log.rewards) for own, q in zip(ratios, best, strict=True)]
    level = np.zeros(len(rows), np.int64)
    for number in np.unique(fold):
        level[fold == number] = _best(policies, fold != number)
    single, context = policies[0], Judged(ratios[level, rows], best[level, rows], log.rewards)
    logged = Judged(np.ones(len(rows)), np.full(len(rows), log.rewards.mean()), log.rewards)
    judged: Mapping[str, Judged] = {SINGLE: single, CONTEXT: context, LOGGED: logged}
    return dict(judged), PENALTIES[_best(policies, np.ones(len(rows), bool))]


def _best(policies: list[Judged], rows: npt.NDArray[np.bool_]) -> int:
    """Return the number of the policy with the largest SNIPS value on some rows; the first one where none has any."""
    return int(np.nan_to_num([policy.values(rows)["snips"] for policy in policies], nan=-math.inf).argmax())


def folds_of(users: npt.NDArray[np.generic], folds: int, seed: int) -> Ints:
    """Return the fold [n] of each row; a user is in one fold."""
    _, user = np.unique(users, return_inverse=True)
    count = int(user.max()) + 1
    require(count > 1, "The log must have rows of at least two users.", users=count)
    found: Ints = np.random.default_rng(seed).permutation(count)[user] % min(folds, count)
    return found
