"""Models of tasks that depend on each other: trained, balanced, measured, saved and served."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights, GramianBalancer, TrainingStep
from tfmtl.compression import DistilledModel
from tfmtl.data import Batch, Label, Preprocessor, to_batch
from tfmtl.evaluation import evaluate
from tfmtl.layers import AITM, STEM, BayesianRelations, MMoE, SharedBottom
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.serving import export
from tfmtl.tasks import (
    BinaryClassification,
    ChainedRegression,
    DoublyRobustConversion,
    EntireSpaceConversion,
    InversePropensityConversion,
    Task,
)
from tfmtl.training import LazyAdam

LABELS = ["click", "cart", "buy", "spend"]
SCHEMA = dataclasses.replace(small.SCHEMA, labels=[Label(name) for name in LABELS])
CONVERSIONS = [EntireSpaceConversion, InversePropensityConversion, DoublyRobustConversion]


@functools.cache
def table() -> pd.DataFrame:
    """Each event follows only the preceding one; some purchases are not observed yet."""
    rng = np.random.default_rng(1)
    frame = small.table()[list(SCHEMA.features)]
    click = rng.random(small.ROWS) < 0.7
    cart = click & (rng.random(small.ROWS) < 0.7)
    buy = cart & (rng.random(small.ROWS) < 0.6)
    spend = np.where(buy, 1 + 4 * rng.random(small.ROWS), 0)
    late = np.arange(small.ROWS) % 7 == 0
    labels = {"click": click * 1.0, "cart": cart * 1.0, "buy": np.where(late, np.nan, buy), "spend": spend}
    return frame.assign(**labels)


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


@functools.cache
def batch() -> Batch:
    return to_batch(table(), preprocessor())


def heads(kind: Any = EntireSpaceConversion, **options: Any) -> list[Task]:
    """The tasks in another order than the one in which they must be connected."""
    return [
        ChainedRegression("spend", "buy", scale=2.0), kind("buy", "cart", **options),
        kind("cart", "click", **options), BinaryClassification("click"),
    ]  # fmt: skip


def model(tasks: Sequence[Task], trunk: Any = None, balancer: Any = None, kind: Any = MultiTaskModel) -> Any:
    trunk = trunk or MMoE([task.name for task in tasks], 2, units=[4])
    arguments = {"embedding_dim": 3, "tower_units": [4, 3], "regularization": small.NO_NOISE}
    network = build_network(preprocessor(), tasks, trunk, **arguments)
    built = kind(network, tasks, preprocessor(), balancer)
    built.compile(LazyAdam(0.02), run_eagerly=True)
    return built


def contains(variables: Sequence[Any], variable: Any) -> bool:
    return any(v is variable for v in variables)


def test_outputs_keep_the_order_of_the_tasks_and_probabilities_that_of_the_chain() -> None:
    built = model(heads())
    assert list(built.network.output) == ["spend", "buy", "cart", "click"]
    values = built.predict_step(batch())
    outputs = built(batch().features)
    own = {name: tf.sigmoid(outputs[name][:, 0]).numpy() for name in LABELS[:3]}
    np.testing.assert_allclose(values["click"], own["click"], rtol=1e-6)
    np.testing.assert_allclose(values["cart"], own["click"] * own["cart"], rtol=1e-5)
    np.testing.assert_allclose(values["buy"], own["click"] * own["cart"] * own["buy"], rtol=1e-5)
    np.testing.assert_allclose(values["spend"], values["buy"] * 2 * outputs["spend"][:, 0], rtol=1e-5)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_losses_read_the_labels_of_their_parents(kind: Any) -> None:
    """A conditional loss counts only the rows in which the parent's label is 1."""
    built = model(heads(kind))
    found = {name: float(loss) for name, (loss, _) in built.compute_losses(batch(), training=False).items()}
    nothing = {**batch().labels, "cart": tf.zeros_like(batch().labels["cart"])}
    without = built.compute_losses(batch()._replace(labels=nothing), training=False)
    if kind is not EntireSpaceConversion:
        assert abs(float(without["buy"][0]) - found["buy"]) > 0.01
    assert float(without["spend"][0]) == pytest.approx(found["spend"])  # it reads the labels of `buy`, not of `cart`
    assert float(without["click"][0]) == pytest.approx(found["click"])
    assert all(np.isfinite(value) for value in found.values())


class Given(GramianBalancer):
    """A balancer with given weights that stores the losses of its last call."""

    def __init__(self, weights: Sequence[float], at: Any = "representation") -> None:
        super().__init__(at)
        self.weights_given = list(weights)

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        self.gramian = gramian
        return tf.constant(self.weights_given)

    def gradients(self, step: TrainingStep) -> list[Any]:
        self.step, self.returned = step, super().gradients(step)
        return self.returned


