"""ESMM, ESCM2-IPS and ESCM2-DR: values, gradients and expectations."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, loss_of
from tfmtl._keras import tf
from tfmtl.tasks import DoublyRobustConversion, EntireSpaceConversion, InversePropensityConversion, LossInputs

LOG_2 = np.log(2)
KINDS = [EntireSpaceConversion, InversePropensityConversion, DoublyRobustConversion]
WIDTHS = {EntireSpaceConversion: 2, InversePropensityConversion: 2, DoublyRobustConversion: 3}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def clicks(labels: Any) -> LossInputs:
    return LossInputs({}, labels={"click": tf.constant(labels, tf.float32)})


def sigmoid(z: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def cross_entropy(label: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -np.log(np.where(label > 0, p, 1 - p))


def rows(kind: Any, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return outputs, labels, clicks and weights; a conversion is always clicked."""
    rng = np.random.default_rng(3)
    click = rng.integers(0, 2, count).astype(float)
    return rng.normal(size=(count, WIDTHS[kind])), click * rng.integers(0, 2, count), click, rng.uniform(1, 3, count)


def expected_loss(kind: Any, outputs: np.ndarray, labels: Any, click: Any, weights: Any, factor: float) -> float:
    """The losses of the papers in NumPy, float64."""
    conversion, propensity = sigmoid(outputs[:, 0]), sigmoid(outputs[:, 1])
    losses = cross_entropy(labels, conversion * propensity)
    error, odds = cross_entropy(labels, conversion), click / np.maximum(propensity, 0.3)
    if kind is InversePropensityConversion:
        losses += factor * odds * error
    if kind is DoublyRobustConversion:
        imputed = np.log(1 + np.exp(outputs[:, 2]))
        losses += factor * (imputed + odds * (error - imputed) + odds * (error - imputed) ** 2)
    return float((weights * losses).sum() / weights.sum())


def make(kind: Any, factor: float = 0.7) -> Any:
    plain = kind is EntireSpaceConversion
    return kind("buy", "click", **({} if plain else {"conditional_weight": factor, "min_propensity": 0.3}))


def test_the_loss_is_its_definition(kind: Any) -> None:
    outputs, labels, click, weights = rows(kind)
    found, total, _ = loss_of(make(kind), labels.tolist(), outputs.tolist(), weights.tolist(), clicks(click))
    assert found == pytest.approx(expected_loss(kind, outputs, labels, click, weights, 0.7), rel=1e-5)
    assert total == pytest.approx(weights.sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "outputs", "expected"),
    [
        # P(click) = P(buy | click) = 1/2: p = 1/4. Rows: bought; clicked only; not clicked. -log p = 2 log 2, and
        # -log(1 - p) = log 4/3 twice. Errors of the conditional are log 2 each.
        (EntireSpaceConversion, [[0, 0]] * 3, (2 * LOG_2 + 2 * np.log(4 / 3)) / 3),
        # + (2 log 2 + 2 log 2 + 0) / 3
        (InversePropensityConversion, [[0, 0]] * 3, (2 * LOG_2 + 2 * np.log(4 / 3)) / 3 + 4 * LOG_2 / 3),
        # Imputed: softplus(0) = log 2 = e: + log 2 in every row, and no other term.
        (DoublyRobustConversion, [[0, 0, 0]] * 3, (2 * LOG_2 + 2 * np.log(4 / 3)) / 3 + LOG_2),
    ],
)
def test_golden_loss(kind: Any, outputs: Any, expected: float) -> None:
    assert loss_of(kind("buy", "click"), [1, 0, 0], outputs, [1.0] * 3, clicks([1, 1, 0]))[0] == pytest.approx(expected)


def test_the_true_probabilities_have_no_gradient_in_the_entire_space() -> None:
    """Each row occurs with label 1 and weight p and with label 0 and weight 1 - p: the expected gradient is 0."""
    outputs = np.random.default_rng(0).normal(size=(10, 2))
    p = sigmoid(outputs[:, 0]) * sigmoid(outputs[:, 1])
    weights = np.concatenate([p, 1 - p])
    labels = [1] * 10 + [0] * 10
    both = np.concatenate([outputs, outputs])
    _, _, gradient = loss_of(EntireSpaceConversion("buy", "click"), labels, both.tolist(), weights.tolist())
    assert np.abs(gradient).max() > 0.001
    np.testing.assert_allclose(gradient[:10] + gradient[10:], 0, atol=1e-7)


