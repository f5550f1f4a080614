"""Shapley values of features, by sampled orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require_positive_int
from tfmtl._keras import tf
from tfmtl.data.frames import rows_of
from tfmtl.interpretation.attributions import Attributions
from tfmtl.interpretation.importance import members_of
from tfmtl.models import MultiTaskModel
from tfmtl.models.explained import Floats, Values, chosen_tasks, encoded_rows, rows_at


def shapley_values(
    model: MultiTaskModel,
    table: Any,
    background: Any,
    *,
    samples: int = 64,
    groups: Mapping[str, Sequence[str]] | None = None,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Attributions:
    r"""Attribute the values of tasks to features by Shapley values, with standard errors.

    Use them where gradients do not reach: trees, matches and bins count too. A feature is absent from a row if it has
    the value of a background row. With v(S) the mean value of a task for rows with the features S of their own and all
    others of a background row, A_f = mean over orders of v(features up to f) - v(features before f). Each sample draws
    an order and a background row; samples come in pairs with reversed orders, which have less variance. The parts of a
    row add up to its value minus the mean value of its background rows (`base`), exactly.

    Args:
        model: a trained model.
        table: the rows to explain, without need of labels: a table (pandas, PyArrow, Polars), or a `Batch`.
        background: rows from which absent features are read, usually of the training table.
        samples: orders per row; an odd number is rounded up.
        groups: features that come and go together; every other feature is alone.
        tasks: names of the tasks, all by default.
        classes: for tasks with several served values, the one to explain; by default the largest one in each row.
        seed: seed of the orders and of the background rows.

    Returns:
        The parts by row, feature or group, and task, with their standard errors (NaN for a single pair).

    Raises:
        ValueError: if a task, feature or column does not exist, or `samples` is not a positive integer.

    Example:
        >>> # shapley_values(model, test.head(20), background=train).to_frame().loc[0]

    Cost: `samples` forward passes per feature and row.

    Reference: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017,
    https://arxiv.org/abs/1705.07874; Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on
    sampling", Computers & Operations Research 2009, https://doi.org/10.1016/j.cor.2008.04.004, algorithm 1; Mitchell
    et al., "Sampling Permutations for Shapley Value Estimation", JMLR 2022, https://arxiv.org/abs/2104.12199 (pairs).
    """
    chosen = chosen_tasks(model, tasks)
    require_positive_int(samples=samples)
    batch, other = encoded_rows(model, table), encoded_rows(model, background, name="background")
    members = members_of(groups, list(model.network.input))
    values = Values(model, chosen)
    columns = values.columns(batch.features, classes)
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(-(-samples // 2)):
        drawn = rng.integers(0, rows_of(other), rows_of(batch))
        game = _game(values, columns, batch.features, rows_at(other.features, drawn), list(members.values()))
        pairs.append(_pair(game, rng.permuted(np.tile(np.arange(len(members)), (rows_of(batch), 1)), axis=1)))
    parts, errors, base = _summary(pairs)
    output = values(batch.features, columns)
    gap = output - base - parts.sum(axis=1)
    return Attributions(list(members), [task.name for task in chosen], parts, output, base, gap, {}, errors)


def _summary(pairs: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats, Floats]:
    """Return the mean parts, their standard errors, and the mean values without features, over samples."""
    parts = np.stack([part for part, _ in pairs])
    mean: Floats = parts.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors: Floats = np.sqrt(((parts - mean) ** 2).sum(axis=0) / (len(parts) - 1) / len(parts))
    base: Floats = np.mean([start for _, start in pairs], axis=0)
    return mean, errors, base


Game = Callable[[npt.NDArray[np.bool_]], Floats]
"""From the features that each row has of its own [N, F] to the values [N, K]."""


def _game(
    values: Values, columns: Any, own: Mapping[str, tf.Tensor], other: Mapping[str, tf.Tensor], groups: Any
) -> Game:
    """Return the game of rows with features of their own and of other rows."""

    def play(present: npt.NDArray[np.bool_]) -> Floats:
        mixed = dict(own)
        for k, names in enumerate(groups):
            for name in names:
                keep = present[:, k].reshape([-1, *[1] * (len(own[name].shape) - 1)])
                mixed[name] = tf.where(keep, own[name], other[name])
        return values(mixed, columns)

    return play


def _pair(game: Game, orders: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the mean parts [N, F, K] of orders [N, F] and their reverses, and the values without features [N, K]."""
    rows, features = orders.shape
    start, end = (game(np.full([rows, features], present)) for present in (False, True))
    parts = np.zeros([rows, features, start.shape[1]])
    for order in (orders, orders[:, ::-1]):
        present = np.zeros([rows, features], bool)
        before = start
        for i in range(features):
            present[np.arange(rows), order[:, i]] = True
            after = end if i == features - 1 else game(present)
            parts[np.arange(rows), order[:, i]] += (after - before) / 2
            before = after
    return parts, start
