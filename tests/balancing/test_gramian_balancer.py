"""The mechanism below every balancer on the Gramian: the update is that of the weights a method returns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights, GramianBalancer, TrainingStep
from tfmtl.data import to_batch
from tfmtl.layers import MMoE, SharedBottom

TRUNK_ONLY = ["rating", "liked"]
WEIGHTS = {"seen": 2.0, "rating": 0.5, "liked": 3.0, "mood": 0.25}


class Given(GramianBalancer):
    """Given weights; records the step, the Gramian and the losses."""

    def __init__(self, weights: Sequence[float], at: Any = "representation") -> None:
        super().__init__(at)
        self.weights_given = list(weights)
        self.step: Any = None
        self.gramian: Any = None
        self.step_losses: Any = None
        self.returned: list[Any] = []

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        self.gramian, self.step_losses = gramian, losses
        return tf.constant(self.weights_given)

    def gradients(self, step: TrainingStep) -> list[Any]:
        self.step, self.returned = step, super().gradients(step)
        return self.returned


class Plain(FixedWeights):
    """Remembers the gradients of the weighted sum."""

    def gradients(self, step: TrainingStep) -> list[Any]:
        self.step, self.returned = step, super().gradients(step)
        return self.returned


def make_step(balancer: Any, names: list[str] | None, table: Any = None, **arguments: Any) -> Any:
    heads = [task for task in small.tasks() if names is None or task.name in names] if names else None
    model = small.model(balancer=balancer, eager=True, heads=heads, **arguments)
    model.make_step(to_batch(small.table() if table is None else table, small.preprocessor()))
    return model


def dense(gradients: list[Any]) -> list[np.ndarray]:
    return [tf.convert_to_tensor(g).numpy() for g in gradients]


def contains(variables: list[Any], variable: Any) -> bool:
    return any(v is variable for v in variables)


def is_shared(step: TrainingStep) -> list[bool]:
    return [contains(list(step.shared), variable) for variable in step.variables]


PENALIZED = {"regularization": dataclasses.replace(small.NO_NOISE, l2=0.1, embedding_l2=0.1)}


@functools.cache
def gradients_of_sums(names: tuple[str, ...], negatives: int) -> list[list[np.ndarray]]:
    """Return the gradients of the plain and of the weighted sum of the losses of some tasks, or of all."""
    sums = Plain(), Plain({name: WEIGHTS[name] for name in names or WEIGHTS})
    for balancer in sums:
        make_step(balancer, list(names), negatives=negatives, **PENALIZED)
    return [dense(balancer.returned) for balancer in sums]


PLACES = [
    ("representation", None),
    ("shared", None),
    (["query_tower_0", "candidate_tower_1"], None),
    ("representation", TRUNK_ONLY),
    ("shared", TRUNK_ONLY),
]


@pytest.mark.parametrize(("at", "names"), PLACES)
@pytest.mark.parametrize("negatives", [0, 3])
def test_shared_variables_get_the_weighted_sum_and_others_their_own(at: Any, names: Any, negatives: int) -> None:
    """Two backward passes of fixed weights give the expected gradient of every variable."""
    if names and negatives:
        pytest.skip("extra negatives belong to retrieval")
    chosen = [WEIGHTS[name] for name in (names or WEIGHTS)]
    given = Given(chosen, at)
    make_step(given, names, negatives=negatives, **PENALIZED)
    shared = is_shared(given.step)
    assert 0 < sum(shared) < len(shared)
    found, expected = dense(given.returned), gradients_of_sums(tuple(names or ()), negatives)
    for place, between_tasks in enumerate(shared):
        np.testing.assert_allclose(found[place], expected[between_tasks][place], rtol=1e-4, atol=1e-6)


def test_shared_variables_are_what_two_tasks_reach() -> None:
    model = make_step(Given([1.0, 1.0]), TRUNK_ONLY)
    of_one = {
        v.name.split("/")[-2:][0] for v in model.network.trainable_variables if not contains(model.shared_variables, v)
    }
    assert {name.split("_")[0] for name in of_one} == {"rating", "liked", "m"}
    trunk = next(layer for layer in model.network.layers if isinstance(layer, MMoE))
    assert not contains(model.shared_variables, trunk._gate)
    assert all(contains(model.shared_variables, v) for v in trunk.shared_variables)


def test_the_gramian_of_all_shared_variables_is_that_of_dense_gradients() -> None:
    balancer = Given([1.0, 1.0], "shared")
    make_step(balancer, TRUNK_ONLY)
    rows = []
    for task in TRUNK_ONLY:
        alone = Plain({name: float(name == task) for name in TRUNK_ONLY})
        make_step(alone, TRUNK_ONLY)
        kept = [g for g, between in zip(alone.returned, is_shared(balancer.step), strict=True) if between]
        rows.append(np.concatenate([g.ravel() for g in dense(kept)]))
    matrix = np.stack(rows)
    np.testing.assert_allclose(balancer.gramian, matrix @ matrix.T, rtol=1e-4)


@pytest.mark.parametrize("order", [TRUNK_ONLY, TRUNK_ONLY[::-1]])
@pytest.mark.parametrize("kind", [MMoE, SharedBottom])
def test_the_gramian_of_gated_sums_is_that_of_the_shared_tensor(kind: Any, order: list[str]) -> None:
    """In the model's order of the tasks, for every order of the trunk's."""
    balancer = Given([1.0, 1.0])
    make_step(balancer, TRUNK_ONLY, trunk=kind(order, units=[4]))
    step = balancer.step
    (representation,) = step.representation
    flat = [tf.reshape(step.tape.gradient(loss, representation), [-1]).numpy() for loss in step.losses]
    assert step.gated is not None
    np.testing.assert_allclose(balancer.gramian, np.stack(flat) @ np.stack(flat).T, rtol=1e-5)


def test_tasks_beside_the_trunk_meet_at_the_encodings() -> None:
    balancer = Given([1.0] * 4)
    model = make_step(balancer, None)
    widths = {tensor.shape[1] for tensor in balancer.step.representation}
    assert widths == {
        model.network.get_layer(f"{side}_mark").output_shape[1] for side in ("query", "candidate", "context")
    }
    assert np.linalg.eigvalsh(balancer.gramian).min() > -1e-6
    assert (np.diag(balancer.gramian) > 0).all()


@pytest.mark.parametrize("at", ["representation", "shared"])
def test_a_task_without_a_label_leaves_the_balance(at: str) -> None:
    table = small.table().assign(liked=np.nan)
    balancer = Given([1.0, 5.0], at)
    model = make_step(balancer, TRUNK_ONLY, table)
    gramian = np.asarray(balancer.gramian)
    assert gramian[0, 0] > 0
    assert (gramian[1] == 0).all()
    assert (gramian[:, 1] == 0).all()
    assert model.balancer.current_weights().numpy().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("at", ["nowhere", [], [3]])
def test_a_place_that_does_not_exist_is_refused(at: Any) -> None:
    with pytest.raises(ValueError, match="`at` must"):
        Given([1.0], at)


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no_such_layer"):
        make_step(Given([1.0, 1.0], ["no_such_layer"]), TRUNK_ONLY)


def test_one_balancer_serves_one_model() -> None:
    balancer = FixedWeights()
    small.model(balancer=balancer)
    with pytest.raises(ValueError, match="balances the tasks of another model"):
        small.model(balancer=balancer)


@pytest.mark.parametrize("at", ["representation", "shared"])
def test_mixed_precision_sees_the_gradients_of_the_unscaled_losses(at: str) -> None:
    half, full = Given([2.0, 0.5], at), Given([2.0, 0.5], at)
    make_step(full, TRUNK_ONLY)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        make_step(half, TRUNK_ONLY, optimizer=keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam()))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert float(half.step.scale) > 1
    np.testing.assert_allclose(half.gramian, full.gramian, rtol=0.05)


def test_a_step_that_overflows_reaches_no_method() -> None:
    """Its Gramian and all its losses are zero, so that the state of a method does not become infinite."""
    balancer = Given([1.0, 1.0])
    make_step(balancer, TRUNK_ONLY, table=small.table().assign(rating=1e30))
    np.testing.assert_array_equal(balancer.step_losses, [0.0, 0.0])
    np.testing.assert_array_equal(balancer.gramian, np.zeros([2, 2]))
