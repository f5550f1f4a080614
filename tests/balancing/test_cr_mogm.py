from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights, GramianBalancer
from tfmtl.balancing.cr_mogm import CRMOGM
from tfmtl.balancing.gradnorm import GradNorm
from tfmtl.balancing.upgrad import UPGrad
from tfmtl.data import to_batch


class Diagonal(GramianBalancer):
    """Weights that are the diagonal of the Gramian, so that a test decides them; records the forwarded calls."""

    needs_losses_after_step = True

    def build_state(self) -> None:
        self.heard: list[Any] = []
        self.steps = self.add_state("steps", [])

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        self.steps.assign_add(1.0)
        return tf.linalg.diag_part(gramian)

    def prepare(self, shared: Any) -> None:
        self.heard.append(shared)

    def after_step(self, before: tf.Tensor, after: tf.Tensor, observed: tf.Tensor) -> None:
        self.heard.append((before, after, observed))

    def end_epoch(self) -> None:
        self.heard.append("epoch")


def bound(momentum: float = 0.75, balancer: GramianBalancer | None = None, tasks: int = 2) -> CRMOGM:
    wrapper = CRMOGM(balancer or Diagonal(), momentum)
    wrapper.bind(tasks_named([f"t{i}" for i in range(tasks)]))
    return wrapper


def step(balancer: Any, weights: Any, observed: Any = None) -> list[float]:
    gramian = tf.constant(weights, tf.float32)
    gramian = tf.linalg.diag(gramian) if gramian.shape.rank == 1 else gramian
    tasks = gramian.shape[0]
    seen = tf.constant([True] * tasks if observed is None else observed)
    return balancer.task_weights(gramian, tf.ones([tasks]), seen).numpy().tolist()


def test_golden_averages() -> None:
    # The first weights as they are, then 3/4 of the average and 1/4 of the new: 3/4 4 + 1/4 8 = 5, 3/4 5 + 1/4 1 = 4.
    balancer = bound(0.75)
    assert [step(balancer, weights) for weights in ([4, 2], [8, 2], [1, 6])] == [[4, 2], [5, 2], [4, 3]]


def test_without_momentum_it_is_the_other_balancer() -> None:
    alone, wrapped = UPGrad({"t0": 3}), bound(0.0, UPGrad({"t0": 3}), 3)
    alone.bind(tasks_named(["t0", "t1", "t2"]))
    for seed in range(3):
        gradients = np.random.default_rng(seed).normal(size=(3, 4))
        gramian = gradients @ gradients.T
        assert step(wrapped, gramian) == step(alone, gramian)


def test_an_unobserved_task_keeps_its_average_and_starts_with_its_first_weight() -> None:
    balancer = bound(0.5, tasks=3)
    step(balancer, [4, 0, 2], [True, False, True])
    assert step(balancer, [0, 0, 4], [False, False, True])[2] == 3
    assert step(balancer, [2, 7, 3]) == [3, 7, 3]
    narrow, wide = bound(0.5, tasks=2), bound(0.5, tasks=3)
    for weights in ([3, 1], [5, 2]):
        expected = step(narrow, weights)
        found = step(wide, [weights[0], 0, weights[1]], [True, False, True])
        assert [found[0], found[2]] == expected


def test_the_weights_of_a_batch_need_not_sum_to_what_the_other_balancers_do() -> None:
    # Weights of sum 1, but the first task's average holds the 1 of the batch it was alone in: 1/2 1 + 1/2 1/2 = 3/4.
    balancer = bound(0.5)
    step(balancer, [1, 0], [True, False])
    assert step(balancer, [0.5, 0.5]) == [0.75, 0.5]
    # With both in every batch, the sum is the average of the sums: 1/2 2 + 1/2 4 = 3.
    balancer = bound(0.5)
    step(balancer, [0.5, 1.5])
    assert sum(step(balancer, [3, 1])) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_leave_the_average(bad: float) -> None:
    balancer = bound(0.5)
    assert step(balancer, [bad, 2]) == [1, 2]
    step(balancer, [4, 2])
    assert step(balancer, [bad, 4]) == [4, 3]
    assert step(balancer, [2, 3]) == [3, 3]


def test_it_is_traced_once_and_compiles_with_xla() -> None:
    balancer, expected = bound(0.5, GradNorm(learning_rate=0.2)), bound(0.5, GradNorm(learning_rate=0.2))
    train = tf.function(balancer.task_weights, jit_compile=True)
    for _ in range(3):
        found = train(tf.constant([[9.0, 1.0], [1.0, 1.0]]), tf.ones([2]), tf.constant([True, True]))
        np.testing.assert_allclose(found, step(expected, [[9.0, 1.0], [1.0, 1.0]]), rtol=1e-5)
    assert found.numpy()[0] < 0.95
    assert train.experimental_get_tracing_count() == 1


def test_the_other_balancer_hears_of_steps_and_epochs() -> None:
    balancer = bound()
    balancer.prepare(["variable"])
    balancer.after_step(1, 2, 3)
    balancer.end_epoch()
    assert balancer.needs_losses_after_step
    assert balancer.balancer.heard == [["variable"], (1, 2, 3), "epoch"]
    assert not CRMOGM(UPGrad()).needs_losses_after_step


def test_its_state_and_the_other_balancers_are_tracked() -> None:
    inner = Diagonal()
    balancer = bound(0.5, inner)
    step(balancer, [4, 2])
    step(balancer, [8, 2])
    again = bound(0.5)
    again.set_weights(balancer.get_weights())
    assert again.balancer.steps.numpy() == 2
    assert step(again, [4, 6]) == step(balancer, [4, 6]) == [5, 4]
    assert any(variable is inner.steps for variable in balancer.non_trainable_weights)


def test_config_holds_the_other_balancer() -> None:
    config = keras.saving.serialize_keras_object(CRMOGM(GradNorm(0.5, at=["dense"]), 0.25))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.momentum, again.at) == (0.25, ("dense",))
    assert type(again.balancer) is GradNorm
    assert (again.balancer.alpha, again.balancer.at) == (0.5, ("dense",))
    assert "balancer" in config["config"]  # not changed by reading it
    assert keras.saving.serialize_keras_object(again) == config


def test_a_model_trains_with_it() -> None:
    balancer = CRMOGM(UPGrad(), 0.5)
    heads = [task for task in small.tasks() if task.name in small.ON_PAIRS]
    model = small.model(balancer=balancer, heads=heads, eager=True)
    model.make_step(to_batch(small.table(), small.preprocessor()))
    assert (balancer.current_weights().numpy() > 0).all()
    np.testing.assert_array_equal(balancer.current_weights(), balancer._averages)
    assert all(any(kept is variable for kept in model.weights) for variable in balancer.weights)


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="`balancer` must be GramianBalancer"):
        CRMOGM(FixedWeights())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`momentum` must be a number in \\[0, 1\\)"):
        CRMOGM(UPGrad(), 1.0)


def test_a_balancer_that_does_more_than_weights_is_refused() -> None:
    class Other(Diagonal):
        def gradients(self, step: Any) -> list[Any]:
            return []

    with pytest.raises(ValueError, match="A Other does more than weight the tasks"):
        CRMOGM(Other())
