"""Maps that calibrate probabilities, fitted to logits and labels with numpy, scipy and scikit-learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

Floats = npt.NDArray[np.float64]

MOST_KNOTS = 64
SMALLEST_SLOPE = 1e-3
"""Least slope between the knots of an isotonic map, in units of the logit."""
_EVENTS = 10
_BOUNDS = (0.01, 100.0)


@dataclasses.dataclass(frozen=True)
class LogitMap:
    """An increasing map of logits in the form of `layers.Calibration`.

    Attributes:
        knots, values: x and y [K].
        slopes: s [K + 1].
    """

    knots: Floats
    values: Floats
    slopes: Floats

    @classmethod
    def affine(cls, slope: float, shift: float = 0.0) -> LogitMap:
        """Return slope z + shift."""
        return cls(np.zeros(1), np.array([shift]), np.full(2, slope))

    def shifted(self, shift: float) -> LogitMap:
        """Return the map plus a number."""
        return dataclasses.replace(self, values=self.values + shift)

    def padded(self, knots: int) -> tuple[Floats, Floats, Floats]:
        """Return knots, values and slopes with a number of knots, the last of them repeated."""
        more = [0, knots - len(self.knots)]
        return (
            np.pad(self.knots, more, "edge"),
            np.pad(self.values, more, "edge"),
            np.pad(self.slopes, more, "edge"),
        )

    def __call__(self, logits: Floats) -> Floats:
        """Return T of logits [n]."""
        part = np.searchsorted(self.knots, logits, side="left")
        knot = np.maximum(part - 1, 0)
        return self.values[knot] + self.slopes[part] * (logits - self.knots[knot])


Fit = Callable[[Floats, Floats, Floats], LogitMap | None]
"""Fits a map to logits [n, classes], or [n, 1] of an event, labels [n] and weights [n] above 0; None if no increasing
map is found."""


def temperature(logits: Floats, labels: Floats, weights: Floats) -> LogitMap | None:
    """Return z / T with the T in [0.01, 100] of least log loss, or None where no T is better than equal probabilities.

    The log loss is convex in a = 1 / T; its derivative sum_i w_i (sum_c p_ic z_ic - z_i,y) has one root.
    """
    full = np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits
    own = full[np.arange(len(full)), labels.astype(np.int64)]

    def slope(inverse: float) -> float:
        expected = (scipy.special.softmax(inverse * full, axis=1) * full).sum(axis=1)
        return float(weights @ (expected - own))

    if slope(0.0) >= 0:
        return None
    low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]
    if slope(low) >= 0:
        return LogitMap.affine(low)
    return LogitMap.affine(high if slope(high) <= 0 else float(scipy.optimize.brentq(slope, low, high, xtol=1e-12)))


def platt(logits: Floats, labels: Floats, weights: Floats) -> LogitMap | None:
    """Return a z + b of least log loss, or None unless a > 0.

    As in Platt's paper the labels are (n_1 + 1) / (n_1 + 2) and 1 / (n_0 + 2) for the numbers of rows n_1 and n_0 of
    each class, so that a is finite where a threshold separates the classes. Newton steps with halving.
    """
    z = logits[:, 0]
    positives = int(labels.sum())
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    inputs = np.stack([z, np.ones_like(z)], axis=1)

    def loss(found: Floats) -> float:
        score = inputs @ found
        return float(weights @ (np.logaddexp(0, score) - target * score))

    found = np.array([1.0, 0.0])
    for _ in range(100):
        p = scipy.special.expit(inputs @ found)
        gradient = inputs.T @ (weights * (p - target))
        hessian = (inputs * (weights * p * (1 - p))[:, np.newaxis]).T @ inputs + 1e-9 * weights.sum() * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        before = loss(found)
        while np.abs(step).max() > 1e-10 and loss(found - step) > before:
            step = step / 2
        if np.abs(step).max() <= 1e-10:
            break
        found = found - step
    return LogitMap.affine(*map(float, found)) if found[0] > 0 else None


def isotonic(logits: Floats, labels: Floats, weights: Floats) -> LogitMap | None:
    """Return a piecewise linear map through the centres of the blocks of an isotonic regression.

    Pool-adjacent-violators finds blocks of rows in the order of their logits. Successive blocks are joined until a
    group holds 1/64 of the weight, and 10 rows of each class; its knot is the mean of its logits, its value the logit
    of the mean of its labels. Outside of the outer knots the slope is 1. With one block the labels do not increase with
    the logits, and the result is None.
    """
    from sklearn.isotonic import IsotonicRegression  # imported here: it takes half a second

    order = np.argsort(logits[:, 0], kind="stable")
    z, y, w = (part[order] for part in (logits[:, 0], labels, weights))
    fitted = IsotonicRegression().fit(z, y, w).predict(z)
    if np.ptp(fitted) == 0:
        return None
    block = np.cumsum(np.append(False, np.diff(fitted) > 0))
    mass, centre, events, positives, rows = (
        np.bincount(block, part).astype(np.float64) for part in (w, w * z, w * y, y, np.ones_like(y))
    )
    firsts = _groups(mass, positives, rows - positives)
    mass, centre, events = (np.add.reduceat(part, firsts) for part in (mass, centre, events))
    knots, values = centre / mass, scipy.special.logit(events / mass)
    gaps = np.diff(knots)
    for i, gap in enumerate(gaps):
        values[i + 1] = max(values[i + 1], values[i] + SMALLEST_SLOPE * gap)
    return LogitMap(knots, values, np.concatenate([[1.0], np.diff(values) / gaps, [1.0]]))


def _groups(mass: Floats, positives: Floats, negatives: Floats) -> Sequence[int]:
    """Return the first block of each group; the last group takes the blocks that are too few for another one."""
    least = np.array([mass.sum() / MOST_KNOTS, min(_EVENTS, positives.sum()), min(_EVENTS, negatives.sum())])
    firsts, held = [0], np.zeros(3)
    for i, block in enumerate(zip(mass, positives, negatives, strict=True)):
        held = held + block
        if (held >= least).all():
            firsts.append(i + 1)
            held = np.zeros(3)
    return firsts[:-1] if len(firsts) > 1 else firsts


FITS: dict[str, Fit] = {"temperature": temperature, "platt": platt, "isotonic": isotonic}
