"""Weights of ensemble members, fitted to rows on which no member was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from tfmtl._checks import require_positive_int
from tfmtl.ensembling.ensemble import require_alike
from tfmtl.ensembling.evidence import Objective, blocks
from tfmtl.models import MultiTaskModel

_SMALLEST = 1e-3  # a member with a smaller share hardly changes the result, at the cost of any other
_SAME = 1e-6  # relative difference of two losses that float32 does not resolve


def fit_weights(models: Sequence[MultiTaskModel], validation: Any, *, batch_size: int = 1024) -> dict[str, list[float]]:
    """Return the weights of ensemble members by task that minimize the validation loss.

    Use them in `ensemble` if the validation table is large; with few rows `select_weights` overfits less.

    They minimize L_k(pool_s(outputs)) over s with s_m >= 0 and sum_m s_m = 1, with L_k the loss of task k. For events,
    classes, retrieval scores and most numbers the problem is convex, so that the result is the global minimum. It is
    not for `ChainedRegression`, `ZeroInflatedLognormal` and some `extra_losses`, of which another minimum may be
    lower. For any task, no single member and no equal mean of all members is better on the validation rows.

    Args:
        models: the members, as in `ensemble`.
        validation: pandas table on which no member was trained; on training rows the most overfitted member would win.
        batch_size: rows per block; a retrieval loss compares the candidates of one block.

    Returns:
        Weights [M] by task, with sum 1; weights below 0.001 are set to 0.

    Raises:
        ValueError: if the members differ, or no row has a label of a task.

    Example:
        The weights of three members, the third of which is of no use for ratings::

            weights = fit_weights(models, valid)  # {"rating": [0.6, 0.4, 0.0], ...}
            model = ensemble(models, weights)

    Reference:
        Algorithm: Kraft, "A software package for sequential quadratic programming", DFVLR 1988, by
        `scipy.optimize.minimize(method="SLSQP")`. For numbers the result are the stacked regressions of Breiman,
        Machine Learning 24, 1996, https://doi.org/10.1007/BF00117832, with weights that also sum to 1.

    Cost: one forward pass per member over the table and some dozens of evaluations of the losses. For retrieval each
    evaluation takes `batch_size` d multiplications per row, three times as many with the gradient.
    """
    require_alike(models)
    objectives = _objectives(models, validation, batch_size)
    return {name: simplex_weights(objective) for name, objective in objectives.items()}


def select_weights(
    models: Sequence[MultiTaskModel], validation: Any, *, rounds: int = 20, batch_size: int = 1024
) -> dict[str, list[float]]:
    """Ensemble selection: return weights of members by task from a greedy selection with repetition.

    Use it in place of `fit_weights` if there are few validation rows: its few steps overfit less.

    The selection starts empty. Each round adds the member, possibly one that is already selected, with which the mean
    of the selected members has the least validation loss. The weights are the counts after the best round, divided by
    their sum.

    Args:
        models, validation, batch_size: as in `fit_weights`.
        rounds: number of rounds.

    Returns:
        Weights [M] by task, multiples of 1 / n for an n of at most `rounds`.

    Raises:
        ValueError: as in `fit_weights`.

    Reference:
        Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004,
        https://doi.org/10.1145/1015330.1015432, section 2.1, without bagging.

    Cost: one forward pass per member over the table, and `rounds` evaluations of the loss per member.
    """
    require_positive_int(rounds=rounds)
    require_alike(models)
    objectives = _objectives(models, validation, batch_size)
    return {name: _selected(objective, rounds) for name, objective in objectives.items()}


def simplex_weights(objective: Objective) -> list[float]:
    """Return the shares with the least loss among those that are at least 0 and sum to 1."""
    members = objective.members
    uniform = np.full(members, 1.0 / members)
    found = minimize(
        objective,
        uniform,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * members,
        constraints={"type": "eq", "fun": lambda s: s.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": 1e-7},
    )
    tried = [uniform, *np.eye(members)]
    if np.isfinite(found.x).all() and found.x.max() > _SMALLEST:
        kept = np.where(found.x < _SMALLEST, 0.0, found.x)
        tried.insert(1, kept / kept.sum())
    losses = [objective(shares)[0] for shares in tried]
    best = int(np.nanargmin(losses))
    if losses[best] > losses[0] - _SAME * max(1.0, abs(losses[0])):  # members without a difference get equal shares
        best = 0
    return [float(share) for share in tried[best]]


def _objectives(models: Sequence[MultiTaskModel], validation: Any, batch_size: int) -> dict[str, Objective]:
    return {name: Objective(found) for name, found in blocks(models, validation, batch_size).items()}


def _selected(objective: Objective, rounds: int) -> list[float]:
    counts = np.zeros(objective.members)
    best, best_loss = counts, np.inf
    for _ in range(rounds):
        options = counts + np.eye(objective.members)
        losses = [objective(option / option.sum())[0] for option in options]
        counts = options[int(np.nanargmin(losses))]
        if min(losses) < best_loss:
            best, best_loss = counts, min(losses)
    return [float(share) for share in best / best.sum()]
