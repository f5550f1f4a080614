"""The parts of a model and one step of it; nothing here is traced."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights, Uncertainty
from tfmtl.data import Batch, to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval

NAMES = ["seen", "rating", "liked", "mood"]


@pytest.fixture(scope="module")
def batch() -> Batch:
    return to_batch(small.table(), small.preprocessor())


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    """A model that tests must not change."""
    return small.model(eager=True)


def gradients_of(model: MultiTaskModel, batch: Batch, task: str) -> dict[str, Any]:
    with tf.GradientTape() as tape:
        loss = model.compute_losses(batch, training=False)[task][0]
    variables = model.network.trainable_variables
    gradients = tape.gradient(loss, variables)
    return {v.name: tf.convert_to_tensor(g).numpy() for v, g in zip(variables, gradients, strict=True) if g is not None}


def test_losses_are_those_of_the_tasks(model: MultiTaskModel, batch: Batch) -> None:
    losses = model.compute_losses(batch, training=False)
    assert list(losses) == NAMES
    outputs = model.network(batch.features)
    rating = model.tasks[1]
    squares = (outputs["rating"][:, 0] - rating.targets(batch.labels["rating"])) ** 2
    assert float(losses["rating"][0]) == pytest.approx(np.average(squares, weights=small.table()["trust"]), rel=1e-5)
    weights = {task: float(weight) for task, (_, weight) in losses.items()}
    frame = small.table()
    assert weights == {
        "seen": frame["seen"].notna().sum(), "rating": frame["trust"].sum(), "liked": frame["liked"].notna().sum(),
        "mood": frame["mood"].notna().sum(),
    }  # fmt: skip


def test_missing_labels_of_one_task_leave_the_others_alone(model: MultiTaskModel, batch: Batch) -> None:
    nothing = tf.fill([small.ROWS], float("nan"))
    masked = batch._replace(
        labels={**batch.labels, "rating": nothing}, weights={**batch.weights, "rating": tf.zeros([small.ROWS])}
    )
    before, after = (model.compute_losses(b, training=False) for b in (batch, masked))
    for task in NAMES:
        expected = before[task] if task != "rating" else (0.0, 0.0)
        assert [float(value) for value in after[task]] == [float(value) for value in expected]
    assert all(np.abs(g).max() == 0 for g in gradients_of(model, masked, "rating").values())
    assert float(model.compute_loss(masked)) == pytest.approx(sum(float(after[task][0]) for task in NAMES), rel=1e-6)


def test_a_step_follows_the_gradient_of_the_objective(batch: Batch) -> None:
    balancer = FixedWeights({"seen": 0.0, "rating": 2.0, "mood": 0.5})
    model = small.model(keras.optimizers.SGD(0.1), eager=True, balancer=balancer)
    weights = {"seen": 0.0, "rating": 2.0, "liked": 1.0, "mood": 0.5}
    before = {v.name: v.numpy() for v in model.network.trainable_variables}
    gradients = {task: gradients_of(model, batch, task) for task in NAMES}
    logs = model.train_step(batch)
    for variable in model.network.trainable_variables:
        name = variable.name
        expected = before[name] - 0.1 * sum(weights[task] * gradients[task].get(name, 0) for task in NAMES)
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6, err_msg=name)
    assert {name: float(logs[f"{name}_weight"]) for name in NAMES} == weights


def test_a_step_follows_the_gradient_of_the_penalties(batch: Batch) -> None:
    # d/dk 1/4 k^2 = k / 2 is added to the gradient of the tower kernels alone.
    kinds = [small.NO_NOISE, dataclasses.replace(small.NO_NOISE, l2=0.25)]
    plain, penalized = (small.model(keras.optimizers.SGD(0.1), eager=True, regularization=kind) for kind in kinds)
    before = {v.name: v.numpy() for v in penalized.network.trainable_variables}
    plain.train_step(batch)
    logs = penalized.train_step(batch)
    for variable, other in zip(penalized.network.trainable_variables, plain.network.trainable_variables, strict=True):
        name = variable.name
        decay = 0.1 * before[name] / 2 if "tower" in name and "kernel" in name else 0.0
        np.testing.assert_allclose(variable, other - decay, rtol=1e-4, atol=1e-6, err_msg=name)
    kernels = [value for name, value in before.items() if "tower" in name and "kernel" in name]
    assert float(logs["regularization_loss"]) == pytest.approx(sum(0.25 * (k**2).sum() for k in kernels), rel=1e-5)


def test_uncertainty_is_trained_with_the_model(batch: Batch) -> None:
    balancer = Uncertainty()
    heads = small.tasks(sampling_correction=False)  # its counts change in training, and the loss with them
    model = small.model(keras.optimizers.SGD(0.1), eager=True, balancer=balancer, heads=heads)
    losses = [float(loss) for loss, _ in model.compute_losses(batch, training=False).values()]
    model.train_step(batch)
    factors = [1, 0.5, 1, 1]  # the Gaussian likelihood of the regression has the factor 1/2
    expected = [-0.1 * (0.5 - factor * loss) for factor, loss in zip(factors, losses, strict=True)]
    np.testing.assert_allclose(balancer.log_variances, expected, rtol=1e-4)


def test_uniform_negatives_are_drawn_by_seed_and_step(batch: Batch) -> None:
    model = small.model(eager=True, negatives=5)
    ids = small.candidates().features["item"].numpy().tolist()

    def negatives() -> Any:
        return model.loss_arguments(model.tasks[0], batch, training=True)[2].negatives

    embeddings, (keys, drawn) = negatives()
    assert embeddings.shape == [5, 3]
    rows = [ids.index(item) for item in drawn.numpy()]
    few = {name: tf.gather(column, rows) for name, column in small.candidates().features.items()}
    np.testing.assert_allclose(embeddings, model.tower("candidate")(few)["seen"], rtol=1e-6)
    np.testing.assert_array_equal(keys, small.candidates().keys.numpy()[rows])
    np.testing.assert_array_equal(negatives()[1].indices, drawn)
    model.train_step(batch)
    assert np.any(negatives()[1].indices != drawn)


def test_towers_give_the_embeddings_of_the_network(model: MultiTaskModel, batch: Batch) -> None:
    outputs = model.network(batch.features)["seen"]
    for side in ("query", "candidate"):
        tower = model.tower(side)
        assert set(tower.input) == {feature.name for feature in getattr(small.SCHEMA, side)}
        found = tower({name: batch.features[name] for name in tower.input})["seen"]
        np.testing.assert_allclose(found, outputs[side], rtol=1e-6)


def test_a_copy_around_another_network_is_equal_and_independent(batch: Batch) -> None:
    model = small.model(eager=True, balancer=Uncertainty(0.1))
    model.train_step(batch)
    network = keras.models.clone_model(model.network)
    network.set_weights(model.network.get_weights())
    copy = model.with_network(network)
    np.testing.assert_array_equal(copy.balancer.log_variances, model.balancer.log_variances)
    assert float(copy.tasks[0]._counts.total) == small.table()["seen"].sum()
    for task, (loss, _) in model.compute_losses(batch, training=False).items():
        assert float(copy.compute_losses(batch, training=False)[task][0]) == float(loss)
    shared = {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert not shared
    assert copy.preprocessor is model.preprocessor


@pytest.mark.parametrize("name", ["loss", "metrics", "loss_weights", "weighted_metrics"])
def test_losses_and_metrics_cannot_be_compiled_in(model: MultiTaskModel, name: str) -> None:
    with pytest.raises(ValueError, match=f"`compile` takes no `{name}`: tasks have losses and metrics"):
        model.compile("adam", **{name: ["mse"]})


def test_a_loss_by_position_is_refused_too(model: MultiTaskModel) -> None:
    with pytest.raises(ValueError, match="tasks have losses"):
        model.compile("adam", "mse")


@pytest.mark.parametrize(
    ("heads", "arguments", "error", "sentence"),
    [
        (
            [BinaryClassification("liked")],
            {},
            ValueError,
            "The network has no output for the tasks ['liked']; it has ['rating', 'seen'].",
        ),
        (
            [Retrieval("seen", num_uniform_negatives=3)],
            {},
            ValueError,
            "The retrieval tasks ['seen'] need the corpus: pass `candidates`, or a preprocessor from `Preproc",
        ),
        (["rating"], {}, TypeError, "`tasks[...]` must be Task. Received: tasks[...]='rating'."),
        (
            [Regression("rating")],
            {"balancer": FixedWeights({"rtng": 1})},
            ValueError,
            "Unknown task ['rtng'] in `task_weights` of FixedWeights",
        ),
    ],
)
def test_contradictions_are_named(heads: Any, arguments: Any, error: type[Exception], sentence: str) -> None:
    network = small.network([Retrieval("seen"), Regression("rating")], trunk=None)
    with pytest.raises(error, match=re.escape(sentence)):
        MultiTaskModel(network, heads, small.preprocessor(), **arguments)


def test_a_ranking_task_needs_a_label() -> None:
    heads = [Regression("ratng"), Retrieval("bought")]  # without a label, retrieval takes every row as a positive
    sentence = "The schema has no label for the tasks ['ratng']; it has labels for ['seen', 'rating', 'liked', 'mood']."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        MultiTaskModel(small.network(heads, trunk=None), heads, small.preprocessor())


def test_labels_that_teach_nothing_are_refused() -> None:
    heads = [BinaryClassification("seen"), MultiClassClassification("rating", 3)]
    with pytest.raises(ValueError, match=re.escape("Binary task 'seen' needs training labels 0 and 1, and both.")):
        MultiTaskModel(small.network(heads, trunk=None), heads, small.preprocessor())


def test_a_retrieval_task_without_a_label_takes_every_row() -> None:
    heads = [Retrieval("bought")]
    model = MultiTaskModel(small.network(heads, trunk=None), heads, small.preprocessor())
    batch = to_batch(small.table(), small.preprocessor())
    assert float(model.compute_losses(batch, training=False)["bought"][1]) == small.ROWS


@pytest.mark.parametrize("x", [[1, 2], {"user": ["a"]}, np.zeros([2, 2])])
def test_data_must_be_a_table_or_a_data_set(model: MultiTaskModel, x: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a table .*, files from .* Received: type='(list|dict|ndarray)'"):
        model.fit(x)


def test_half_precision_trains(batch: Batch) -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        arguments = {"balancer": Uncertainty(), "negatives": 3, "trunk": small.trunk(kernel_regularizer="l2")}
        model = small.model(
            keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.01)), eager=True, **arguments
        )
        outputs = model.network(batch.features)
        assert outputs["seen"]["query"].dtype == tf.float16
        assert outputs["rating"].dtype == tf.float32
        first, last = [{k: float(v) for k, v in model.train_step(batch).items()} for _ in range(7)][::6]
        logs = {name: float(value) for name, value in model.test_step(batch).items()}
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert all(np.isfinite(value) for value in (*first.values(), *last.values(), *logs.values()))
    assert last["loss"] < first["loss"]  # the mean over the steps so far
    assert int(model.optimizer.iterations) > 0
