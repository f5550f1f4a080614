from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.models import small
from tfmtl import _replicas
from tfmtl._keras import tf
from tfmtl.balancing import CRMOGM, UPGrad
from tfmtl.balancing.exp3s import Exp3S, mixed_logits, one_of, quantiles
from tfmtl.data import to_batch

ALL = [True, True, True]


def bound(*arguments: Any, tasks: int = 3, **named: Any) -> Exp3S:
    balancer = Exp3S(*arguments, **named)
    balancer.bind(tasks_named([f"t{k}" for k in range(tasks)]))
    return balancer


def state(balancer: Exp3S) -> list[np.ndarray]:
    return [variable.numpy() for variable in balancer.weights]


def draw(balancer: Exp3S, losses: Any, observed: Any = None) -> int:
    """Make the forward pass of a step and return the task that it drew."""
    mask = tf.constant([True] * len(losses) if observed is None else observed)
    balancer(tf.constant(losses, tf.float32), observed=mask, training=True)
    return int(np.argmax(balancer.current_weights()))


def learn(balancer: Exp3S, before: Any, after: Any, observed: Any = None) -> np.ndarray:
    mask = tf.constant([True] * len(before) if observed is None else observed)
    balancer.after_step(tf.constant(before, tf.float32), tf.constant(after, tf.float32), mask)
    logits: np.ndarray = balancer.logits.numpy()
    return logits.copy()


class Reference:
    """The method in numpy, in double precision, with lists and loops."""

    def __init__(self, tasks: int, rate: float, exploration: float, bonus: float, scale: str, window: int) -> None:
        self.w, self.rate, self.exploration, self.bonus = np.zeros(tasks), rate, exploration, bonus
        self.scale, self.window, self.past, self.t = scale, window, [], 0
        self.low = self.high = float("nan")

    def update(self, arm: int, before: float, after: float, seen: list[int]) -> np.ndarray:
        self.t += 1
        progress = float(np.clip((before - after) / abs(before), -1, 1))
        self.past.append(progress)
        if self.scale == "range":
            low, high = min(self.past), max(self.past)
        else:
            low, high = np.quantile(self.past[-self.window :], [0.2, 0.8])
        reward = 0.0 if low == high else float(np.clip(2 * (progress - low) / (high - low) - 1, -1, 1))
        softmax = np.exp(self.w[seen]) / np.exp(self.w[seen]).sum()
        probabilities = (1 - self.exploration) * softmax + self.exploration / len(seen)
        total, share = np.exp(self.w[seen]).sum(), 1 / (self.t + len(seen))
        estimates = [((reward if i == arm else 0) + self.bonus) / p for i, p in zip(seen, probabilities, strict=True)]
        raised = np.exp(self.w[seen] + self.rate * np.array(estimates))
        mixed = [
            (1 - share) * raised[k] + share / (len(seen) - 1) * sum(raised[j] for j in range(len(seen)) if j != k)
            for k in range(len(seen))
        ]
        self.w[seen] = np.log(np.array(mixed) / sum(mixed) * total)
        return self.w


@pytest.mark.parametrize(("scale", "window"), [("quantiles", 256), ("quantiles", 7), ("range", 256)])
def test_it_follows_a_plain_reimplementation(scale: str, window: int) -> None:
    balancer = bound(3, 0.5, 0.25, 0.125, scale, window)
    expected, random = Reference(3, 0.5, 0.25, 0.125, scale, window), np.random.default_rng(0)
    for step in range(25):
        seen = [0, 2] if step % 4 == 3 else [0, 1, 2]
        observed = [k in seen for k in range(3)]
        before, after = random.exponential(size=(2, 3))
        arm = draw(balancer, before, observed)
        found = learn(balancer, before, after, observed)
        np.testing.assert_allclose(found, expected.update(arm, before[arm], after[arm], seen), atol=2e-4)
    assert np.ptp(found) > 0.5  # the values are not all near the initial ones


def test_golden_first_and_second_update() -> None:
    # Two tasks, h = 1, e = 1: pi = 1/2. The first progress is low and high at once: r = 0, nothing changes.
    # Second: progress 1/2 after 1/4 in the range [1/4, 1/2]: r = 1, v_a = 2, s = 1 / (2 + 2);
    # exp(w_a) : exp(w_b) = 3/4 e^2 + 1/4 : 3/4 + e^2 / 4, which together are 2.
    balancer = bound(0, 1.0, 1.0, 0.0, "range", tasks=2)
    draw(balancer, [4.0, 4.0])
    np.testing.assert_allclose(learn(balancer, [4.0, 4.0], [3.0, 3.0]), 0, atol=1e-6)
    arm = draw(balancer, [4.0, 4.0])
    found = learn(balancer, [4.0, 4.0], [2.0, 2.0])
    mixed = np.array([0.75 * np.e**2 + 0.25, 0.75 + 0.25 * np.e**2])
    np.testing.assert_allclose(found[[arm, 1 - arm]], np.log(2 * mixed / mixed.sum()), rtol=1e-5)