def outcomes(propensity: float, rate: float) -> list[tuple[float, float, float]]:
    """Return click, label and probability of each outcome of a row."""
    return [(1, 1, propensity * rate), (1, 0, propensity * (1 - rate)), (0, 0, 1 - propensity)]


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("imputed", [-1.0, 2.0])
def test_with_the_right_propensity_the_conditional_loss_is_unbiased(kind: Any, imputed: float) -> None:
    """For any imputation the expectation is the mean error over all rows, clicked or not."""
    propensity, rate, logit = 0.4, 0.3, 0.8
    outputs = [[logit, np.log(propensity / (1 - propensity)), imputed]]
    total = 0.0
    for click, label, probability in outcomes(propensity, rate):
        error = cross_entropy(np.array([label]), sigmoid([logit]))[0]
        odds = click / propensity
        inputs = (tf.constant(value, tf.float32) for value in ([error], [odds], outputs))
        found = make(kind).conditional_losses(*inputs)
        square = odds * (error - np.log(1 + np.exp(imputed))) ** 2 if kind is DoublyRobustConversion else 0
        total += probability * (float(found[0]) - square)
    assert total == pytest.approx(-rate * np.log(sigmoid(logit)) - (1 - rate) * np.log(1 - sigmoid(logit)), rel=1e-5)


def test_with_the_right_imputation_the_propensity_does_not_matter() -> None:
    error = 0.9
    outputs = tf.constant([[0.0, 0.0, np.log(np.expm1(error))]], tf.float32)  # softplus of it is the error
    for odds in (0.0, 1.0, 7.0):
        found = make(DoublyRobustConversion).conditional_losses(tf.constant([error]), tf.constant([odds]), outputs)
        assert float(found[0]) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_conditional_loss_leaves_the_event_in_front_alone(kind: Any) -> None:
    outputs, labels, click, weights = rows(kind)
    arguments = labels.tolist(), outputs.tolist(), weights.tolist(), clicks(click)
    with_it, without = (loss_of(make(kind, factor), *arguments)[2] for factor in (0.7, 0.0))
    np.testing.assert_allclose(with_it[:, 1], without[:, 1], atol=1e-8)
    assert np.abs(with_it[:, 0] - without[:, 0]).max() > 0.001
    assert np.abs(without[:, 1]).max() > 0.001


