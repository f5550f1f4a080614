"""What holds for every balancer that looks at the losses alone."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.models import small
from tfmtl import _replicas
from tfmtl._keras import keras, tf
from tfmtl.balancing import Balancer
from tfmtl.balancing.auto_lambda import AutoLambda
from tfmtl.balancing.by_task import observed_softmax, shares
from tfmtl.balancing.dwa import DWA
from tfmtl.balancing.equal import EqualWeights
from tfmtl.balancing.exp3s import Exp3S
from tfmtl.balancing.famo import FAMO
from tfmtl.balancing.gls import GLS
from tfmtl.balancing.imtl_l import IMTLL
from tfmtl.balancing.loss_weighting import LossWeighting
from tfmtl.balancing.multi_dds import MultiDDS
from tfmtl.balancing.rlw import RLW
from tfmtl.balancing.schedules import CosineWeight, LinearWeight, PiecewiseConstantWeight, ScheduledWeights
from tfmtl.balancing.stch import STCH
from tfmtl.balancing.thompson_sampling import ThompsonSampling

Make = Callable[[], Balancer]
MAKES: dict[str, Make] = {
    "auto_lambda": AutoLambda,
    "dwa": DWA,
    "dirichlet": lambda: RLW(3, "dirichlet"),
    "equal": EqualWeights,
    "exp3s": lambda: Exp3S(3, update_every=1),
    "famo": FAMO,
    "gls": GLS,
    "imtl_l": IMTLL,
    "multi_dds": MultiDDS,
    "rlw": lambda: RLW(3),
    "schedules": lambda: ScheduledWeights({}),
    "stch": STCH,
    "thompson": ThompsonSampling,
}
BY_NAME: dict[str, Make] = {  # arguments other than the defaults, for the tasks of `small`
    "auto_lambda": lambda: AutoLambda({"rating": 0.5}, 0.25, 0.5),
    "dwa": lambda: DWA(0.5),
    "dirichlet": lambda: RLW(3, "dirichlet"),
    "equal": EqualWeights,
    "exp3s": lambda: Exp3S(4, 0.25, 0.5, 0.125, "range", 8, 1),
    "famo": lambda: FAMO(0.1, 0.01, {"rating": -0.5}),
    "gls": lambda: GLS({"rating": 2.0}, 1e-6),
    "imtl_l": lambda: IMTLL(-0.5),
    "multi_dds": lambda: MultiDDS(0.25, 0.5),
    "rlw": lambda: RLW(3),
    "schedules": lambda: ScheduledWeights(
        {
            "seen": LinearWeight(1, 0.5, epochs=2),
            "rating": CosineWeight(0, 1, 3, 1),
            "liked": PiecewiseConstantWeight({0: 1, 1: 3}),
        }
    ),
    "stch": lambda: STCH(0.5, {"rating": 0.25}, {"liked": 2.0}),
    "thompson": lambda: ThompsonSampling(3, ["rating"], 0.25, 2.0, 0.5),
}
DRAWING = (Exp3S, RLW, ThompsonSampling)
SUM_TO_ONE = {"equal", "exp3s", "rlw", "dirichlet", "famo", "thompson"}  # their weights sum to 1


@pytest.fixture(params=sorted(MAKES))
def name(request: pytest.FixtureRequest) -> Any:
    return request.param


def bound(balancer: Balancer, tasks: int) -> Balancer:
    balancer.bind(tasks_named([f"t{k}" for k in range(tasks)]))
    return balancer


def derivatives(
    balancer: Balancer, losses: Any, observed: Any = None, training: bool = False
) -> tuple[float, np.ndarray, list[Any]]:
    """Return the objective, its derivatives by the losses, and by the balancer's trainable variables."""
    values = tf.constant(losses, tf.float32)
    mask = None if observed is None else tf.constant(observed)
    with tf.GradientTape() as tape:
        tape.watch(values)
        objective = balancer(values, observed=mask, training=training)
    by_loss, by_variable = tape.gradient(objective, [values, balancer.trainable_weights])
    return float(objective), by_loss.numpy(), [np.asarray(gradient) for gradient in by_variable]


SCALES = [1e-10, 0.0, 1.0, 1e15]


