"""Off-policy estimators: the value of a policy from rows that another policy logged with its propensities."""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_fraction

_Floats = npt.NDArray[np.float64]

Estimator = Literal["ips", "snips", "dm", "dr", "switch_dr"]


class OffPolicyValue(NamedTuple):
    """The estimated value of a policy, with figures that show how far it can be trusted.

    Both intervals are too narrow if the effective sample size is small, or few rewards differ from 0. Those of the
    direct method leave out the error of its predictions, and are narrow around a wrong value.

    Args:
        value: estimated mean reward under the policy.
        standard_error: of `value`, linearized, between groups; NaN with fewer than two groups, as are the intervals.
        low: lower end of the normal interval.
        high: upper end of the normal interval.
        bootstrap_low: lower end of the percentile interval of the bootstrap; NaN without draws.
        bootstrap_high: upper end of the percentile interval.
        effective_sample_size: (sum w)^2 / sum w^2 of the weights that the estimator uses.
        mean_weight: before `limit`; 1 in expectation, if the propensities are right, and positive for each action that
            the policy may take.
        largest_weight: before `limit`.
        limited: share of the rows with weights above `limit`.
    """

    value: float
    standard_error: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    effective_sample_size: float
    mean_weight: float
    largest_weight: float
    limited: float


def off_policy_value(
    rewards: npt.ArrayLike,
    propensities: npt.ArrayLike,
    policy_probabilities: npt.ArrayLike,
    *,
    estimator: Estimator = "snips",
    predictions: npt.ArrayLike | None = None,
    policy_predictions: npt.ArrayLike | None = None,
    limit: float | None = None,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> OffPolicyValue:
    r"""Estimate the mean reward of a policy from the decisions of another one: IPS, SNIPS, DM, DR and switch-DR.

    Use it before a policy is served, on a log with the probability p of each action. A row is a decision with reward r;
    w = pi / p is its weight, q the predicted reward of its action, and v = sum_a pi(a) q(a) over all actions:

    - `"ips"`: mean of w r; unbiased, with a large variance
    - `"snips"`: sum w r / sum w; a small bias, less variance
    - `"dm"`: mean of v; as biased as the predictions
    - `"dr"`: mean of v + w (r - q); unbiased if the propensities or the predictions are right
    - `"switch_dr"`: as `"dr"`, with v alone for rows of weights above `limit`

    Args:
        rewards: [n]; each position of a slate is a row.
        propensities: [n] p of the logged action, in (0, 1]; in a slate, that of the item at this position.
        policy_probabilities: [n] pi of the logged action under the policy to judge, in [0, 1].
        estimator: see above.
        predictions: [n] q, for `"dr"` and `"switch_dr"`, of a model that was not trained on these rows.
        policy_predictions: [n] v, for `"dm"`, `"dr"` and `"switch_dr"`.
        limit: larger weights are clipped to it: less variance, more bias.
        groups: [n] user or slate of each row, drawn as a whole; by default each row is independent.
        weights: [n] multiplicity of each row; rows with 0 do not count.
        samples: number of draws of the bootstrap over groups, 0 for none.
        level: level of the intervals, in (0, 1).
        seed: seed of the draws.

    Raises:
        ValueError: if a probability is outside its range, a value is not finite, lengths differ, predictions are
            missing, or the policy takes no logged action.

    Example:
        >>> found = off_policy_value([1, 0, 0, 1], [0.5] * 4, [0.9, 0.1, 0.1, 0.9], estimator="ips")
        >>> round(found.value, 3), round(found.effective_sample_size, 2), found.largest_weight
        (0.9, 2.44, 1.8)

    Reference: Dudik et al., "Doubly Robust Policy Evaluation and Learning", ICML 2011, https://arxiv.org/abs/1103.4601;
    SNIPS: Swaminathan and Joachims, NeurIPS 2015; switch: Wang et al., ICML 2017, https://arxiv.org/abs/1612.01205.
    """
    log = _Log(rewards, propensities, policy_probabilities, groups, weights)
    log.choose(estimator, limit, predictions, policy_predictions)
    return log.value(samples, level, seed)


class _Log:
    """The rows that count: their weights, and the two sums per group of which the value is the ratio."""

    def __init__(
        self,
        rewards: npt.ArrayLike,
        propensities: npt.ArrayLike,
        probabilities: npt.ArrayLike,
        groups: npt.ArrayLike | None,
        weights: npt.ArrayLike | None,
    ) -> None:
        self.shape = np.shape(rewards)
        require(len(self.shape) == 1, "`rewards` must have the shape [n].", shape=self.shape)
        self.kept = np.ones(self.shape, bool)
        count = self.read(np.ones(self.shape) if weights is None else weights, "weights")
        require(bool((count >= 0).all()), "`weights` must be 0 or more.", least=count.min(initial=0))
        self.kept = count > 0
        require(bool(self.kept.any()), "`rewards` must hold at least one row that counts.", rows=len(count))
        self.count, self.reward = count[self.kept], self.read(rewards, "rewards")
        logged, policy = self.read(propensities, "propensities"), self.read(probabilities, "policy_probabilities")
        valid = (logged > 0) & (logged <= 1)
        require(
            bool(valid.all()),
            "`propensities` must be above 0 and at most 1; leave out others.",
            found=logged[~valid][:3].tolist(),
        )
        valid = (policy >= 0) & (policy <= 1)
        require(bool(valid.all()), "`policy_probabilities` must lie in [0, 1].", found=policy[~valid][:3].tolist())
        self.ratio = policy / logged
        names = np.arange(self.shape[0]) if groups is None else np.asarray(groups)
        self._same_length("groups", names.shape)
        self.group = np.unique(names[self.kept], return_inverse=True)[1]

    def read(self, values: npt.ArrayLike | None, name: str) -> _Floats:
        """Return finite values of the rows that count."""
        require(values is not None, f"The estimator needs `{name}`.")
        array = np.asarray(values, np.float64)
        self._same_length(name, array.shape)
        array = array[self.kept]
        require(bool(np.isfinite(array).all()), f"`{name}` must be finite; leave out other rows.", found=array)
        return array

    def _same_length(self, name: str, shape: tuple[int, ...]) -> None:
        require(shape == self.shape, f"`{name}` must have one entry for each reward {self.shape}.", shape=shape)

    def choose(
        self,
        estimator: Estimator,
        limit: float | None,
        predictions: npt.ArrayLike | None,
        policy_predictions: npt.ArrayLike | None,
    ) -> None:
        """Set the weights that an estimator uses, and the numerator and denominator of each row."""
        known = get_args(Estimator)
        require(estimator in known, f"`estimator` must be one of {list(known)}.", estimator=estimator)
        require(limit is None or limit > 0, "`limit` must be above 0.", limit=limit)
        require(limit is not None or estimator != "switch_dr", "The estimator 'switch_dr' needs a `limit`.")
        require(
            estimator == "dm" or bool(self.ratio.any()),
            "`policy_probabilities` are 0 in all rows: the log holds no action of the policy.", rows=len(self.ratio),
        )  # fmt: skip
        most = np.inf if limit is None else limit
        self.above = self.ratio > most
        self.used = np.where(self.above, 0.0, self.ratio) if estimator == "switch_dr" else np.minimum(self.ratio, most)
        self.top, self.bottom = self.used * self.reward, np.ones_like(self.used)
        if estimator == "snips":
            self.bottom = self.used
        elif estimator != "ips":
            self.top = self.read(policy_predictions, "policy_predictions")
        if estimator in ("dr", "switch_dr"):
            self.top = self.top + self.used * (self.reward - self.read(predictions, "predictions"))

    def value(self, samples: int, level: float, seed: int) -> OffPolicyValue:
        """Return the ratio of the sums with its intervals."""
        require(isinstance(samples, int) and samples >= 0, "`samples` must be an integer from 0.", samples=samples)
        require_fraction(level=level)
        top = np.asarray(np.bincount(self.group, self.count * self.top), np.float64)
        bottom = np.asarray(np.bincount(self.group, self.count * self.bottom), np.float64)
        value = float(top.sum() / bottom.sum())
        groups = len(top)
        spread = ((top - value * bottom) ** 2).sum() * groups / (groups - 1) if groups > 1 else np.nan
        error = float(np.sqrt(spread) / bottom.sum())
        edge = NormalDist().inv_cdf((1 + level) / 2) * error
        low, high = _percentiles(top, bottom, samples if groups > 1 else 0, level, seed)
        mass, rows = self.count * self.used, self.count.sum()
        return OffPolicyValue(
            value, error, value - edge, value + edge, low, high,
            effective_sample_size=float(mass.sum() ** 2 / (mass @ self.used)) if mass.any() else 0.0,
            mean_weight=float(self.count @ self.ratio / rows),
            largest_weight=float(self.ratio.max()),
            limited=float(self.count @ self.above / rows),
        )  # fmt: skip


def _percentiles(top: _Floats, bottom: _Floats, samples: int, level: float, seed: int) -> tuple[float, float]:
    """Return the percentile interval of the ratio over draws of groups; draws without any weight do not count."""
    generator, groups = np.random.default_rng(seed), len(top)
    found = []
    for _ in range(samples):
        drawn = np.bincount(generator.integers(0, groups, groups), minlength=groups)
        below = drawn @ bottom
        if below > 0:
            found.append(drawn @ top / below)
    if not found:
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
