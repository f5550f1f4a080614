"""The report under attack: the plain report without one, and NumPy's on a linear model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import small
from tests.models.linear import Linear, linear_model, linear_rows
from tfmtl.evaluation import attack, binary_metrics, evaluate

RANKING = ["rating", "liked", "mood"]


def test_without_strength_it_is_the_report_of_the_ranking_tasks() -> None:
    model = small.model(eager=True)
    expected = evaluate(model, small.table(), tasks=RANKING)
    found = attack(model, small.table(), strength=0.0)
    assert list(found.index) == list(expected.index)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_each_task_is_attacked_alone(steps: int) -> None:
    """For one linear logit the worst shift of each row is its radius against the sign of the label."""
    model, batch = linear_model(None)
    reference = Linear(model, batch)
    radius = 0.7 * np.sqrt(np.mean(np.sum(reference.z**2, axis=1)))
    found = attack(model, linear_rows(), strength=0.7, steps=steps)
    for i, name in enumerate("ab"):
        kept = reference.seen[:, i]
        w = reference.w[:, i]
        shifts = radius * np.sign(0.5 - reference.y[:, [i]]) * w / np.linalg.norm(w)
        served, labels = reference.probabilities(shifts)[kept, i], reference.y[kept, i]
        for metric, value in binary_metrics(labels, served, np.ones(kept.sum())).items():
            assert found[name, metric] == pytest.approx(value, rel=1e-3), metric


def test_some_tasks_and_no_retrieval() -> None:
    model = small.model(eager=True)
    assert set(attack(model, small.table(), strength=0.1, tasks=["liked"]).index.get_level_values(0)) == {"liked"}
    with pytest.raises(ValueError, match="seen"):
        attack(model, small.table(), strength=0.1, tasks=["seen"])
    with pytest.raises(ValueError, match="`strength` must be 0 or more"):
        attack(model, small.table(), strength=-0.1)
