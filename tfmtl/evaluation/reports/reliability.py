"""Reliability curves: predicted and observed shares of positives by bin of the probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl.evaluation.thresholds import binned


def reliability_curve(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    bins: int = 10,
    equal_mass: bool = False,
) -> pd.DataFrame:
    """Return the reliability curve of probabilities: the predicted and the observed share of positives in bins.

    Use it before and after `recipes.calibrate`; `evaluation.plots.reliability` draws several. The bins are those of
    `calibration_error`, which is the mean of |predicted - observed| weighted by `share`.

    Args:
        labels: [n] 0, 1 or NaN.
        probabilities: [n] in [0, 1].
        weights: [n] non-negative, 1 by default.
        bins, equal_mass: as in `calibration_error`.

    Returns:
        One line per bin with a row, by its number from 0: `predicted` and `observed`, the weighted means of the
        probabilities and of the labels; `share`, the part of the weight of all rows; and the number of `rows`.

    Raises:
        ValueError: as in `calibration_error`.

    Example:
        >>> curve = reliability_curve([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
        >>> curve[["predicted", "observed", "rows"]].to_numpy().tolist()
        [[0.25, 0.5, 2.0], [0.75, 1.0, 2.0]]

    Reference: Niculescu-Mizil, Caruana, "Predicting Good Probabilities with Supervised Learning", ICML 2005,
    https://doi.org/10.1145/1102351.1102430, section 3.
    """
    found = binned(labels, probabilities, weights, bins, equal_mass)
    mass, predicted, observed = (
        np.bincount(found.bins, weights=part, minlength=bins)
        for part in (found.weights, found.weights * found.probabilities, found.weights * found.labels)
    )
    rows = np.bincount(found.bins, minlength=bins)
    held = np.flatnonzero(rows)
    columns: dict[str, Any] = {"predicted": predicted[held] / mass[held], "observed": observed[held] / mass[held]}
    columns |= {"share": mass[held] / mass.sum(), "rows": rows[held]}
    return pd.DataFrame(columns, index=pd.Index(held, name="bin"))
