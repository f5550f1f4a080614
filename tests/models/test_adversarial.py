"""Adversarial training of a model: its losses against NumPy, and the parts that must not notice a second pass."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tests.models.linear import Linear, against, linear_model
from tfmtl import balancing
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights
from tfmtl.compression import DistilledModel, UpdatePruning, prune
from tfmtl.data import Batch, to_batch
from tfmtl.layers import (
    Adversarial,
    AdversarialTraining,
    FreeAdversarial,
    MMoE,
    SequenceAugmentation,
    VirtualAdversarial,
)
from tfmtl.layers.noise.perturbations import random_directions
from tfmtl.models import MultiTaskModel, Regularization, load_model, save_model
from tfmtl.training import LazyAdam

METHODS: dict[str, AdversarialTraining] = {
    "fast gradient": Adversarial(0.5),
    "projected": Adversarial(0.5, steps=3),
    "virtual": VirtualAdversarial(0.5),
    "free": FreeAdversarial(0.5, replays=3),
}


@pytest.fixture(scope="module")
def batch() -> Batch:
    return to_batch(small.table(), small.preprocessor())


@pytest.mark.parametrize("steps", [1, 4])
def test_the_loss_is_the_sum_of_the_clean_and_the_attacked_loss_of_a_linear_model(steps: int) -> None:
    model, batch = linear_model(Adversarial(0.7, weight=2.0, steps=steps))
    reference = Linear(model, batch)
    clean, attacked = reference.losses(0.0), reference.losses(reference.attacked(0.7, steps))
    assert (attacked > clean + 0.1).all()
    step, gradients, losses = model.balanced_gradients(batch)
    found = [float(losses.tasks[name][0]) for name in "ab"]
    np.testing.assert_allclose(found, clean + 2 * attacked, rtol=1e-4)
    assert [float(losses.tasks[name][1]) for name in "ab"] == [20, 10]
    moved = reference.z + reference.attacked(0.7, steps)
    share = (reference.probabilities(moved - reference.z) - reference.y) * reference.seen / reference.seen.sum(0)
    first = (reference.probabilities(0.0) - reference.y) * reference.seen / reference.seen.sum(0)
    expected = reference.z.T @ first + 2 * moved.T @ share  # the shifts are constants
    of = {variable.name: gradient for variable, gradient in zip(step.variables, gradients, strict=True)}
    for i, name in enumerate("ab"):
        np.testing.assert_allclose(of[f"{name}_output/kernel:0"][:, 0], expected[:, i], rtol=1e-3, atol=1e-5)


def test_virtual_losses_are_the_divergence_on_all_rows_of_a_linear_model() -> None:
    """KL(p(z), p(z + delta)) with delta = r g / |g| and g = (p(z + d) - p(z)) W at d = 0.1 r u for the draw u."""
    model, batch = linear_model(VirtualAdversarial(0.7, weight=2.0))
    reference = Linear(model, batch)
    clean, p = reference.losses(0.0), reference.probabilities(0.0)
    [draw] = random_directions([reference.z], tf.constant([0, 0]))
    radius = 0.7 * np.sqrt(np.mean(np.sum(reference.z**2, axis=1)))
    probe = 0.1 * radius * draw.numpy()
    gradient = (reference.probabilities(probe) - p) @ reference.w.T
    q = reference.probabilities(radius * gradient / np.linalg.norm(gradient, axis=1, keepdims=True))
    divergence = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)), axis=0)
    _, _, losses = model.balanced_gradients(batch)
    np.testing.assert_allclose([float(losses.tasks[n][0]) for n in "ab"], clean + 2 * divergence, rtol=1e-2)
    assert [float(losses.tasks[name][1]) for name in "ab"] == [20, 10]


def test_only_virtual_training_learns_from_a_batch_without_labels_of_a_task() -> None:
    for method, learns in ((Adversarial(0.7), False), (VirtualAdversarial(0.7), True)):
        model, batch = linear_model(method)
        absent = batch._replace(weights={**batch.weights, "b": tf.zeros([20])})
        step, gradients, losses = model.balanced_gradients(absent)
        [head] = [g for v, g in zip(step.variables, gradients, strict=True) if v.name == "b_output/kernel:0"]
        assert np.any(head != 0) == learns == (float(losses.tasks["b"][0]) > 0)
        assert float(losses.tasks["b"][1]) == (20 if learns else 0)
        assert step.observed.numpy().tolist() == [True, learns]


def trained(optimizer: Any = None, *, eager: bool = True, callbacks: Any = (), **arguments: Any) -> MultiTaskModel:
    model = small.model(optimizer, eager=eager, **arguments)
    log = model.fit(small.table(), batch_size=25, epochs=2, callbacks=[*callbacks], verbose=0).history
    assert all(np.isfinite(values).all() for values in log.values())
    return model


def test_free_updates_take_the_perturbations_of_the_update_before() -> None:
    """Two updates of a linear model: SGD at z, then at z + r g / |g| with the gradients g of the first."""
    model, batch = linear_model(FreeAdversarial(0.7, replays=2))
    reference = Linear(model, batch)
    first = (reference.probabilities(0.0) - reference.y) * reference.seen / reference.seen.sum(0)
    gradient = first @ reference.w.T
    radius = 0.7 * np.sqrt(np.mean(np.sum(reference.z**2, axis=1)))
    shifts = radius * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    for layer in model.network.layers:
        layer.trainable = layer.name.endswith("_output")  # z stays the same
    reference.w = reference.w - 0.1 * reference.z.T @ first
    reference.c = reference.c - 0.1 * first.sum(0)
    expected = reference.losses(shifts)
    second = (reference.probabilities(shifts) - reference.y) * reference.seen / reference.seen.sum(0)
    kernel = reference.w - 0.1 * (reference.z + shifts).T @ second
    log = model.make_step(batch)
    np.testing.assert_allclose([float(log[f"{name}_loss"]) for name in "ab"], expected, rtol=1e-4)
    assert int(model.optimizer.iterations) == 2
    found = np.concatenate([model.network.get_layer(f"{name}_output").kernel for name in "ab"], axis=1)
    np.testing.assert_allclose(found, kernel, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("balancer", ["FixedWeights", "UPGrad"])
def test_a_weight_of_zero_is_the_model_without_it_bit_by_bit(balancer: str) -> None:
    make = getattr(balancing, balancer)
    expected = trained(balancer=make(), eager=False)
    for method in (Adversarial(0.5, weight=0.0), FreeAdversarial(0.5, replays=1)):
        found = trained(balancer=make(), eager=False, regularization=against(method))
        for one, other in zip(found.network.weights, expected.network.weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_second_pass_has_the_draws_and_the_state_of_the_first(batch: Batch) -> None:
    """With a tiny radius it has the same losses, though noise, drawn negatives, counts and a queue take part."""
    noise = {
        "dropout": 0.3, "unknown_rate": 0.3, "context_dropout": 0.3, "embedding_dropout": 0.3, "feature_dropout": 0.3,
        "expert_dropout": 0.3, "mixup": 0.5, "sequence": SequenceAugmentation(0.6, 0.6, 0.6),
    }  # fmt: skip
    models = []
    for method in (None, Adversarial(1e-9)):
        heads = small.tasks(num_uniform_negatives=4, negatives_power=0.5, num_queued_negatives=30)
        model = small.model(heads=heads, regularization=Regularization(adversarial=method, **noise), eager=True)
        for step in range(2):  # the queue is empty in the first one
            losses = model.balanced_gradients(batch)[2].tasks
            model.optimizer.iterations.assign(step + 1)
        models.append(({name: float(loss) for name, (loss, _) in losses.items()}, model))
    (expected, plain), (found, twice) = models
    for name, loss in expected.items():
        assert found[name] == pytest.approx(2 * loss, rel=1e-5), name
    for one, other in zip(twice.state, plain.state, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(twice.network.weights, plain.network.weights, strict=True):
        np.testing.assert_array_equal(one, other)  # also the counters of the draws


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"free"}))
def test_gradients_of_tables_stay_sparse_and_of_the_rows_of_one_pass(method: str, batch: Batch) -> None:
    heads = small.tasks()
    model = small.model(heads=heads, regularization=against(METHODS[method]), eager=True)
    plain = small.model(regularization=small.NO_NOISE, eager=True)
    step, gradients, _ = model.balanced_gradients(batch)
    expected = plain.balanced_gradients(batch)[1]
    tables = [(g, e) for v, g, e in zip(step.variables, gradients, expected, strict=True) if "embedding" in v.name]
    assert tables
    for found, other in tables:
        assert isinstance(found, tf.IndexedSlices)
        assert found.values.shape == other.values.shape
        assert np.any(np.abs(found.values - other.values) > 1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("balancer", [None, "UPGrad", "PCGrad", "GradNorm", "FAMO"])
def test_it_trains_with_balancers(method: str, balancer: str | None, batch: Batch) -> None:
    """The loss falls, the trunk ends elsewhere than without an attack, and the weights are the balancer's."""
    make = FixedWeights if balancer is None else getattr(balancing, balancer)
    ends = []
    for noise in (small.NO_NOISE, against(METHODS[method])):
        model = small.model(regularization=noise, balancer=make(), negatives=3, eager=True)
        before = model.balanced_gradients(batch)[2].tasks
        for _ in range(6 if method != "free" else 2):
            log = model.make_step(batch)
        after = model.balanced_gradients(batch)[2].tasks
        assert sum(float(loss) for loss, _ in after.values()) < 0.97 * sum(float(loss) for loss, _ in before.values())
        [trunk] = [layer for layer in model.network.layers if isinstance(layer, MMoE)]
        ends.append(np.concatenate([weight.ravel() for weight in trunk.get_weights()]))
    assert np.abs(ends[1] - ends[0]).max() > 1e-3
    weights = model.balancer.current_weights()
    assert (np.ptp(weights) == 0) == (balancer is None)
    logged = [float(log[f"{task.name}_weight"]) for task in model.tasks]
    assert (np.ptp(logged) == 0) == (balancer is None)


