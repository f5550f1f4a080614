"""Policies learned by trainings of models: from scratch, carried to other data, or prepared for quick adaptation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.allocation.policies.environment import WeightEnvironment
from tfmtl.allocation.policies.reinforce import Reinforce
from tfmtl.allocation.policies.td3 import TD3
from tfmtl.allocation.policies.weight_policy import WeightPolicy

LEARNERS: Mapping[str, type[Any]] = MappingProxyType({"td3": TD3, "reinforce": Reinforce})


@dataclasses.dataclass(frozen=True)
class LearnedPolicy:
    """The result of `train_weight_policy` and `meta_train_weight_policy`.

    Attributes:
        policy: the policy.
        objectives: for each episode, the mean over the tasks of the share by which their validation losses fell.
    """

    policy: WeightPolicy
    objectives: tuple[float, ...]

    def episodes_to(self, objective: float) -> int | None:
        """Return the number of episodes until one reached an objective, None if none did."""
        return next((i + 1 for i, found in enumerate(self.objectives) if found >= objective), None)


def train_weight_policy(
    environments: WeightEnvironment | Sequence[WeightEnvironment], episodes: int, *, learner: str = "td3",
    start: WeightPolicy | None = None, seed: int = 0,
) -> LearnedPolicy:  # fmt: skip
    """Return a policy of the tasks' weights that is learned by training models again and again.

    Use it where many similar trainings follow, or by `start` to adapt a policy learned on other data: the state has no
    unit and the tasks share the network, so that it goes over to other tasks and other numbers of them.

    Args:
        environments: the trainings to learn from, in turns.
        episodes: number of trainings.
        learner: "td3", an actor with two critics and a replay, or "reinforce", policy gradients of whole episodes.
        start: a policy to go on from, which stays as it is; by default the plain sum.
        seed: seed of the learner; episode e trains the model of seed + e.

    Raises:
        ValueError: if `episodes` is below 1, the learner is unknown, or there is no environment.

    Example:
        >>> # environment = WeightEnvironment(make_model, train, validation, steps_per_action=32, num_actions=20)
        >>> # found = train_weight_policy(environment, episodes=20)
        >>> # found.policy.save("policy.npz")

    Cost: a training of a model for each episode, besides milliseconds of learning.
    """
    several = [environments] if isinstance(environments, WeightEnvironment) else list(environments)
    require(len(several) > 0, "There is no environment to learn from.", environments=environments)
    require_positive_int(episodes=episodes)
    require_known([learner], LEARNERS, "learner", "`learner`")
    policy = WeightPolicy(seed=seed) if start is None else start.copy()
    learns = LEARNERS[learner](policy, seed)
    found = [learns.run_episode(several[e % len(several)], seed + e) for e in range(episodes)]
    return LearnedPolicy(policy, tuple(found))


def meta_train_weight_policy(
    environments: Sequence[WeightEnvironment], rounds: int, *, episodes: int = 3, step: float = 0.5,
    learner: str = "td3", start: WeightPolicy | None = None, seed: int = 0,
) -> LearnedPolicy:  # fmt: skip
    """Return a policy from which a few episodes lead to a good one on each of several data sets, by Reptile.

    theta <- theta + step (theta_e - theta), with theta_e the policy after some episodes in environment e, in turns.

    Args:
        environments: the trainings, one for each data set.
        rounds: number of updates of theta.
        episodes: episodes before each update, 2 or more.
        step: size of the updates, above 0 and at most 1; it falls to 0 along a line.
        learner, start, seed: as in `train_weight_policy`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms", 2018,
        https://arxiv.org/abs/1803.02999, algorithm 1, over data sets instead of tasks.

    Cost: rounds times episodes trainings.
    """
    require(len(environments) > 0, "There is no environment to learn from.", environments=environments)
    require_positive_int(rounds=rounds, episodes=episodes)
    require(0 < step <= 1, "`step` must be above 0 and at most 1.", step=step)
    rule = "`episodes` must be 2 or more: the first one only sets the baseline of the learner."
    require(episodes > 1, rule, episodes=episodes)
    policy = WeightPolicy(seed=seed) if start is None else start.copy()
    objectives: list[float] = []
    for number in range(rounds):
        environment = environments[number % len(environments)]
        found = train_weight_policy(environment, episodes, learner=learner, start=policy, seed=seed + number * episodes)
        size = step * (1.0 - number / rounds)
        values = zip(policy.network.get_weights(), found.policy.network.get_weights(), strict=True)
        policy.network.set_weights([np.asarray(one + size * (other - one)) for one, other in values])
        objectives += found.objectives
    return LearnedPolicy(policy, tuple(objectives))
