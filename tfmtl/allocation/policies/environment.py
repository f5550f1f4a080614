"""Training a model as an environment: states, actions and rewards for learners of policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.policies.interval_cosines import IntervalCosines
from tfmtl.allocation.policies.learned_weights import ValidationLosses
from tfmtl.allocation.policies.task_state import TaskState
from tfmtl.allocation.policies.weight_policy import LARGEST_ACTION, weights_of
from tfmtl.data.source import as_source
from tfmtl.models import MultiTaskModel
from tfmtl.models.optimizer_parts import variables_of


class WeightEnvironment:
    """An episode is a training of a model; an action sets the weights of its tasks for some steps.

    State: see `TaskState`. Action a [K] in [-2, 2]: weights K softmax(a). Reward: the increase, in these steps, of the
    mean over the tasks of the share by which their validation losses have fallen; the rewards of an episode add up to
    the share at its end. `reset` and `step` have the form of `gymnasium.Env`, so that learners of others can be tried;
    `gymnasium` itself is not needed.

    Args:
        make_model: seed -> a compiled model with the balancer `AssignedWeights`.
        train: training table, in any form that `fit` takes except data sets.
        validation: table for the state and the reward: rows that train nothing and compare no models.
        steps_per_action: steps of each action.
        num_actions: actions of an episode.
        batch_size: as in `fit`.
        cosines: whether the state has the cosines of gradients.

    Raises:
        ValueError: if a number is not positive.

    Cost: an episode costs a training. Each `reset` builds a model for its values; the first one is trained and keeps
    its traces.
    """

    def __init__(
        self, make_model: Callable[[int], MultiTaskModel], train: Any, validation: Any, *, steps_per_action: int = 32,
        num_actions: int = 20, batch_size: int = 1024, cosines: bool = True,
    ) -> None:  # fmt: skip
        require_positive_int(steps_per_action=steps_per_action, num_actions=num_actions, batch_size=batch_size)
        rule = "`train` must be a table: a data set begins again at its first batch with every action."
        require(not as_source(train).batched, rule, train=type(train).__name__)
        self.make_model, self.train, self.validation = make_model, train, validation
        self.steps_per_action, self.num_actions, self.batch_size = steps_per_action, num_actions, batch_size
        self.model: Any = None
        self._monitor = IntervalCosines(steps_per_action) if cosines else None
        self._done = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Floats, dict[str, Any]]:
        """Start a training; return its state [K, 5] and an empty dict.

        Args:
            seed: seed of the model; 0 by default.
            options: ignored.
        """
        fresh = self.make_model(seed or 0)
        if self.model is None:
            self.model = fresh
            self._losses = ValidationLosses(fresh, self.validation)
        ours, theirs = (
            [*model.variables, *variables_of(model.optimizer, model.trainable_variables)]
            for model in (self.model, fresh)
        )
        for one, other in zip(ours, theirs, strict=True):
            one.assign(other)
        self.model.seed, self._done = fresh.seed, 0
        self._state = TaskState(self._losses())
        return self._state.observe(self._state.first, 1.0), {}

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Train for some steps; return the state, the reward, whether the episode ended, False, and details.

        An episode also ends when a validation loss is not finite, which counts as a rise by 5 times its first value.

        Args:
            action: a [K].

        Raises:
            ValueError: if the action has another shape or is not finite, or the episode has ended.
        """
        require(self.model is not None, "Call `reset` first.")
        require(self._done < self.num_actions, "The episode has ended; call `reset`.", actions=self._done)
        action = np.asarray(action, np.float64)
        valid = action.shape == self._state.first.shape and bool(np.isfinite(action).all())
        require(valid, "`action` must hold a finite number for each task.", action=action.tolist())
        weights = weights_of(np.clip(action, -LARGEST_ACTION, LARGEST_ACTION))
        self._losses.assign(weights)
        before = self._state.objective
        watch = [] if self._monitor is None else [self._monitor]
        self.model.fit(
            self.train, batch_size=self.batch_size, steps_per_epoch=self.steps_per_action, callbacks=watch, verbose=0
        )
        self._done += 1
        cosines = None if self._monitor is None else self._monitor.take()
        losses, left = self._losses(), 1.0 - self._done / self.num_actions
        diverged = not np.isfinite(losses).all()
        losses = np.where(np.isfinite(losses), losses, self._state.largest)
        state = self._state.observe(losses, left, cosines)
        details = {"weights": weights, "objective": self._state.objective}
        return state, self._state.objective - before, diverged or self._done == self.num_actions, False, details
