"""Reliability curves: shares by bin, and their plot."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.evaluation import calibration_error, reliability_curve

pytest.importorskip("matplotlib")


def test_golden_values() -> None:
    """The rows without a label or weight do not count; the bin from 0.5 to 0.75 is empty."""
    labels = [0, 1, 1, np.nan, 0]
    curve = reliability_curve(labels, [0.1, 0.2, 0.9, 0.6, 0.6], [1.0, 3.0, 4.0, 1.0, 0.0], bins=4)
    assert curve.index.tolist() == [0, 3]
    assert curve["predicted"].tolist() == pytest.approx([0.175, 0.9])  # (0.1 + 3 0.2) / 4
    assert curve["observed"].tolist() == pytest.approx([0.75, 1.0])
    assert curve["share"].tolist() == [0.5, 0.5]
    assert curve["rows"].tolist() == [2, 1]


@pytest.mark.parametrize("equal_mass", [False, True])
def test_the_mean_gap_is_the_calibration_error(equal_mass: bool) -> None:
    rng = np.random.default_rng(0)
    p, weights = rng.random(500) ** 2, rng.random(500)
    labels = (rng.random(500) < p**2).astype(float)
    curve = reliability_curve(labels, p, weights, bins=7, equal_mass=equal_mass)
    gap = (curve["share"] * (curve["predicted"] - curve["observed"]).abs()).sum()
    assert gap == pytest.approx(calibration_error(labels, p, weights, bins=7, equal_mass=equal_mass))
    assert curve["rows"].sum() == 500


def test_no_row_is_an_empty_curve() -> None:
    assert len(reliability_curve([np.nan], [0.5])) == len(reliability_curve([np.nan], [0.5], equal_mass=True)) == 0


def test_plot_shows_every_curve_with_its_error() -> None:
    from tfmtl.evaluation import plots

    before = reliability_curve([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
    figure = plots.reliability({"before": before, "after": before.assign(predicted=before["observed"])})
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].get_lines()[1:]}
    assert lines == {"before (ECE 0.2500)": [0.5, 1.0], "after (ECE 0.0000)": [0.5, 1.0]}
    with pytest.raises(ValueError, match="`curves` must hold at least one curve"):
        plots.reliability({})
