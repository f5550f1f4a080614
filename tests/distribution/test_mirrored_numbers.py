"""Heads of numbers and further losses on two replicas."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest

from tests.distribution.processes import answers
from tests.models import numbers
from tfmtl._keras import tf
from tfmtl.tasks import GroupLoss, LossInputs
from tfmtl.tasks.group_loss import GroupKind

ROWS: dict[str, list[Any]] = {
    "scores": [0.3, -0.7, 1.1, 0.2, 0.9, -0.4, 0.5],
    "labels": [1.0, 0.0, 2.0, 0.0, 1.0, float("nan"), 2.0],
    "weights": [1.0, 2.0, 0.5, 1.0, 1.0, 0.0, 3.0],
    "users": [5, 6, 5, 6, 5, 6, 6],  # rows of both users are on both replicas
}
CASES = [(cut, kind) for kind in get_args(GroupKind) for cut in (3, 0)]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    arguments = [json.dumps({"rows": ROWS, "cases": CASES})]
    [printed] = answers("tests.distribution.mirrored_numbers", arguments=arguments, seconds=900)  # it traces 11 heads
    return dict(printed)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_group_with_rows_on_two_replicas_is_one_group(found: dict[str, Any], case: int) -> None:
    """The whole gradient is compared: pairs of rows on different replicas pull on both."""
    scores, labels, weights = (tf.constant(ROWS[name]) for name in ("scores", "labels", "weights"))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        inputs = LossInputs({"user": tf.constant(ROWS["users"])})
        loss = GroupLoss(CASES[case][1], "user").of_batch(scores, labels, weights, inputs)
    losses, gradient = found["groups"][case]
    assert losses == pytest.approx([float(loss)] * 2, rel=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(loss, scores), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_replicas_train_heads_of_numbers_as_one_device(found: dict[str, Any]) -> None:
    """Logs, metrics and weights, though half batches hold different numbers of labels, and the last one none."""
    assert {f"{name}_loss" for name in numbers.NAMES} < set(found["logged"])
    assert {"evaluated_huber_logistic_by_user", "evaluated_quantiles_huber_loss"} < set(found["logged"])
    assert found["difference"] < 1e-4