def test_numbers_are_attacked_with_the_embeddings() -> None:
    """The encoding is an embedding of two coordinates, then the standardised age and its flag of a missing value."""
    model, batch = linear_model(Adversarial(0.7))
    reference = Linear(model, batch)
    np.testing.assert_array_equal(reference.z[:, 2:], batch.features["age"])
    clean = reference.losses(0.0)
    shifts = reference.attacked(0.7, steps=1)
    assert (np.abs(shifts[:, 2:]) > 0.01).all()
    only_embeddings = np.where(np.arange(4) < 2, shifts, 0.0)
    found = [float(loss) for loss, _ in model.balanced_gradients(batch)[2].tasks.values()]
    np.testing.assert_allclose(found, clean + reference.losses(shifts), rtol=1e-4)
    assert (np.array(found) > clean + reference.losses(only_embeddings) + 0.01).any()


def test_frozen_encodings_are_attacked() -> None:
    model, batch = linear_model(Adversarial(0.7))
    expected = float(model.balanced_gradients(batch)[2].objective)
    for layer in model.network.layers:
        layer.trainable = layer.name.endswith("_output")
    assert float(model.balanced_gradients(batch)[2].objective) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_it_trains_a_student_and_a_pruned_network(method: str) -> None:
    student = small.model(regularization=against(METHODS[method]))
    options = {"embedding_weight": 0.5, "representation_weight": 0.5}
    distilled = DistilledModel.of(student, teacher=small.model(seed=1), **options)
    pruned = student.with_network(prune(small.model(regularization=against(METHODS[method])).network, 0.5, end_step=3))
    for model, callbacks in ((distilled, []), (pruned, [UpdatePruning()])):
        model.compile(LazyAdam(0.01), run_eagerly=True)
        log = model.fit(small.table(), batch_size=25, callbacks=callbacks, verbose=0).history
        plain = float(model.evaluate(small.table(), verbose=0, return_dict=True)["rating_loss"])
        assert method == "free" or log["rating_loss"][0] > plain  # the adversarial loss is part of it


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"free"}))
def test_mixed_precision_finds_nearly_the_same_loss(method: str, batch: Batch) -> None:
    expected = small.model(regularization=against(METHODS[method])).balanced_gradients(batch)[2].tasks
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=1024.0)
        model = small.model(optimizer, regularization=against(METHODS[method]), eager=True)
        model.build_optimizer()
        found = model.balanced_gradients(batch)[2].tasks
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for name, (loss, _) in expected.items():
        assert float(found[name][0]) == pytest.approx(float(loss), rel=0.02), name