def test_the_imputation_learns_the_error_and_the_error_not_the_imputation() -> None:
    outputs, labels, click, weights = rows(DoublyRobustConversion)
    arguments = labels.tolist(), outputs.tolist(), weights.tolist(), clicks(click)
    _, _, robust = loss_of(make(DoublyRobustConversion), *arguments)
    plain = make(InversePropensityConversion)
    _, _, inverse = loss_of(plain, labels.tolist(), outputs[:, :2].tolist(), weights.tolist(), clicks(click))
    np.testing.assert_allclose(robust[:, :2], inverse, atol=1e-7)
    # d/dd [d + odds (e - d) + odds (e - d)^2] = 1 - odds - 2 odds (e - d), times softplus' = sigma
    imputed = np.log(1 + np.exp(outputs[:, 2]))
    odds = click / np.maximum(sigmoid(outputs[:, 1]), 0.3)
    slope = 1 - odds - 2 * odds * (cross_entropy(labels, sigmoid(outputs[:, 0])) - imputed)
    expected = 0.7 * weights / weights.sum() * slope * sigmoid(outputs[:, 2])
    np.testing.assert_allclose(robust[:, 2], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_row_of_unknown_click_has_an_entire_loss_only(kind: Any) -> None:
    outputs, labels, click, weights = rows(kind)
    click[:5], labels[:5] = NAN, 0
    known = slice(5, None)
    alone, _, _ = loss_of(
        make(kind), labels[known].tolist(), outputs[known].tolist(), weights[known].tolist(), clicks(click[known])
    )
    arguments = labels.tolist(), outputs.tolist(), weights.tolist(), clicks(click)
    (found, _, gradient), (entire, _, of_entire) = (loss_of(make(kind, factor), *arguments) for factor in (0.7, 0.0))
    entire_alone = expected_loss(EntireSpaceConversion, outputs[known], labels[known], 0, weights[known], 0)
    assert found - entire == pytest.approx(alone - entire_alone, rel=1e-4)
    np.testing.assert_array_equal(gradient[:5], of_entire[:5])


def test_missing_rows_touch_neither_loss_nor_gradient(kind: Any) -> None:
    outputs, labels, click, weights = rows(kind, 4)
    outputs[1] = [1e4, -1e4, 1e4][: WIDTHS[kind]]
    kept = [0, 2, 3]
    expected = loss_of(
        make(kind), labels[kept].tolist(), outputs[kept].tolist(), weights[kept].tolist(), clicks(click[kept])
    )
    labels[1], weights[1] = NAN, 0
    found = loss_of(make(kind), labels.tolist(), outputs.tolist(), weights.tolist(), clicks(click))
    assert found[:2] == pytest.approx(expected[:2], rel=1e-6)
    np.testing.assert_array_equal(found[2][1], 0)
    np.testing.assert_allclose(found[2][kept], expected[2], rtol=1e-5, atol=1e-7)


def test_without_a_label_loss_weight_and_gradient_are_zero(kind: Any) -> None:
    outputs, _, click, _ = rows(kind, 3)
    loss, weight, gradient = loss_of(make(kind), [NAN] * 3, outputs.tolist(), [0.0] * 3, clicks(click))
    assert (loss, weight) == (0, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_extreme_logits_have_finite_losses_and_gradients(kind: Any, label: int, signs: tuple[int, int]) -> None:
    outputs = [[1e4 * signs[0], 1e4 * signs[1], 1e4][: WIDTHS[kind]]]
    loss, _, gradient = loss_of(kind("buy", "click"), [label], outputs, [1.0], clicks([1]))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_what_is_served_is_in_the_asked_space(kind: Any) -> None:
    outputs = tf.constant([[np.log(3), -np.log(4), 5.0][: WIDTHS[kind]]], tf.float32)  # 3/4 given 1/5
    np.testing.assert_allclose(kind("buy", "click").predict(outputs), [3 / 20], rtol=1e-6)
    conditional = kind("buy", "click", serve="conditional")
    np.testing.assert_allclose(conditional.predict(outputs), [3 / 4], rtol=1e-6)
    weight, labels = tf.constant([1.0, 2.0, 3.0]), {"click": tf.constant([1.0, 0.0, NAN])}
    assert kind("buy", "click").served_weight(weight, labels).numpy().tolist() == [1, 2, 3]
    assert conditional.served_weight(weight, labels).numpy().tolist() == [1, 0, 0]
    # The logit for the next event is unconditional, for any `serve`.
    np.testing.assert_allclose(tf.sigmoid(conditional.event_logit(outputs)), [[3 / 20]], rtol=1e-6)


def test_metrics_are_of_both_spaces(kind: Any) -> None:
    """The conditional orders the clicked rows correctly; the unclicked row, with the highest, does not count."""
    task = kind("buy", "click")
    a, front = [2.0, -1.0, 9.0], [0.0, 0.0, -20.0]
    outputs = tf.constant([[x, y, 0.0][: WIDTHS[kind]] for x, y in zip(a, front, strict=True)])
    labels = tf.constant([1.0, 0.0, 0.0])
    task.update_metrics(labels, outputs, tf.ones([3]), clicks([1, 1, 0]))
    found = {metric.name: float(metric.result()) for metric in task.metrics}
    p = sigmoid(a) * sigmoid(front)
    assert found["buy_log_loss"] == pytest.approx(cross_entropy(labels.numpy(), p).mean(), rel=1e-3)
    assert found["buy_auc"] == pytest.approx(1, abs=1e-3)
    assert found["buy_conditional_auc"] == pytest.approx(1, abs=1e-3)
    for metric in task.metrics:
        metric.reset_state()
    task.update_metrics(labels, outputs, tf.ones([3]), clicks([1, 1, 1]))
    assert float(task._conditional_auc.result()) == pytest.approx(1 / 2, abs=1e-3)


@pytest.mark.parametrize("serve", ["entire", "conditional"])
def test_a_student_learns_what_the_teacher_serves(kind: Any, serve: Any) -> None:
    task, rng = kind("buy", "click", serve=serve), np.random.default_rng(5)
    teacher, student = (rng.normal(size=(4, WIDTHS[kind])) for _ in range(2))
    weights = np.array([1.0, 2.0, 0.0, 1.0])

    def logits(outputs: np.ndarray) -> np.ndarray:
        p = task.predict(tf.constant(outputs)).numpy()
        return np.log(p / (1 - p)) / 2.0  # at temperature 2

    soft, own = sigmoid(logits(teacher)), sigmoid(logits(student))
    divergence = soft * np.log(soft / own) + (1 - soft) * np.log((1 - soft) / (1 - own))
    arguments = tf.constant(student), tf.constant(teacher), tf.constant(weights), LossInputs({}), 2.0
    assert float(task.distillation_loss(*arguments)) == pytest.approx(4 * (weights * divergence).sum() / 4, rel=1e-6)
    assert float(task.distillation_loss(arguments[1], *arguments[1:])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"conditional_weight": -1},
            "`conditional_weight` of task 'buy' must be 0 or more. Received: conditional_weight=-1.",
        ),
        (
            {"min_propensity": 0},
            "`min_propensity` of task 'buy' must lie above 0 and up to 1. Received: min_propensity=0.",
        ),
        ({"min_propensity": 1.5}, "`min_propensity` of task 'buy' must lie above 0 and up to 1."),
    ],
)
def test_bad_argument_is_named(kind: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind("buy", "click", **arguments)
