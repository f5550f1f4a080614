"""Weights of an ensemble's members, learned from rows that no member was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from tfmtl._checks import require_positive_int
from tfmtl.ensembling.ensemble import require_alike
from tfmtl.ensembling.evidence import Objective, blocks
from tfmtl.models import MultiTaskModel

_SMALLEST = 1e-3  # a member of less costs as much as any other and changes nothing
_SAME = 1e-6  # relative difference of two losses that float32 cannot tell apart


def fit_weights(models: Sequence[MultiTaskModel], validation: Any, *, batch_size: int = 1024) -> dict[str, list[float]]:
    """Return the weights by task that make the validation loss least, for `ensemble`.

    min over s of L_k(pool_s(outputs)) with s_m >= 0 and sum_m s_m = 1, L_k being the loss of task k: of numbers,
    events, classes and retrieval scores it is convex in s, so that what is found is the best there is. Neither a single
    member nor the plain mean is better on the validation rows.

    Args:
        models: members, as of `ensemble`.
        validation: pandas table that no member was trained on; on training rows the most overfitted member wins.
        batch_size: rows a block, among whose candidates retrieval is judged.

    Returns:
        Weights [M] by task, which sum to 1; those below 0.001 are 0.

    Raises:
        ValueError: if the members differ, or no row has a label of a task.

    Example:
        Two of three members that are worth something, and their ensemble::

            weights = fit_weights(models, valid)  # {"rating": [0.6, 0.4, 0.0], ...}
            model = ensemble(models, weights)

    Reference:
        Minimised by sequential least squares: Kraft, "A software package for sequential quadratic programming", DFVLR
        1988, as `scipy.optimize.minimize(method="SLSQP")`. For numbers these are the stacked regressions of Breiman,
        Machine Learning 24, 1996, https://doi.org/10.1007/BF00117832, with weights that sum to 1.

    Cost: one forward pass a member over the table and some dozens of evaluations of the losses; of
    retrieval `batch_size` d multiplications a row each, three times with the gradient.
    """
    require_alike(models)
    objectives = _objectives(models, validation, batch_size)
    return {name: simplex_weights(objective) for name, objective in objectives.items()}


def select_weights(
    models: Sequence[MultiTaskModel], validation: Any, *, rounds: int = 20, batch_size: int = 1024
) -> dict[str, list[float]]:
    """Return weights by task from a greedy selection of members, for `ensemble`.

    Start from nothing; in each round add the member, chosen ones again among them, with which the mean of the chosen
    has the least validation loss. Weights are the counts at the best round, over their sum. With few validation rows
    its few steps overfit less than `fit_weights`.

    Args:
        models, validation, batch_size: as of `fit_weights`.
        rounds: members chosen at most, with repetition.

    Returns:
        Weights [M] by task, multiples of 1 / n for an n of at most `rounds`.

    Raises:
        ValueError: as `fit_weights`.

    Reference:
        Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004,
        https://doi.org/10.1145/1015330.1015432, section 2.1, without bagging.

    Cost: one forward pass a member over the table and `rounds` evaluations of the loss a member.
    """
    require_positive_int(rounds=rounds)
    require_alike(models)
    objectives = _objectives(models, validation, batch_size)
    return {name: _selected(objective, rounds) for name, objective in objectives.items()}


def simplex_weights(objective: Objective) -> list[float]:
    """Return the shares of at least 0 that sum to 1 and have the least loss."""
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
    if losses[best] > losses[0] - _SAME * max(1.0, abs(losses[0])):  # members that do not differ share evenly
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