def test_the_first_rewarded_update_favours_the_drawn_task() -> None:
    """With a share of 1 / t it would favour the others."""
    logits, observed = tf.zeros([3]), tf.constant(ALL)
    raised = tf.constant([1.0, 0.0, 0.0])
    for updates in (1.0, 2.0, 10.0):
        found = mixed_logits(logits, raised, observed, 1 / (updates + 3)).numpy()
        assert found[0] > found[1] == found[2]
    erased = mixed_logits(logits, raised, observed, tf.constant(1.0)).numpy()
    assert erased[0] < erased[1]


def simulate(balancer: Exp3S, progress: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Return the tasks drawn in steps where the loss of task k falls by about the share progress[k]."""
    random = np.random.default_rng(seed)
    after = 1 - np.clip(random.normal(progress, 0.05, size=(steps, len(progress))), -1, 1)

    @tf.function(reduce_retracing=True)
    def run(after: tf.Tensor) -> tf.Tensor:
        arms = tf.TensorArray(tf.float32, steps)
        for k in tf.range(steps):
            balancer(tf.ones([3]), observed=tf.constant(ALL), training=True)
            arms = arms.write(k, balancer.current_weights())
            balancer.after_step(tf.ones([3]), after[k], tf.constant(ALL))
        return arms.stack()

    drawn: np.ndarray = run(tf.constant(after, tf.float32)).numpy()
    return drawn.argmax(axis=1)


@pytest.mark.parametrize("scale", ["quantiles", "range"])
def test_the_best_task_is_drawn_most_and_a_change_is_followed(scale: str) -> None:
    for seed in (0, 1):
        balancer = bound(seed, 0.05, reward_scale=scale)
        first = simulate(balancer, np.array([0.1, 0.5, 0.1]), 600, seed)
        assert (first[-300:] == 1).mean() > 0.6
        second = simulate(balancer, np.array([0.5, 0.1, 0.1]), 1200, seed + 10)
        assert (second[-300:] == 0).mean() > 0.6
        assert len(set(second[-600:])) == 3  # exploration goes on


def test_equal_progress_draws_equally() -> None:
    drawn = simulate(bound(0, 0.01), np.array([0.2, 0.2, 0.2]), 900, 0)
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 900, 1 / 3, atol=0.15)


def test_unobserved_tasks_are_never_drawn_and_do_not_change_the_draw_of_the_others() -> None:
    wide, narrow = bound(5), bound(5, tasks=2)
    observed, rows = [True, False, True], []
    for _ in range(100):
        rows.append((draw(wide, [1.0, 9.0, 2.0], observed), draw(narrow, [1.0, 2.0])))
        few = learn(narrow, [1.0, 2.0], [0.5, 1.8])
        np.testing.assert_allclose(learn(wide, [1.0, 9.0, 2.0], [0.5, 0.0, 1.8], observed)[[0, 2]], few, atol=1e-5)
    assert {wide_arm for wide_arm, _ in rows} == {0, 2}
    assert [arm // 2 for arm, _ in rows] == [arm for _, arm in rows]
    assert wide.logits.numpy()[1] == 0


def test_draws_have_the_given_probabilities() -> None:
    seeds = tf.stack([tf.zeros([4000], tf.int64), tf.range(4000, dtype=tf.int64)], axis=1)
    weights = tf.constant([0.0, 1.0, 0.0, 3.0, 0.0])
    run = tf.function(lambda: tf.map_fn(lambda seed: one_of(weights, seed), seeds, tf.float32))
    found = np.asarray(run())
    assert (found.sum(axis=1) == 1).all()
    np.testing.assert_allclose(found.mean(axis=0), [0, 0.25, 0, 0.75, 0], atol=0.02)
    assert one_of(tf.zeros([3]), seeds[0]).numpy().tolist() == [0, 0, 0]


@pytest.mark.parametrize("filled", [1, 2, 5, 8])
def test_quantiles_are_those_of_numpy(filled: int) -> None:
    values = np.random.default_rng(0).normal(size=8).astype(np.float32)
    for levels in ((0.2, 0.8), (0.0, 1.0), (0.5, 0.9)):
        found = quantiles(tf.constant(values), tf.constant(float(filled)), levels)
        np.testing.assert_allclose(found, np.quantile(values[:filled], levels), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float, side: str) -> None:
    balancer = bound(1)
    for after in ([0.5, 0.7, 0.9], [0.9, 0.2, 0.1]):
        draw(balancer, [1.0, 1.0, 1.0])
        learn(balancer, [1.0, 1.0, 1.0], after)
    arm, expected = draw(balancer, [1.0, 1.0, 1.0]), state(balancer)
    spoilt, sound = np.ones(3), np.ones(3)
    spoilt[arm] = bad
    learn(balancer, *((spoilt, sound) if side == "before" else (sound, spoilt)))
    for found, value in zip(state(balancer), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_the_others_losses_do_not_matter() -> None:
    one, other = bound(1), bound(1)
    for _ in range(3):
        arm = draw(one, [1.0, 1.0, 1.0])
        draw(other, [1.0, 1.0, 1.0])
        after = np.where(np.arange(3) == arm, 0.5, np.nan)
        np.testing.assert_array_equal(learn(one, [1.0] * 3, after), learn(other, [1.0] * 3, [0.5] * 3))


def test_before_any_draw_nothing_is_learned() -> None:
    balancer = bound()
    expected = state(balancer)
    learn(balancer, [1.0, 1.0, 1.0], [0.5, 0.9, 0.1])
    for found, value in zip(state(balancer), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_the_objective_is_the_loss_of_the_drawn_task_and_outside_training_the_mean() -> None:
    balancer, losses = bound(2), tf.constant([2.0, 4.0, 9.0])
    for _ in range(5):
        value = float(balancer(losses, training=True))
        weights = balancer.current_weights().numpy()
        assert sorted(weights) == [0, 0, 1]
        assert value == float(losses[int(weights.argmax())])
    assert float(balancer(losses)) == pytest.approx(5)
    assert float(balancer(losses, observed=tf.constant([True, False, True]))) == pytest.approx(5.5)


def test_draws_repeat_with_the_seed_and_resume() -> None:
    def drawn(balancer: Exp3S, steps: int) -> list[tuple[int, list[float]]]:
        rows = []
        for _ in range(steps):
            arm = draw(balancer, [1.0, 2.0, 3.0])
            rows.append((arm, learn(balancer, [1.0, 2.0, 3.0], [0.5, 1.9, 3.5]).tolist()))
        return rows

    whole, first, second = drawn(bound(5), 30), bound(5), bound(5)
    assert drawn(first, 15) == whole[:15]
    second.set_weights(first.get_weights())
    assert drawn(second, 15) == whole[15:]
    assert [arm for arm, _ in drawn(bound(6), 30)] != [arm for arm, _ in whole]


def test_it_measures_and_learns_in_every_nth_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, found = small.model(balancer=Exp3S(0, 0.5, update_every=3)), [], []
    now = model._losses_now
    monkeypatch.setattr(model, "_losses_now", lambda batch: calls.append(1) or now(batch))
    batch = to_batch(small.table().iloc[:8], model.preprocessor)
    for _ in range(7):
        model.make_step(batch)
        found.append((len(calls), float(model.balancer._updates), model.balancer.logits.numpy().tolist()))
    assert [(count, updates) for count, updates, _ in found] == [(2, 1), (2, 1), (2, 1), (4, 2), (4, 2), (4, 2), (6, 3)]
    assert found[2][2] != found[3][2] == found[5][2]


def test_another_balancer_passes_the_interval_on() -> None:
    """`CRMOGM` takes balancers by gradients only; one that reads losses every 5th step keeps its interval."""

    class Rare(UPGrad):
        needs_losses_after_step, after_step_every = True, 5

    assert CRMOGM(Rare()).after_step_every == 5
    assert CRMOGM(UPGrad()).after_step_every == 1


@pytest.mark.parametrize("scale", ["quantiles", "range"])
def test_it_learns_when_compiled(scale: str) -> None:
    eager, compiled = bound(1, 0.5, reward_scale=scale, window=2), bound(1, 0.5, reward_scale=scale, window=2)
    step = tf.function(compiled.after_step, jit_compile=True)
    for after in ([0.5, 0.9, 0.3], [0.7, 0.2, 0.2], [1.5, 0.2, 0.1]):
        draw(eager, [1.0, 1.0, 1.0])
        draw(compiled, [1.0, 1.0, 1.0])
        step(tf.ones([3]), tf.constant(after), tf.constant(ALL))
        np.testing.assert_allclose(compiled.logits, learn(eager, [1.0, 1.0, 1.0], after), rtol=1e-4, atol=1e-6)


def test_replicas_learn_from_the_losses_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """This replica has the losses 1 before and 0 or 1 after the step, the other one 3 and 3 or 1."""
    alone, one = bound(1), bound(1)
    for mine, others in ((0.0, 3.0), (1.0, 1.0)):
        draw(alone, [2.0, 2.0, 2.0])
        draw(one, [2.0, 2.0, 2.0])
        expected = learn(alone, [2.0] * 3, [(mine + others) / 2] * 3)
        with monkeypatch.context() as patch:
            parts = itertools.cycle([tf.fill([3], 3.0), tf.fill([3], others)])
            patch.setattr(_replicas, "replicas", lambda: 2)
            patch.setattr(_replicas, "all_reduce", lambda losses, parts=parts: losses + next(parts))
            found = learn(one, [1.0] * 3, [mine] * 3)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"exploration": 0.0},
        {"exploration": 1.5},
        {"bonus": -1.0},
        {"reward_scale": "reservoir"},
        {"window": 0},
        {"update_every": 0},
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` must be"):
        Exp3S(**given)