def test_every_scale_of_the_losses_gives_finite_numbers(name: str) -> None:
    balancer = bound(MAKES[name](), 2)
    step = tf.function(functools.partial(balancer, training=True), jit_compile=True)
    for first, second in itertools.product(SCALES, SCALES):
        losses = tf.constant([first, second])
        with tf.GradientTape() as tape:
            tape.watch(losses)
            objective = step(losses)
        gradients = tape.gradient(objective, [losses, *balancer.trainable_weights])
        balancer.after_step(losses, tf.reverse(losses, [0]), tf.constant([True, True]))
        balancer.end_epoch()
        for value in (objective, *gradients, *balancer.weights, balancer.current_weights()):
            assert np.isfinite(value).all()


@pytest.mark.parametrize("loss", SCALES)
def test_one_task_gets_a_positive_weight(name: str, loss: float) -> None:
    objective, weights, _ = derivatives(bound(MAKES[name](), 1), [loss], training=True)
    assert np.isfinite(objective)
    assert np.isfinite(weights).all()
    assert weights[0] > 0


def test_nothing_observed_is_nothing_to_do(name: str) -> None:
    balancer = bound(MAKES[name](), 3)
    before = [variable.numpy() for variable in balancer.weights if "last_weights" not in variable.name]
    objective, weights, others = derivatives(balancer, [0.0, 0.0, 0.0], [False] * 3, training=True)
    balancer.after_step(tf.zeros([3]), tf.zeros([3]), tf.constant([False] * 3))
    assert objective == 0
    if isinstance(balancer, LossWeighting):
        assert weights.tolist() == [0, 0, 0]
    assert all((gradient == 0).all() for gradient in others)
    after = [variable.numpy() for variable in balancer.weights if "last_weights" not in variable.name]
    if not isinstance(balancer, DRAWING):  # they count their draws
        assert all((old == new).all() for old, new in zip(before, after, strict=True))


def test_the_observed_tasks_are_balanced_as_if_there_were_no_others(name: str) -> None:
    wide, narrow = bound(MAKES[name](), 3), bound(MAKES[name](), 2)
    if isinstance(wide, DRAWING):
        pytest.skip("the draws differ, their distribution is tested elsewhere")
    mask = tf.constant([True, False, True])
    for losses in ([2.0, 0.0, 4.0], [1.0, 0.0, 3.0], [0.5, 0.0, 2.9]):
        few = losses[::2]
        wide.after_step(tf.constant(losses), tf.constant(losses) / 2 + [0.0, 0.0, 1.0], mask)
        narrow.after_step(tf.constant(few), tf.constant(few) / 2 + [0.0, 1.0], tf.constant([True, True]))
        objective, weights, others = derivatives(wide, losses, mask, training=True)
        expected, few_weights, few_others = derivatives(narrow, few, training=True)
        assert objective == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(weights[::2], few_weights, rtol=1e-5)
        for wider, narrower in zip(others, few_others, strict=True):
            np.testing.assert_allclose(wider, [narrower[0], 0, narrower[1]], rtol=1e-5)
        wide.end_epoch()
        narrow.end_epoch()


def test_the_log_shows_what_multiplies_the_gradients(name: str) -> None:
    balancer = bound(MAKES[name](), 3)
    for mask in ([True] * 3, [True, False, True]):
        losses = np.where(mask, [2.0, 4.0, 0.5], 0.0)
        _, weights, _ = derivatives(balancer, losses, mask, training=True)
        shown = balancer.current_weights().numpy()
        np.testing.assert_allclose(shown[mask], weights[mask], rtol=1e-6)
        if isinstance(balancer, LossWeighting):
            assert (shown[~np.array(mask)] == 0).all()
        if name in SUM_TO_ONE:
            assert shown.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", sorted(SUM_TO_ONE))
def test_before_the_first_step_the_log_shows_equal_weights_of_the_right_sum(name: str) -> None:
    assert bound(MAKES[name](), 4).current_weights().numpy().tolist() == [0.25] * 4


@pytest.mark.parametrize("name", ["gls", "stch", "imtl_l"])
def test_derivatives_are_those_of_the_value(name: str) -> None:
    balancer, at = bound(MAKES[name](), 3), np.array([2.0, 3.0, 1.0])
    _, weights, _ = derivatives(balancer, at)
    for k, step in enumerate(0.05 * np.eye(3)):
        change = derivatives(balancer, at + step)[0] - derivatives(balancer, at - step)[0]
        assert change / 0.1 == pytest.approx(weights[k], rel=2e-3)