def test_further_passes_depend_on_the_encodings_alone(batch: Batch) -> None:
    """A traced step reads as many rows of tables, of width 3, as one without an attack."""
    counts = []
    for method in (None, Adversarial(0.5, steps=3)):
        model = small.model(regularization=against(method))
        model.build_optimizer()
        step = tf.function(lambda rows, model=model: model.balanced_gradients(rows)[1:], autograph=False)
        graph = step.get_concrete_function(batch).graph
        left, needed = [tensor.op for tensor in tf.nest.flatten(graph.outputs)], {}
        while left:
            operation = left.pop()
            if operation.name not in needed:
                needed[operation.name] = operation
                left += [*operation.control_inputs, *(tensor.op for tensor in operation.inputs)]
        read = [operation for operation in needed.values() if operation.type == "ResourceGather"]
        counts.append(sum(operation.outputs[0].shape[-1:] == [3] for operation in read))
    assert counts[0] == counts[1] > 0


def test_evaluation_is_clean(batch: Batch) -> None:
    plain, robust = small.model(regularization=small.NO_NOISE), small.model(regularization=against(Adversarial(0.5)))
    expected = plain.compute_losses(batch, training=False)
    for name, values in robust.compute_losses(batch, training=False).items():
        np.testing.assert_array_equal(values, expected[name])


