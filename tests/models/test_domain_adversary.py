"""Training against a discriminator of domains: a penalty beside the tasks, which exports and balancers do not see."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tests.models.linear import OFF
from tfmtl import balancing
from tfmtl._keras import keras, tf
from tfmtl.compression import DistilledModel, UpdatePruning, prune, strip
from tfmtl.data import Batch, Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.layers import Adversarial, DomainAdversary, SharedBottom
from tfmtl.layers.marks import marking
from tfmtl.models import MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.serving import export
from tfmtl.serving.recommender import Recommender
from tfmtl.tasks import BinaryClassification, Regression, Retrieval
from tfmtl.training import LazyAdam

WEIGHT = 0.5


def against(column: str = "user", weight: float = WEIGHT, **others: Any) -> Regularization:
    return Regularization(domain=DomainAdversary(column, weight, units=(5,)), **OFF | others)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return to_batch(small.table(), small.preprocessor())


def discriminators(network: keras.Model) -> list[DomainAdversary]:
    return [layer for layer in network.layers if isinstance(layer, DomainAdversary)]


def gradients_of(model: MultiTaskModel, batch: Batch) -> dict[str, np.ndarray]:
    step, gradients, _ = model.balanced_gradients(batch)
    pairs = zip(step.variables, gradients, strict=True)
    return {variable.name: tf.convert_to_tensor(gradient).numpy() for variable, gradient in pairs}


@pytest.mark.parametrize("balancer", ["FixedWeights", "UPGrad", "PCGrad", "FAMO"])
def test_a_step_has_the_gradients_of_the_tasks_plus_the_reversed_ones(balancer: str, batch: Batch) -> None:
    """The gradient of L_d without reversal is found by a second tape: times -weight before the discriminator."""
    make = getattr(balancing, balancer)
    plain = small.model(regularization=small.NO_NOISE, balancer=make(), trunk=small.trunk(name="trunk"))
    model = small.model(regularization=against(), balancer=make(), trunk=small.trunk(name="trunk"))
    [layer] = discriminators(model.network)
    assert layer.num_domains == small.USERS
    own = {variable.name for variable in layer.trainable_variables}
    assert not own & {variable.name for variable in model.shared_variables}
    assert {v.name for v in model.shared_variables} == {v.name for v in plain.shared_variables}
    with marking() as marks, tf.GradientTape() as tape:
        model(batch.features, training=True)
        [loss] = (of_rows(batch.features) for of_rows in marks.row_losses.values())
    variables = model.trainable_variables
    of_domains = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    found, expected = gradients_of(model, batch), gradients_of(plain, batch)
    for variable, gradient in zip(variables, of_domains, strict=True):
        name, total = variable.name, tf.convert_to_tensor(gradient).numpy()
        np.testing.assert_allclose(found[name], total + expected.get(name, 0.0), rtol=1e-3, atol=1e-5, err_msg=name)
    losses = [one.balanced_gradients(batch)[2] for one in (plain, model)]
    assert float(losses[1].penalty - losses[0].penalty) == pytest.approx(float(loss), rel=1e-5)
    assert float(losses[1].objective) == pytest.approx(float(losses[0].objective), rel=1e-5)
    assert list(losses[1].tasks) == [task.name for task in model.tasks]


def test_a_weight_of_zero_is_the_model_without_it_bit_by_bit() -> None:
    one, other = (small.model(regularization=noise) for noise in (small.NO_NOISE, against(weight=0.0)))
    for model in (one, other):
        model.fit(small.table(), batch_size=25, epochs=2, verbose=0)
    for weight, expected in zip(other.network.weights, one.network.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def leaking() -> pd.DataFrame:
    """The label depends on x and leak alike; leak also reveals the store, which the network does not read."""
    rng = np.random.default_rng(1)
    store = rng.integers(0, 2, 200)
    x, leak = rng.normal(size=200), 2.0 * store - 1 + rng.normal(size=200) / 2
    bought = (x + leak > 0).astype(float)
    return pd.DataFrame({"user": "u", "store": [f"s{k}" for k in store], "x": x, "leak": leak, "bought": bought})


def effects(weight: float) -> tuple[float, float]:
    """Return the change of the probability by two standard deviations of x, and of leak, after 150 steps."""
    features = [Categorical("user"), Categorical("store"), Numeric("x"), Numeric("leak")]
    preprocessor = Preprocessor.fit(Schema(features, labels=[Label("bought")]), leaking())
    heads = [BinaryClassification("bought")]
    network = build_network(
        preprocessor, heads, SharedBottom(units=[4]), embedding_dim={"store": 0, "": 1}, tower_units=[],
        regularization=against("store", weight),
    )  # fmt: skip
    model = MultiTaskModel(network, heads, preprocessor)
    model.compile(keras.optimizers.Adam(0.02))
    model.build_optimizer()
    step, rows = tf.function(model.make_step, autograph=False), to_batch(leaking(), preprocessor)
    for _ in range(150):
        step(rows)
    changed = []
    for name in ("x", "leak"):
        ends = [rows.features | {name: tf.constant([[k, 0.0]] * 200)} for k in (-1.0, 1.0)]  # a number and its flag
        low, high = (tf.sigmoid(model(end)["bought"]) for end in ends)
        changed.append(float(tf.reduce_mean(high - low)))
    return changed[0], changed[1]


def test_training_ignores_a_feature_that_reveals_the_domain() -> None:
    (of_x, of_leak), (still_of_x, still_of_leak) = effects(0.0), effects(3.0)
    assert of_leak > of_x
    assert still_of_x > 0.3
    assert still_of_leak / still_of_x < 0.5 * of_leak / of_x


def test_the_discriminator_reads_the_first_pass_of_a_step_alone(batch: Batch) -> None:
    plain, attacked = (
        small.model(regularization=against(adversarial=method), negatives=3, eager=True).balanced_gradients(batch)[2]
        for method in (None, Adversarial(0.5, steps=2))
    )
    assert float(attacked.penalty) == pytest.approx(float(plain.penalty), rel=1e-6)
    assert float(attacked.objective) > float(plain.objective)


def test_steps_of_single_tasks_train_against_it(batch: Batch) -> None:
    model = small.model(regularization=against(), eager=True)
    layer = discriminators(model.network)[0]
    before = layer.get_weights()
    model.make_step(batch, tasks=["liked"])
    assert any(np.any(one != other) for one, other in zip(before, layer.get_weights(), strict=True))
    assert float(model.get_metrics_result()["regularization_loss"]) > 0


def test_each_tower_has_one_where_no_trunk_is(batch: Batch) -> None:
    heads = [Retrieval("seen", num_uniform_negatives=4)]
    model = small.model(heads=heads, trunk=None, regularization=against(), eager=True)
    layers = discriminators(model.network)
    assert sorted(layer.name for layer in layers) == ["candidate_domain_adversary", "query_domain_adversary"]
    with marking() as marks:
        model.losses_of_step(batch)
    losses = [float(loss(batch.features)) for loss in marks.row_losses.values()]
    assert float(model.balanced_gradients(batch)[2].penalty) == pytest.approx(sum(losses), rel=1e-5)
    assert all(loss > 0 for loss in losses)
    Recommender(model)  # reads each tower alone


def test_isolated_groups_have_discriminators_of_their_own(batch: Batch) -> None:
    network = small.network(trunk=None, isolate=[["liked"]], regularization=against())
    assert len({layer.name for layer in discriminators(network)}) == len(discriminators(network)) == 2


def test_mixed_precision_finds_nearly_the_same_loss(batch: Batch) -> None:
    expected = float(small.model(regularization=against()).balanced_gradients(batch)[2].penalty)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=1024.0)
        model = small.model(optimizer, regularization=against(), eager=True)
        model.build_optimizer()
        _, gradients, losses = model.balanced_gradients(batch)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert float(losses.penalty) == pytest.approx(expected, rel=0.01)
    assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients if gradient is not None)


def test_a_resumed_training_ends_like_an_undisturbed_one(tmp_path: pathlib.Path) -> None:
    model = small.model(regularization=against())
    model.fit(small.table(), batch_size=25, epochs=2, verbose=0)
    again = load_model(save_model(model, tmp_path / "model"))
    for one in (model, again):
        one.fit(small.table(), batch_size=25, epochs=3, initial_epoch=2, verbose=0)
    assert discriminators(again.network)[0].get_config() == discriminators(model.network)[0].get_config()
    for weight, expected in zip(again.network.weights, model.network.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_an_export_answers_like_the_model_and_holds_no_discriminator(tmp_path: pathlib.Path) -> None:
    """The exporter compares the answers of a reloaded copy with those of the model."""
    model = small.model(regularization=against(), eager=True)
    model.fit(small.table(), batch_size=25, verbose=0)
    kernels = discriminators(model.network)[0].weights[::2]
    shapes = {tuple(kernel.shape) for kernel in kernels}
    folder = export(model, tmp_path / "model")
    saved = [tuple(shape) for _, shape in tf.train.list_variables(str(folder / "variables" / "variables"))]
    assert shapes == {(8, 5), (5, small.USERS)}
    assert not shapes & set(saved)


def test_it_trains_a_student_and_a_pruned_network(batch: Batch) -> None:
    student = small.model(regularization=against())
    distilled = DistilledModel.of(student, teacher=small.model(seed=1, regularization=against()), embedding_weight=0.5)
    pruned = student.with_network(prune(student.network, 0.5, end_step=3))
    for model, callbacks in ((distilled, []), (pruned, [UpdatePruning()])):
        model.compile(LazyAdam(0.01), run_eagerly=True)
        before = model.network.get_layer("domain_adversary").get_weights()
        log = model.fit(small.table(), batch_size=25, callbacks=callbacks, verbose=0).history
        assert log["regularization_loss"][0] > 1.0
        found = model.network.get_layer("domain_adversary").get_weights()
        assert all(np.all(weight != 0) for weight in found[::2])  # not pruned
        assert any(np.any(one != other) for one, other in zip(before, found, strict=True))
    assert len(discriminators(strip(pruned.network))) == 1


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("shop", "Unknown feature ['shop'] in the schema"),
        ("age", "`domain` needs a categorical feature, but 'age' is Numeric; name a `Categorical`"),
        ("recent", "`domain` needs a categorical feature, but 'recent' is IdSequence; name a `Categorical`"),
    ],
)
def test_a_column_that_is_no_domain_is_refused(column: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        small.network(regularization=against(column))


def test_a_single_domain_is_refused() -> None:
    schema = Schema([Categorical("user"), Categorical("store")], labels=[Label("rating")])
    rows = small.table()[["user", "rating"]].assign(store="only")
    rule = "`domain` needs a feature with two or more values, but 'store' has 1; name a `Categorical`"
    with pytest.raises(ValueError, match=re.escape(rule)):
        build_network(Preprocessor.fit(schema, rows), [Regression("rating")], regularization=against("store"))


def test_other_objects_and_mixup_are_refused() -> None:
    with pytest.raises(TypeError, match="`domain` must be DomainAdversary"):
        Regularization(domain="store")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^`mixup` mixes rows of two domains; leave out either `mixup` or `domain`\."):
        against(mixup=0.2)
