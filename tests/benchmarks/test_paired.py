from __future__ import annotations

import numpy as np
import paired
import pytest


def test_interval_is_students() -> None:
    # Mean 2, standard error 1 / sqrt(3), and 4.30265 is the 97.5 % quantile of t with 2 degrees of freedom.
    assert paired.interval([1, 2, 3]) == f"2.0000 ± {4.30265 / np.sqrt(3):.4f}"
    assert paired.interval([1, 2, 3], "+.1f") == "+2.0 ± 2.5"
    assert paired.interval([1.5]) == "1.5000 ± nan"


def test_spread_is_the_median_and_the_range_or_the_middle_half() -> None:
    ratios = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert paired.spread(ratios) == "3.00 (1.00 to 5.00)"
    assert paired.spread(iter(ratios), ".1f", half=True) == "3.0 (2.0 to 4.0)"
    assert paired.spread(np.array([2.0]), half=True) == "2.00 (2.00 to 2.00)"


def test_compare_begins_with_the_mean_and_pairs_by_seed(capsys: pytest.CaptureFixture) -> None:
    values = {"mean": [1.0, 2.0], "other": [3.0, 4.0]}
    paired.compare(lambda name, seed: [values[name][seed]], ["other", "mean"], {"liked": "AUC"}, 2)
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head == "| variant | liked AUC | liked AUC, against mean | seconds |"
    assert first == "| mean | 1.5000 ± 6.3531 | 0.0000 ± 0.0000 | 0 |"
    assert second == "| other | 3.5000 ± 6.3531 | 2.0000 ± 0.0000 | 0 |"
