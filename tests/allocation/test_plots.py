"""Pictures of affinities and schedules hold their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.allocation import Affinity, Phase, Schedule, affinity_heat_map, schedule_chart

SCHEDULE = Schedule(["click", "buy"], [Phase(100, ("buy",)), Phase(50, ("click", "buy"))])


def test_a_heat_map_has_a_sign_by_color_and_no_diagonal() -> None:
    affinity = Affinity(["a", "b", "c"], [[9.0, 0.5, -0.5], [0.0, 9.0, 0.25], [0.1, -0.1, 9.0]])
    axis = affinity_heat_map(affinity).axes[0]
    image = axis.images[0]
    assert image.get_clim() == (-0.5, 0.5)
    red, blue = image.to_rgba(np.array([-0.5, 0.5]))[:, [0, 2]]
    assert red[0] > red[1]
    assert blue[1] > blue[0]
    assert len(axis.texts) == 6
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]


def test_a_chart_over_time_has_the_seconds_of_each_phase() -> None:
    axis = schedule_chart(SCHEDULE, [2.0, 3.0]).axes[0]
    bars = [(bar.get_x(), bar.get_width(), round(bar.get_y() + bar.get_height() / 2)) for bar in axis.patches]
    assert bars == [(2.0, 3.0, 0), (0.0, 2.0, 1), (2.0, 3.0, 1)]
    assert axis.get_xlabel() == "seconds"
    assert axis.get_xlim() == (0.0, 5.0)


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match="`seconds` must hold a finite number for each phase"):
        schedule_chart(SCHEDULE, [1.0])
    with pytest.raises(ValueError, match="`seconds` must hold a finite number for each phase"):
        schedule_chart(SCHEDULE, [1.0, float("nan")])
    with pytest.raises(TypeError, match="`affinity` must be Affinity"):
        affinity_heat_map([[0.0]])  # type: ignore[arg-type]