class Plain(FixedWeights):
    """Stores the gradients of the weighted sum."""

    def gradients(self, step: TrainingStep) -> list[Any]:
        self.returned = super().gradients(step)
        return self.returned


WEIGHTS = {"spend": 2.0, "buy": 0.5, "cart": 3.0, "click": 0.25}


def mmoe(names: list[str]) -> MMoE:
    return MMoE(names, 2, units=[4])


def aitm(names: list[str]) -> AITM:
    return AITM(MMoE(names, 2, units=[4]), {"cart": "click", "buy": "cart"}, units=4)


def over_tables(names: list[str]) -> AITM:
    """A trunk around one with separate embedding tables for each task."""
    return AITM(STEM(names, units=[4]), {"cart": "click"}, units=4)


@pytest.mark.parametrize(
    ("make", "chained"), [(mmoe, True), (mmoe, False), (aitm, True), (aitm, False), (over_tables, False)]
)
def test_two_losses_reach_every_shared_variable(make: Any, chained: bool) -> None:
    tasks = heads() if chained else [BinaryClassification(name) for name in LABELS[:3]]
    trunk = make([task.name for task in tasks])
    built = model(tasks, trunk)
    with tf.GradientTape(persistent=True) as tape:
        losses = {name: loss for name, (loss, _) in built.compute_losses(batch(), training=True).items()}
    reached: dict[int, int] = {}
    for loss in losses.values():
        gradients = tape.gradient(loss, built.trainable_variables)
        for variable, gradient in zip(built.trainable_variables, gradients, strict=True):
            several = gradient is not None and float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient)))) > 0
            reached[id(variable)] = reached.get(id(variable), 0) + several
    shared = {id(v) for v in built.shared_variables}
    found = {v.name for v in built.trainable_variables if id(v) in shared}
    expected = {v.name for v in built.trainable_variables if reached[id(v)] > 1}
    if not chained and isinstance(trunk, MMoE):  # the kernel of all gates, of which each column is one task's
        expected = {name for name in expected if "gate" not in name}
    assert found == expected
    heads_shared = {name.split("_output")[0] for name in found if "_output/" in name}
    assert heads_shared == ({"click", "cart"} if chained else set())  # not `buy`: `spend` stops its gradient


def gradients_of_step(trunk: Any, balancer: Any) -> list[np.ndarray]:
    model(heads(), trunk(list(WEIGHTS)), balancer).make_step(batch())
    return [tf.convert_to_tensor(gradient).numpy() for gradient in balancer.returned]


@functools.cache
def gradients_of_sums(trunk: Any) -> list[list[np.ndarray]]:
    """Return the gradients of the plain and of the weighted sum of the losses."""
    return [gradients_of_step(trunk, Plain()), gradients_of_step(trunk, Plain(WEIGHTS))]


