"""What each task makes of a teacher's outputs.

The golden value is the same for all distributions: at T = 2 a teacher with logits (0, 0) gives (1/2, 1/2), a student
with (0, 2 ln 3) gives (1/4, 3/4), so that T^2 KL = 4 (1/2 ln(2) + 1/2 ln(2/3)) = 2 ln(4/3).
"""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tfmtl._keras import tf
from tfmtl.tasks import BinaryClassification, LossInputs, MultiClassClassification, Regression, Retrieval, Task

GOLDEN = 2 * np.log(4 / 3)
LN3 = np.log(3.0)
NOTHING = LossInputs({})


def test_binary_loss_is_temperature_squared_times_the_divergence() -> None:
    task = BinaryClassification("click")
    student, teacher = tf.constant([[2 * LN3], [50.0]], tf.float32), tf.constant([[0.0], [-50.0]])
    loss = task.distillation_loss(student, teacher, tf.constant([1.0, 0.0]), NOTHING, 2.0)
    assert float(loss) == pytest.approx(GOLDEN, rel=1e-5)


def test_binary_gradient_is_temperature_times_the_difference_of_probabilities() -> None:
    # d/ds T^2 KL = T (sigma(s / T) - sigma(t / T)) = 2 (3/4 - 1/2): downhill leads towards the teacher.
    student = tf.constant([[2 * LN3]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = BinaryClassification("click").distillation_loss(student, tf.zeros([1, 1]), tf.ones([1]), NOTHING, 2.0)
    assert float(tape.gradient(loss, student)[0, 0]) == pytest.approx(0.5, rel=1e-5)


def test_multi_class_loss_is_temperature_squared_times_the_divergence() -> None:
    task = MultiClassClassification("age", num_classes=2)
    student, teacher = tf.constant([[0.0, 2 * LN3]], tf.float32), tf.zeros([1, 2])
    assert float(task.distillation_loss(student, teacher, tf.ones([1]), NOTHING, 2.0)) == pytest.approx(
        GOLDEN, rel=1e-5
    )


def test_regression_loss_is_the_weighted_mean_squared_difference_at_any_temperature() -> None:
    task = Regression("rating", offset=3.0, scale=2.0)
    student, teacher = tf.constant([[3.0], [0.0]]), tf.constant([[1.0], [0.5]])
    # (3 * (3 - 1)^2 + 1 * 0.5^2) / 4
    loss = task.distillation_loss(student, teacher, tf.constant([3.0, 1.0]), NOTHING, 9.0)
    assert float(loss) == pytest.approx(3.0625)


def pairs(query: list[float], candidate: list[float]) -> dict[str, tf.Tensor]:
    return {"query": tf.constant(query, tf.float32)[:, None], "candidate": tf.constant(candidate, tf.float32)[:, None]}


def test_retrieval_loss_compares_score_distributions_of_the_weighted_rows() -> None:
    # Row 0 has scores (0, 2 ln 3), row 1 (0, 0), against the teacher's (0, 0): golden and 0, weighted 1 and 3. Row 2
    # has no weight: its candidate, which would take the whole softmax, is no alternative for any row.
    student = pairs([1.0, 0.0, 1.0], [0.0, 2 * LN3, 90.0])
    teacher = pairs([1.0, 1.0, 1.0], [0.0, 0.0, -90.0])
    loss = Retrieval("seen").distillation_loss(student, teacher, tf.constant([1.0, 3.0, 0.0]), NOTHING, 2.0)
    assert float(loss) == pytest.approx(GOLDEN / 4, rel=1e-5)


def test_retrieval_loss_without_rows_is_zero() -> None:
    outputs = pairs([1.0], [1.0])
    assert float(Retrieval("seen").distillation_loss(outputs, outputs, tf.zeros([1]), NOTHING, 2.0)) == 0.0


def test_ranking_counts_every_row_and_retrieval_the_positive_ones() -> None:
    labels, weights = tf.constant([1.0, np.nan, 0.0]), tf.constant([2.0, 0.0, 2.0])
    assert BinaryClassification("click").distillation_weight(labels, weights).numpy().tolist() == [1, 1, 1]
    assert Retrieval("seen").distillation_weight(labels, weights).numpy().tolist() == [2, 0, 0]


CASES: list[tuple[Task, int]] = [
    (BinaryClassification("click"), 1),
    (MultiClassClassification("age", num_classes=3), 3),
    (Regression("rating"), 1),
    (Retrieval("seen"), 0),
]
numbers = st.lists(st.sampled_from([-1e3, -2.0, -1e-10, 0.0, 0.5, 30.0, 1e3]), min_size=6, max_size=6)


@pytest.mark.parametrize(("task", "width"), CASES, ids=[type(task).__name__ for task, _ in CASES])
@hypothesis.settings(max_examples=15)
@hypothesis.given(numbers, numbers, st.sampled_from([0.5, 1.0, 4.0]))
def test_loss_is_finite_never_negative_and_zero_in_agreement(
    task: Task, width: int, one: list[float], other: list[float], temperature: float
) -> None:
    def outputs(values: list[float]) -> Any:
        return tf.constant(values, tf.float32)[: 2 * width, None] if width == 1 else tf.reshape(values, [2, 3])

    student, teacher = (outputs(v) if width else pairs(v[:2], v[2:4]) for v in (one, other))
    weights = tf.ones([2])
    loss = float(task.distillation_loss(student, teacher, weights, NOTHING, temperature))
    assert np.isfinite(loss)
    assert loss >= -1e-3
    assert float(task.distillation_loss(student, student, weights, NOTHING, temperature)) == pytest.approx(0, abs=1e-5)
