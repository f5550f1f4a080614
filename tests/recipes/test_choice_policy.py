"""The policy over choices: golden coefficients, estimators, a simulated log with known values, and folds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfmtl.evaluation import bootstrap_comparison, off_policy_value
from tfmtl.recipes.choice_policy import (
    CONTEXT,
    LOGGED,
    PENALTIES,
    SINGLE,
    Decisions,
    Judged,
    folds_of,
    judge,
    predicted,
)


def logged(choices: list[int], rewards: list[float], propensities: list[float], contexts: list[float]) -> Decisions:
    taken = (np.asarray(choices)[:, None] == np.arange(2)).astype(float)
    users = np.arange(len(choices))
    return Decisions(np.asarray(contexts)[:, None], np.asarray(rewards), np.asarray(propensities), taken, users)


def test_golden_coefficients() -> None:
    """Choice 0 at x = -1, 1 with r = 0, 1: mean 1/2, covariance 1/2, variance 1, so that c = (1/2) / (1 + penalty).

    The contexts -1, 1, -1, 1 are standardised. Choice 1 has the same reward in both rows, so that c = 0.
    """
    log = logged([0, 0, 1, 1], [0, 1, 0.75, 0.75], [0.5] * 4, [-1, 1, -1, 1])
    np.testing.assert_allclose(log.fit(1.0), [[0.5, 0.25], [0.75, 0.0]], atol=1e-12)
    np.testing.assert_allclose(log.fit(math.inf), [[0.5, 0.0], [0.75, 0.0]])
    values = predicted(log.fit(1e-9), np.asarray([[-1.0], [2.0]]))
    np.testing.assert_allclose(values, [[0.0, 0.75], [1.5, 0.75]], atol=1e-6)


def test_rows_weigh_by_one_over_the_propensity() -> None:
    """(4 * 1 + 1 * 0) / 5 for choice 0."""
    log = logged([0, 0, 1], [1, 0, 1], [0.25, 1.0, 0.5], [0, 1, 2])
    np.testing.assert_allclose(log.fit(math.inf)[:, 0], [0.8, 1.0])


def test_a_choice_without_rows_has_the_mean_reward() -> None:
    log = logged([0, 0, 0, 0], [1, 0, 0, 1], [0.5, 0.5, 1.0, 1.0], [0, 1, 2, 3])
    np.testing.assert_allclose(log.fit(math.inf)[:, 0], [0.5, 0.5])
    assert np.isfinite(log.fit(0.1)).all()


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_the_regression_is_the_ridge_of_a_reference(penalty: float) -> None:
    """Least squares with rows sqrt(w) [1, z] and penalty rows sqrt(penalty) [0, e_j] for standardised z."""
    rng = np.random.default_rng(0)
    contexts, rewards = rng.normal(3.0, [1.0, 5.0, 0.0], [50, 3]), rng.random(50)
    chances = rng.dirichlet([1, 1, 1], 50)
    log = Decisions(contexts, rewards, rng.uniform(0.1, 1, 50), chances, np.arange(50))
    scale = np.where(contexts.std(0) > 0, contexts.std(0), 1.0)
    inputs = (contexts - contexts.mean(0)) / scale
    for own, weights in zip(log.fit(penalty), log.ratios.T, strict=True):
        root = np.sqrt(weights / weights.sum())[:, None]
        matrix = np.concatenate([root * np.c_[np.ones(50), inputs], math.sqrt(penalty) * np.eye(4)[1:]])
        expected = np.linalg.lstsq(matrix, np.concatenate([root[:, 0] * rewards, np.zeros(3)]), rcond=None)[0]
        np.testing.assert_allclose(own[1:] * scale, expected[1:], atol=1e-9)
        np.testing.assert_allclose(own[0] + own[1:] @ contexts.mean(0), expected[0], atol=1e-9)


def test_values_are_those_of_the_estimators() -> None:
    rng = np.random.default_rng(0)
    propensities, chances, rewards = rng.uniform(0.2, 1, 90), rng.random(90), rng.random(90)
    predictions, count = rng.random(90), rng.integers(0, 4, 90)
    own = Judged(chances / propensities, predictions, rewards)
    for name, value in own.values(count).items():
        found = off_policy_value(
            rewards, propensities, chances, estimator=name, predictions=predictions, policy_predictions=predictions,  # type: ignore[arg-type]
            weights=count, samples=0,
        )  # fmt: skip
        assert value == pytest.approx(found.value)
    every = off_policy_value(rewards, propensities, chances, samples=0)
    assert own.effective_rows == pytest.approx(every.effective_sample_size)
    assert math.isnan(Judged(np.zeros(90), predictions, rewards).values(count)["snips"])
    assert Judged(np.zeros(90), predictions, rewards).effective_rows == 0


def simulated(rows: int, effect: float, seed: int) -> tuple[Decisions, np.ndarray]:
    """Return a log of three choices and the expected rewards [n, 3]: the best one of the first two depends on x."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=[rows, 2])
    truth = np.stack([0.5 + effect * np.sign(contexts[:, 0]), 0.5 - effect * np.sign(contexts[:, 0])], axis=1)
    truth = np.c_[truth, np.full(rows, 0.45)]
    chances = np.where(contexts[:, 1:] > 0, [0.6, 0.2, 0.2], [0.2, 0.3, 0.5])
    drawn = np.asarray([rng.choice(3, p=row) for row in chances])
    rewards = (rng.random(rows) < truth[np.arange(rows), drawn]).astype(float)
    taken = (drawn[:, None] == np.arange(3)).astype(float)
    return Decisions(contexts, rewards, chances[np.arange(rows), drawn], taken, np.arange(rows) // 2), truth


def test_the_estimates_are_near_the_known_value() -> None:
    log, truth = simulated(4000, 0.3, 0)
    judged, penalty = judge(log, 4, 0)
    chosen = predicted(log.fit(penalty), log.contexts).argmax(axis=1)
    known = truth[np.arange(len(chosen)), chosen].mean()
    assert known > 0.75
    assert penalty < math.inf
    table = bootstrap_comparison({name: own.values for name, own in judged.items()}, log.users, samples=300)
    for estimator in ("ips", "snips", "dr"):
        row = table.loc[(CONTEXT, estimator)]
        assert abs(row["value"] - known) < 0.05
        assert row["low"] - 0.02 < known < row["high"] + 0.02
        assert row["difference_low"] > 0.1
        assert abs(table.loc[(SINGLE, estimator), "value"] - 0.5) < 0.06
    assert table.loc[(LOGGED, "ips"), "value"] == pytest.approx(log.rewards.mean())


def test_chance_is_no_gain() -> None:
    log, _ = simulated(600, 0.0, 1)
    judged, _ = judge(log, 4, 0)
    table = bootstrap_comparison({name: own.values for name, own in judged.items()}, log.users, samples=300)
    assert table.loc[(CONTEXT, "snips"), "difference_low"] <= 0


def test_no_row_chooses_for_its_own_user() -> None:
    """A change of the rewards of one fold leaves the choices of this fold, given the penalty of the others."""
    log, _ = simulated(300, 0.3, 0)
    fold = folds_of(log.users, 3, 5)
    assert all(len(set(fold[log.users == user])) == 1 for user in set(log.users.tolist()))
    assert sorted(set(fold.tolist())) == [0, 1, 2]
    rewards = np.where(fold == 1, 1 - log.rewards, log.rewards)
    changed = Decisions(log.contexts, rewards, log.propensities, log.probabilities, log.users)
    for first, second in zip(judge(log, 3, 5)[0].items(), judge(changed, 3, 5)[0].items(), strict=True):
        if first[0] == SINGLE:
            np.testing.assert_array_equal(first[1].ratios[fold == 1], second[1].ratios[fold == 1])
            np.testing.assert_array_equal(first[1].predictions[fold == 1], second[1].predictions[fold == 1])


def test_one_user_has_no_folds() -> None:
    with pytest.raises(ValueError, match=r"The log must have rows of at least two users\. Received: users=1"):
        folds_of(np.asarray(["a", "a"]), 5, 0)
    assert sorted(folds_of(np.asarray(["a", "b"]), 5, 0).tolist()) == [0, 1]
    assert PENALTIES[0] == math.inf
