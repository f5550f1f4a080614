"""Off-policy estimators: values by hand, exact expectations over all logs of a small bandit, coverage, bad input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tfmtl.evaluation import bootstrap_comparison, off_policy_value

REWARDS, PROPENSITIES, POLICY = [1.0, 0.0, 2.0, 1.0], [0.5, 0.25, 0.2, 0.5], [0.25, 0.5, 0.8, 0.0]
Q, V = [0.5, 0.5, 1.0, 1.0], [0.75, 0.25, 1.5, 0.5]
# The weights are 0.25 / 0.5 = 0.5, 2, 4 and 0: sum 6.5, sum of squares 0.25 + 4 + 16 = 20.25.


def value(estimator: Any, **options: Any) -> Any:
    options = {"samples": 0, "predictions": Q, "policy_predictions": V, **options}
    return off_policy_value(REWARDS, PROPENSITIES, POLICY, estimator=estimator, **options)


@pytest.mark.parametrize(
    ("estimator", "limit", "expected"),
    [
        ("ips", None, (0.5 + 0 + 8 + 0) / 4),
        ("ips", 3.0, (0.5 + 0 + 6 + 0) / 4),
        ("snips", None, 8.5 / 6.5),
        ("snips", 3.0, 6.5 / 5.5),
        ("dm", None, 3.0 / 4),
        # Corrections w (r - q): 0.5 * 0.5, 2 * -0.5, 4 * 1, 0 * 0: together 3.25.
        ("dr", None, (3.0 + 3.25) / 4),
        ("dr", 3.0, (3.0 + 2.25) / 4),
        ("switch_dr", 4.0, (3.0 + 3.25) / 4),  # a weight equal to the limit is within it
        ("switch_dr", 3.0, (3.0 - 0.75) / 4),
        ("switch_dr", 0.1, 3.0 / 4),  # every weight is above or 0: the direct method
    ],
)
def test_values_by_hand(estimator: str, limit: float | None, expected: float) -> None:
    assert value(estimator, limit=limit).value == pytest.approx(expected, rel=1e-12)


def test_figures_of_the_weights() -> None:
    free, clipped, switched = value("ips"), value("ips", limit=3.0), value("switch_dr", limit=3.0)
    assert free.effective_sample_size == pytest.approx(6.5**2 / 20.25)
    assert clipped.effective_sample_size == pytest.approx(5.5**2 / 13.25)
    assert switched.effective_sample_size == pytest.approx(2.5**2 / 4.25)
    for found in (free, clipped, switched):
        assert (found.largest_weight, found.mean_weight) == pytest.approx((4.0, 6.5 / 4))
    assert [free.limited, clipped.limited, switched.limited] == [0.0, 0.25, 0.25]


def test_normal_interval_by_hand() -> None:
    # IPS: w r = 0.5, 0, 8, 0 with mean 2.125 and variance 46.1875 / 3, so that the error is sqrt(46.1875 / 12).
    found = value("ips")
    assert found.standard_error == pytest.approx(np.sqrt(46.1875 / 12))
    assert (found.low, found.high) == pytest.approx([2.125 - 1.959964 * 1.961876, 2.125 + 1.959964 * 1.961876])
    # SNIPS: w (r - 17/13) = -2/13, -34/13, 36/13, 0; 4/3 times the squares, over the squared sum of weights.
    squares = (2**2 + 34**2 + 36**2) / 13**2
    assert value("snips").standard_error == pytest.approx(np.sqrt(squares * 4 / 3) / 6.5)
    assert np.isnan([value("snips").bootstrap_low, value("snips").bootstrap_high]).all()


PRIOR = [0.3, 0.7]
MEANS = np.array([[0.2, 0.9, 0.5], [0.6, 0.1, 0.4]])  # of the rewards, by context and action
LOGGING = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
TARGET = np.array([[0.1, 0.8, 0.1], [0.5, 0.25, 0.25]])
TRUE = float(PRIOR @ (TARGET * MEANS).sum(1))


def expectation(estimator: Any, q: np.ndarray, rows: int = 2, shift: float = 0.0, **options: Any) -> float:
    """Return the mean of the estimate over all logs of two rows: contexts, actions and rewards 0 or 1."""
    total = 0.0
    for log in itertools.product(itertools.product(range(2), range(3), (0, 1)), repeat=rows):
        x, a, r = map(np.array, zip(*log, strict=True))
        chance = np.array(PRIOR)[x] * LOGGING[x, a] * np.where(r == 1, MEANS[x, a], 1 - MEANS[x, a])
        found = off_policy_value(
            r + shift, LOGGING[x, a], TARGET[x, a], estimator=estimator, predictions=q[x, a],
            policy_predictions=(TARGET * q).sum(1)[x], samples=0, **options,
        )  # fmt: skip
        total += chance.prod() * found.value
    return total


WRONG = np.array([[0.5, 0.1, 0.9], [0.0, 0.7, 0.2]])


def test_ips_and_dr_are_unbiased() -> None:
    assert expectation("ips", WRONG) == pytest.approx(TRUE, rel=1e-12)
    assert expectation("dr", WRONG) == pytest.approx(TRUE, rel=1e-12)
    assert expectation("switch_dr", WRONG, limit=10.0) == pytest.approx(TRUE, rel=1e-12)


def test_the_direct_method_is_as_good_as_its_predictions() -> None:
    assert expectation("dm", MEANS) == pytest.approx(TRUE, rel=1e-12)
    assert abs(expectation("dm", WRONG) - TRUE) > 0.1


def test_a_limit_and_self_normalization_cost_bias_and_right_predictions_none() -> None:
    assert expectation("ips", WRONG, limit=1.5) < TRUE - 0.01
    assert expectation("switch_dr", MEANS, limit=1.5) == pytest.approx(TRUE, rel=1e-12)
    assert expectation("dr", MEANS, limit=1.5) == pytest.approx(TRUE, rel=1e-12)
    assert expectation("snips", WRONG) != pytest.approx(TRUE, rel=1e-3)


def test_snips_follows_a_shift_of_the_rewards_and_ips_does_not() -> None:
    """One row decides: with IPS its weight multiplies the shift."""
    given = ([3.0], [0.5], [0.2])
    assert off_policy_value(*given, samples=0).value == pytest.approx(3.0)
    assert off_policy_value(*given, estimator="ips", samples=0).value == pytest.approx(1.2)
    assert expectation("snips", WRONG, shift=5.0) - expectation("snips", WRONG) == pytest.approx(5.0)


def log(seed: int, users: int, slots: int) -> tuple[np.ndarray, ...]:
    """Return a log of slates: rewards of one user are alike."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.choice(2, users, p=PRIOR), slots)
    a = (rng.random(users * slots)[:, None] > LOGGING[x].cumsum(1)).sum(1)
    mood = np.repeat(rng.choice([-1.0, 1.0], users), slots)
    return MEANS[x, a] + mood, LOGGING[x, a], TARGET[x, a], np.repeat(np.arange(users), slots)