def test_the_order_of_the_tasks_does_not_matter(name: str) -> None:
    if isinstance(MAKES[name](), DRAWING):
        pytest.skip("random weights")
    one, other = bound(MAKES[name](), 3), bound(MAKES[name](), 3)
    losses, order = np.array([2.0, 0.25, 4.0], np.float32), [2, 0, 1]
    for fallen in (0.5, 0.25, 1.0):
        after = losses * np.array([fallen, 1, fallen**2], np.float32)
        one.after_step(tf.constant(losses), tf.constant(after), tf.constant([True] * 3))
        other.after_step(tf.constant(losses[order]), tf.constant(after[order]), tf.constant([True] * 3))
        found, expected = derivatives(other, after[order], training=True), derivatives(one, after, training=True)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        np.testing.assert_allclose(found[1], expected[1][order], rtol=1e-5)
        one.end_epoch()
        other.end_epoch()


def test_evaluation_changes_no_state(name: str) -> None:
    balancer = bound(MAKES[name](), 2)
    before = [variable.numpy() for variable in balancer.weights]
    for _ in range(2):
        first, second = (derivatives(balancer, [2.0, 3.0])[0] for _ in range(2))
        assert first == second
    for old, new in zip(before, balancer.weights, strict=True):
        np.testing.assert_array_equal(new, old)


def test_an_unobserved_loss_may_be_anything() -> None:
    for make in (EqualWeights, GLS, STCH, FAMO, DWA, Exp3S, lambda: RLW(1)):
        objective, weights, _ = derivatives(bound(make(), 2), [2.0, np.nan], [True, False], training=True)
        assert np.isfinite(objective)
        assert np.isfinite(weights).all()


def test_replicas_weigh_the_losses_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """This replica has the losses (1, 7), the other one (3, 9): both must weigh (2, 8), with the mean 4."""
    monkeypatch.setattr(_replicas, "replicas", lambda: 2)
    monkeypatch.setattr(_replicas, "all_reduce", lambda losses: tf.add(losses, [3.0, 9.0]))
    objective, weights, _ = derivatives(bound(GLS(), 2), [1.0, 7.0], training=True)
    assert objective == pytest.approx(4)
    np.testing.assert_allclose(weights, [1, 0.25], rtol=1e-6)


def test_masked_softmax_and_shares() -> None:
    observed = tf.constant([True, False, True])
    np.testing.assert_allclose(
        observed_softmax(tf.constant([0.0, 9.0, np.log(3)]), observed), [0.25, 0, 0.75], rtol=1e-6
    )
    np.testing.assert_allclose(observed_softmax(tf.constant([-1e30, 1e30, 1e30]), observed), [0, 0, 1])
    np.testing.assert_allclose(shares(tf.constant([1.0, 9.0, 3.0]), observed), [0.25, 0, 0.75])
    for function in (observed_softmax, shares):
        assert function(tf.constant([1.0, 2.0, 3.0]), tf.constant([False] * 3)).numpy().tolist() == [0, 0, 0]


def test_config_survives_json(name: str) -> None:
    balancer = BY_NAME[name]()
    config = json.dumps(keras.saving.serialize_keras_object(balancer))
    again = keras.saving.deserialize_keras_object(json.loads(config))
    assert type(again) is type(balancer)
    assert json.dumps(keras.saving.serialize_keras_object(again)) == config
    for part in (balancer, again, clone := type(balancer).from_config(balancer.get_config())):
        part.bind(tasks_named([task.name for task in small.tasks()]))
    losses = [2.0, 3.0, 0.5, 1.0]
    expected = [derivatives(balancer, losses, training=t)[1].tolist() for t in (True, False)]
    for other in (again, clone):
        assert [derivatives(other, losses, training=t)[1].tolist() for t in (True, False)] == expected


def test_it_trains_a_model(name: str) -> None:
    balancer = BY_NAME[name]()
    model = small.model(balancer=balancer)
    shown = []
    each = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: shown.append(balancer.current_weights()))
    log = model.fit(small.table(), batch_size=25, epochs=2, verbose=0, callbacks=[each]).history
    assert len(log["loss"]) == len(shown) == 2
    assert all(np.isfinite(values).all() for values in log.values())
    weights = {task.name: log[f"{task.name}_weight"][0] for task in small.tasks()}
    if name in ("exp3s", "thompson"):  # few steps, of one task each
        assert sum(weights.values()) == pytest.approx(1)
    else:
        assert all(weight > 0 for task, weight in weights.items() if (name, task) != ("schedules", "rating"))
    moved = {"auto_lambda", "dwa", "equal", "multi_dds", "schedules", "thompson"}  # change by epochs or not at all
    if name not in moved:
        assert (shown[0] != shown[1]).numpy().any()
    assert all(np.isfinite(variable).all() for variable in model.trainable_variables)