def test_another_object_is_refused() -> None:
    with pytest.raises(TypeError, match="`adversarial` must be AdversarialTraining"):
        Regularization(adversarial=0.1)  # type: ignore[arg-type]


def test_free_training_skips_no_step_in_mixed_precision(batch: Batch) -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=64.0)
        model = small.model(optimizer, regularization=against(METHODS["free"]), balancer=balancing.UPGrad(), eager=True)
        model.build_optimizer()
        log = model.make_step(batch)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(float(log["loss"]))
    assert int(model.optimizer.iterations) == 3


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_trained_model_is_saved_copied_and_taught(method: str, tmp_path: pathlib.Path) -> None:
    """The part of the network that further passes compute adds no connection to its layers."""
    fresh, model = (
        small.network(regularization=against(METHODS[method])),
        trained(regularization=against(METHODS[method])),
    )
    found, expected = ([len(layer.inbound_nodes) for layer in net.layers] for net in (model.network, fresh))
    assert found == expected
    again = load_model(save_model(model, tmp_path / "model"))
    clone = model.with_network(keras.models.clone_model(model.network))
    clone.network.set_weights(model.network.get_weights())
    student = DistilledModel.of(model, teacher=small.model(seed=1), representation_weight=0.5)
    for other in (again, clone, student):
        for name, value in model.predict(small.table(), verbose=0).items():
            tf.nest.map_structure(np.testing.assert_array_equal, other.predict(small.table(), verbose=0)[name], value)
    assert {type(layer) for layer in again.network.layers if layer.name.endswith("mark")} == {type(METHODS[method])}
    again.fit(small.table(), batch_size=25, epochs=1, verbose=0)