@pytest.mark.parametrize("estimator", ["ips", "snips"])
def test_intervals_over_groups_cover_the_truth(estimator: Any) -> None:
    normal = bootstrap = rows = 0
    for seed in range(100):
        rewards, logged, policy, users = log(seed, 150, 3)
        found = off_policy_value(
            rewards, logged, policy, estimator=estimator, groups=users, samples=200, level=0.9, seed=seed
        )
        naive = off_policy_value(rewards, logged, policy, estimator=estimator, level=0.9, samples=0)
        normal += found.low <= TRUE <= found.high
        bootstrap += found.bootstrap_low <= TRUE <= found.bootstrap_high
        rows += naive.low <= TRUE <= naive.high
    assert 81 <= normal <= 99  # 90 of 100 within three deviations
    assert 81 <= bootstrap <= 99
    assert rows < normal  # rows of one slate are not independent


def test_a_group_repeated_inside_itself_changes_nothing() -> None:
    rewards, logged, policy, users = log(0, 40, 3)
    once = off_policy_value(rewards, logged, policy, groups=users, samples=20)
    twice = off_policy_value(
        *(np.tile(part, 2) for part in (rewards, logged, policy)), groups=[*users, *users], samples=20
    )
    assert once[:6] == pytest.approx(twice[:6])


def test_weights_are_multiplicities_and_zero_leaves_a_row_out() -> None:
    counts = [2, 1, 3, 1]
    repeated = [np.repeat(part, counts) for part in (REWARDS, PROPENSITIES, POLICY)]
    options = {"predictions": np.repeat(Q, counts), "policy_predictions": np.repeat(V, counts), "samples": 0}
    for estimator in ("ips", "snips", "dm", "dr"):
        expected = off_policy_value(*repeated, estimator=estimator, groups=np.repeat(range(4), counts), **options)  # type: ignore[arg-type, call-overload]
        assert value(estimator, weights=counts)[:2] == pytest.approx(expected[:2])
        assert value(estimator, weights=counts)[6:] == pytest.approx(expected[6:])
    damaged = off_policy_value([1, np.nan], [0.5, 0.0], [0.5, 7.0], weights=[1, 0], samples=0)
    assert damaged.value == 1.0