@pytest.mark.parametrize("at", ["representation", "shared"])
@pytest.mark.parametrize("trunk", [mmoe, SharedBottom, aitm])
def test_shared_variables_get_the_weighted_sum_and_others_their_own(at: Any, trunk: Any) -> None:
    given = Given(list(WEIGHTS.values()), at)
    found, expected = gradients_of_step(trunk, given), gradients_of_sums(trunk)
    shared = [contains(given.step.shared, variable) for variable in given.step.variables]
    assert 0 < sum(shared) < len(shared)
    for place, between_tasks in enumerate(shared):
        np.testing.assert_allclose(found[place], expected[between_tasks][place], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trunk", [mmoe, SharedBottom, aitm])
def test_the_gramian_is_that_of_the_shared_representation(trunk: Any) -> None:
    """Gradients at each task's output alone would count the part through another task's head twice."""
    given = Given(list(WEIGHTS.values()))
    model(heads(), trunk(list(WEIGHTS)), given).make_step(batch())
    assert given.step.gated is None
    (representation,) = given.step.representation
    flat = [tf.reshape(given.step.tape.gradient(loss, representation), [-1]).numpy() for loss in given.step.losses]
    np.testing.assert_allclose(given.gramian, np.stack(flat) @ np.stack(flat).T, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("trunk", [aitm, lambda names: BayesianRelations(SharedBottom(names), {"cart": "click"})])
def test_a_chained_trunk_is_compared_at_the_inner_trunks_representation(trunk: Any) -> None:
    tasks = [BinaryClassification(name) for name in LABELS[:3]]
    given = Given([1.0, 2.0, 3.0])
    model(tasks, trunk(LABELS[:3]), given).make_step(batch())
    (representation,) = given.step.representation
    flat = [tf.reshape(given.step.tape.gradient(loss, representation), [-1]).numpy() for loss in given.step.losses]
    np.testing.assert_allclose(given.gramian, np.stack(flat) @ np.stack(flat).T, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_it_learns_logs_both_spaces_and_is_served(kind: Any, tmp_path: pathlib.Path) -> None:
    trunk = aitm(LABELS)
    built = model(heads(kind), trunk)
    built.compile(LazyAdam(0.02))
    before = {name: float(loss) for name, (loss, _) in built.compute_losses(batch(), training=False).items()}
    built.fit(table(), batch_size=25, epochs=8, verbose=0)
    after = {name: float(loss) for name, (loss, _) in built.compute_losses(batch(), training=False).items()}
    assert after["click"] < before["click"]
    assert after["cart"] < before["cart"]
    logs = built.evaluate(table(), batch_size=25, verbose=0, return_dict=True)
    assert {"click_auc", "cart_auc", "cart_conditional_auc", "buy_log_loss", "spend_conditional_rmse"} <= set(logs)
    expected = built.predict(table(), batch_size=50, verbose=0)
    path = export(built, tmp_path / "model")
    request = {
        "user": ["u1"], "age": [21.0], "recent": [["i3", "i4"]], "item": ["i5"], "price": [6.0], "position": [0.5],
    }  # fmt: skip
    answer = tf.saved_model.load(str(path)).signatures["rank"]
    spec = answer.structured_input_signature[1]
    served = answer(**{name: tf.constant(value, spec[name].dtype) for name, value in request.items()})
    row = pd.DataFrame({name: list(value) for name, value in request.items()})
    for name, value in built.predict(row, verbose=0).items():
        np.testing.assert_allclose(served[name], value, rtol=1e-5)
    assert (expected["buy"] <= expected["cart"]).all()
    assert (expected["cart"] <= expected["click"]).all()


def test_a_clone_of_the_network_gives_the_same() -> None:
    built = model(heads(DoublyRobustConversion), aitm(LABELS))
    clone = keras.models.clone_model(built.network)
    clone.set_weights(built.network.get_weights())
    again = built.with_network(clone)
    for name, value in built.predict_step(batch()).items():
        np.testing.assert_array_equal(again.predict_step(batch())[name], value)
    assert len(again.shared_variables) == len(built.shared_variables)


def test_reports_measure_served_values_on_the_rows_they_predict() -> None:
    entire, conditional = (model(heads(serve=serve)) for serve in ("entire", "conditional"))
    labels, clicked = table()["cart"], table()["click"] == 1
    for built, rows in ((entire, labels.notna()), (conditional, clicked)):
        served = built.predict(table(), verbose=0)["cart"][rows]
        losses = np.where(labels[rows] == 1, -np.log(served), -np.log(1 - served))
        report = evaluate(built, table(), tasks=["cart"])
        assert report["cart", "log_loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_a_student_imitates_a_chain() -> None:
    teacher, student = model(heads()), model(heads())
    distilled = DistilledModel.of(student, teacher, alpha=1.0)
    distilled.compile(LazyAdam(0.02), run_eagerly=True)
    losses = distilled.compute_losses(batch(), training=True)
    assert [float(loss) for loss, _ in losses.values()] == pytest.approx([0.0] * 4, abs=1e-6)


def test_half_precision_computes_logits_in_full() -> None:
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        built = model(heads(DoublyRobustConversion), aitm(LABELS))
        assert {output.dtype for output in built.network.output.values()} == {tf.float32}
        losses = built.compute_losses(batch(), training=True)
        assert all(np.isfinite(float(loss)) for loss, _ in losses.values())
    finally:
        keras.mixed_precision.set_global_policy(policy)


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        (heads()[:2], "Task 'buy' comes after 'cart', which is not among ['spend', 'buy']."),
        (
            [EntireSpaceConversion("cart", "buy"), EntireSpaceConversion("buy", "cart")],
            "No label can come after itself: cart -> buy -> cart.",
        ),
    ],
)
def test_a_bad_chain_is_named(tasks: list[Task], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        model(tasks)


def test_a_model_needs_the_parents_of_its_tasks() -> None:
    tasks = heads()
    network = model(tasks).network
    sentence = "Task 'cart' comes after 'click', which is not among ['spend', 'buy', 'cart']."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        MultiTaskModel(network, heads()[:3], preprocessor())
