"""Discounted sums of losses over the rest of a session."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.allocation.affinity import Floats


def discounted_sums(losses: npt.ArrayLike, sessions: npt.ArrayLike, times: npt.ArrayLike, discount: float) -> Floats:
    """Return y_t = l_t + gamma y_(t+1) [N, K] over the rows of each session in order of time, in the order of the rows.

    Args:
        losses: l [N, K], 0 where a row has no label.
        sessions: numbers of the sessions [N]; a row with -1 is a session of its own.
        times: [N]; rows of one session and moment follow each other in the order of the rows.
        discount: gamma, in [0, 1].

    Raises:
        ValueError: if the arguments do not have the same rows, or the discount is out of range.

    Example:
        >>> sums = discounted_sums([[1.0], [2.0], [4.0]], sessions=[0, 1, 0], times=[5, 6, 7], discount=0.5)
        >>> sums[:, 0].tolist()  # 1 + 0.5 * 4, and the last rows of both sessions
        [3.0, 2.0, 4.0]

    Cost: a sort of the rows, and about 1 us per row.
    """
    losses, numbers, moments = np.array(losses, np.float64), np.asarray(sessions), np.asarray(times)
    require_discount(discount)
    require(
        losses.ndim == 2 and numbers.shape == moments.shape == losses.shape[:1],
        "Losses [N, K], sessions [N] and times [N] must have one entry for each row.",
        losses=losses.shape, sessions=numbers.shape, times=moments.shape,
    )  # fmt: skip
    order = np.lexsort([moments, numbers])  # a stable sort
    sums, sorted_numbers = losses[order], numbers[order]
    goes_on = (sorted_numbers[1:] == sorted_numbers[:-1]) & (sorted_numbers[1:] >= 0)
    for row in np.flatnonzero(goes_on)[::-1]:
        sums[row] += discount * sums[row + 1]
    losses[order] = sums
    return losses


def require_discount(discount: float) -> None:
    """Raise `ValueError` unless the discount is a number from 0 to 1."""
    number = isinstance(discount, int | float) and not isinstance(discount, bool)
    require(number and 0 <= discount <= 1, "`discount` must be a number from 0 to 1.", discount=discount)