def test_policies_are_compared_in_pairs_by_weights() -> None:
    rewards, logged, policy, users = log(0, 40, 3)
    models = {
        name: lambda w, p=chances: {"value": off_policy_value(rewards, logged, p, weights=w, samples=0).value}
        for name, chances in {"logged": logged, "new": policy}.items()
    }
    found = bootstrap_comparison(models, users, samples=20).loc[("new", "value")]
    assert found["value"] == pytest.approx(off_policy_value(rewards, logged, policy, samples=0).value)
    assert found["difference"] == pytest.approx(found["value"] - rewards.mean())


def test_the_seed_decides_the_draws_alone() -> None:
    given = log(0, 40, 3)[:3]
    first, again, other = (off_policy_value(*given, samples=30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[:4] == other[:4]
    assert first.bootstrap_low != other.bootstrap_low


def test_one_group_has_no_interval() -> None:
    found = off_policy_value(REWARDS, PROPENSITIES, POLICY, groups=["u"] * 4)
    assert found.value == pytest.approx(8.5 / 6.5)
    assert np.isnan(found[1:6]).all()


def test_the_logging_policy_itself_has_the_mean_of_the_log() -> None:
    for estimator in ("ips", "snips"):
        found = off_policy_value(REWARDS, PROPENSITIES, PROPENSITIES, estimator=estimator)  # type: ignore[arg-type]
        assert (found.value, found.effective_sample_size, found.mean_weight) == pytest.approx((1.0, 4.0, 1.0))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"propensities": [0.5, 0.0, 0.2, 0.5]}, "`propensities` must be above 0 and at most 1"),
        ({"propensities": [0.5, 1.1, 0.2, 0.5]}, "`propensities` must be above 0 and at most 1.*1.1"),
        ({"propensities": [0.5, np.nan, 0.2, 0.5]}, "`propensities` must be finite"),
        ({"rewards": [1.0, np.nan, 0.0, 0.0]}, "`rewards` must be finite"),
        ({"rewards": []}, "at least one row that counts"),
        ({"rewards": [[1.0]]}, r"`rewards` must have the shape \[n\]"),
        ({"policy_probabilities": [0.5, -0.1, 0.2, 0.5]}, "`policy_probabilities` must lie in"),
        ({"policy_probabilities": [0.5, 0.1]}, "`policy_probabilities` must have one entry for each reward"),
        ({"policy_probabilities": [0.0] * 4}, "0 in all rows: the log holds no action of the policy"),
        ({"groups": ["u"]}, "`groups` must have one entry"),
        ({"weights": [1, 1, -1, 1]}, "`weights` must be 0 or more"),
        ({"weights": [0] * 4}, "at least one row that counts"),
        ({"estimator": "dr", "policy_predictions": V}, "The estimator needs `predictions`"),
        ({"estimator": "dm"}, "The estimator needs `policy_predictions`"),
        ({"estimator": "dm", "policy_predictions": [1.0, np.inf, 0, 0]}, "`policy_predictions` must be finite"),
        ({"estimator": "switch_dr", "predictions": Q, "policy_predictions": V}, "needs a `limit`"),
        ({"estimator": "ipw"}, "`estimator` must be one of"),
        ({"limit": 0}, "`limit` must be above 0"),
        ({"limit": float("nan")}, "`limit` must be above 0"),
        ({"samples": -1}, "`samples`"),
        ({"level": 1.0}, "`level`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change: dict[str, Any], sentence: str) -> None:
    given = {"rewards": REWARDS, "propensities": PROPENSITIES, "policy_probabilities": POLICY, **change}
    with pytest.raises(ValueError, match=sentence) as caught:
        off_policy_value(**given)
    assert "\n" not in str(caught.value)


def test_the_direct_method_needs_no_overlap() -> None:
    found = off_policy_value(REWARDS, PROPENSITIES, [0.0] * 4, estimator="dm", policy_predictions=V)
    assert (found.value, found.effective_sample_size) == (0.75, 0.0)
