from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, NOTHING, loss_of
from tfmtl._keras import tf
from tfmtl.tasks import BinaryClassification, LossInputs, MultiClassClassification, Ranking

TRAINING = LossInputs({}, training=True)
BINARY, CLASSES = BinaryClassification("t", label_smoothing=0.2), MultiClassClassification("t", 4, label_smoothing=0.2)
PLAIN: dict[Ranking, Ranking] = {BINARY: BinaryClassification("t"), CLASSES: MultiClassClassification("t", 4)}


@pytest.mark.parametrize(
    ("task", "labels", "outputs", "expected"),
    [
        # Labels 0.9 and 0.1 against probabilities 3/4 and 1/2, weights 1 and 3.
        (
            BINARY, [1, 0], [[np.log(3)], [0]],
            (-0.9 * np.log(3 / 4) - 0.1 * np.log(1 / 4) + 3 * np.log(2)) / 4,
        ),
        # 0.85 on the class and 0.05 on the three others, probabilities 1/8, 2/8, 4/8, 1/8 in both rows.
        (
            CLASSES, [2, 0], [[0, np.log(2), np.log(4), 0]] * 2,
            (0.85 * np.log(2) + 0.05 * (2 * np.log(8) + np.log(4))
             + 3 * (0.85 * np.log(8) + 0.05 * (np.log(4) + np.log(2) + np.log(8)))) / 4,
        ),
    ],
    ids=["binary", "multi-class"],
)  # fmt: skip
def test_golden_loss(task: Ranking, labels: list[float], outputs: Any, expected: float) -> None:
    loss, weight, _ = loss_of(task, labels, outputs, [1.0, 3.0], TRAINING)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert weight == 4


@pytest.mark.parametrize("label", [0, 1])
def test_the_best_probability_of_a_sure_event_is_1_less_half_the_smoothing(label: int) -> None:
    best = [0.1, 0.9][label]
    for shift in (-0.5, 0.0, 0.5):
        _, _, gradient = loss_of(BINARY, [label], [[np.log(best / (1 - best)) + shift]], [1.0], TRAINING)
        assert np.sign(gradient[0, 0].round(5)) == np.sign(shift)


def test_the_best_probability_of_a_sure_class_is_1_less_the_others_share() -> None:
    best = np.log([[0.05, 0.85, 0.05, 0.05]])
    assert np.abs(loss_of(CLASSES, [1], best, [1.0], TRAINING)[2]).max() < 1e-6
    gradient = loss_of(CLASSES, [1], np.add(best, [[0, 0.5, 0, 0]]), [1.0], TRAINING)[2]
    assert gradient[0, 1] > 0.01
    assert gradient[0, [0, 2, 3]].max() < 0


@pytest.mark.parametrize("task", [BINARY, CLASSES], ids=["binary", "multi-class"])
def test_validation_and_metrics_know_nothing_of_it(task: Ranking) -> None:
    outputs = [[0.3], [2.0], [-1.0]] if task is BINARY else [[0.3, 1, 2, 0], [2.0, 0, 1, 1], [-1.0, 0, 1, 2]]
    rows = [1, 0, NAN], outputs, [1.0, 2.0, 0.0]
    for found, expected in zip(loss_of(task, *rows, NOTHING), loss_of(PLAIN[task], *rows, TRAINING), strict=True):
        np.testing.assert_array_equal(found, expected)
    measured = []
    for each in (task, PLAIN[task]):
        fresh = type(each).from_config(each.get_config())
        fresh.update_metrics(*map(tf.constant, rows), TRAINING)
        measured.append([float(metric.result()) for metric in fresh.metrics])
    assert measured[0] == measured[1]


@pytest.mark.parametrize("task", [BINARY, CLASSES], ids=["binary", "multi-class"])
def test_missing_rows_touch_neither_loss_nor_gradient(task: Ranking) -> None:
    outputs = [[0.3], [2.0], [-1.0]] if task is BINARY else [[0.3, 1, 2, 0], [2.0, 0, 1, 1], [-1.0, 0, 1, 2]]
    some, _, gradient = loss_of(task, [1, NAN, 0], outputs, [1.0, 0.0, 2.0], TRAINING)
    assert some == pytest.approx(loss_of(task, [1, 0], [outputs[0], outputs[2]], [1.0, 2.0], TRAINING)[0], rel=1e-6)
    np.testing.assert_array_equal(gradient[1], 0)
    loss, weight, gradient = loss_of(task, [NAN] * 3, outputs, [0.0] * 3, TRAINING)
    assert (loss, weight) == (0, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_the_smoothing_is_checked(smoothing: float) -> None:
    for make in (BinaryClassification, lambda name, **given: MultiClassClassification(name, 3, **given)):
        with pytest.raises(ValueError, match=r"`label_smoothing` must be a number in \[0, 1\)"):
            make("t", label_smoothing=smoothing)  # type: ignore[operator]
