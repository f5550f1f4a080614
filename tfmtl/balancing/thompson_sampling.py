"""Thompson sampling over the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_fraction, require_known, require_several
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import next_seed
from tfmtl.balancing.by_task import POSITIVE, shares
from tfmtl.balancing.loss_weighting import LossWeighting


@register
class ThompsonSampling(LossWeighting):
    """Thompson sampling of AutoSeM: trains one task a round, more often those after which validation losses fall.

    Use it to find the auxiliary tasks that help a primary task. `fit` needs the callback `training.HeldOutLosses` for
    the validation losses; without it each epoch trains one task drawn at random.

    objective = L_k, k = argmax_i theta_i over the observed tasks, theta_i ~ Beta(alpha_i, beta_i) drawn once a round.
    A round ends with `observe`, with r = 1 if sum_i (V_i - V'_i) / |V_i| > 0 over the primary tasks, for their
    validation losses V at its start and V' at its end, else 0: alpha = (1 - g) alpha + g alpha_0 + r q and
    beta = (1 - g) beta + g beta_0 + (1 - r) q, with q_i the share of the round's steps that trained task i.
    Outside training the objective is the mean of the losses.

    Args:
        seed: seed of the draws; a draw depends on the seed and the number of rounds so far.
        primary: names of the primary tasks; None for all tasks.
        decay: g in [0, 1); forgets old rounds, since the usefulness of a task changes.
        successes: alpha_0, above 0.
        failures: beta_0, above 0.

    Example:
        >>> balancer = ThompsonSampling(seed=1, primary=["rating"])
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.observe([0.5, 2.0])
        >>> _ = balancer(tf.constant([3.0, 5.0]), training=True)
        >>> balancer.current_weights().numpy().tolist()
        [1.0, 0.0]
        >>> balancer.observe([0.6, 1.9])  # the loss of `rating` fell
        >>> balancer.alpha.numpy().tolist(), balancer.beta.numpy().tolist()
        ([2.0, 1.0], [1.0, 1.0])

    Reference:
        Guo, Pasunuru, Bansal, "AutoSeM: Automatic Task Selection and Mixing in Multi-Task Learning", NAACL 2019,
        https://arxiv.org/abs/1904.04153, the first of its two stages; the second is a search for fixed
        weights.

    Decided here: a tie is no success, which a model that has stopped learning would have in each round; a batch without
    a label of the round's task trains the observed task with the next theta, and shares the credit; a validation loss
    that is not finite is left out.

    Cost: that of the callback, and the labels of the other tasks in a batch are left unused. One noisy number decides
    on each round, so that rounds should be long and the validation rows many; a task without a round stays untrained,
    so that a fit needs several rounds for each task. No evidence in recommenders.
    """

    def __init__(
        self,
        seed: int = 0,
        primary: Sequence[str] | None = None,
        decay: float = 0.1,
        successes: float = 1.0,
        failures: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_several(primary=primary)
        require(primary is None or len(primary) > 0, "`primary` must name at least one task.", primary=primary)
        require_fraction(decay=decay)
        for name, count in {"successes": successes, "failures": failures}.items():
            valid = isinstance(count, int | float) and np.isfinite(count) and POSITIVE.holds(count)
            require(bool(valid), f"`{name}` must be {POSITIVE.description}.", **{name: count})
        self.seed = seed
        self.primary = None if primary is None else list(primary)
        self.decay, self.successes, self.failures = float(decay), float(successes), float(failures)

    def build_state(self) -> None:
        """Create the counts, the draws and the validation losses, and make the first draw."""
        require_known(self.primary or (), self.task_names, "task", "`primary` of ThompsonSampling")
        shape = [len(self.task_names)]
        self.alpha, self.beta = (
            self.add_state("alpha", shape, self.successes),
            self.add_state("beta", shape, self.failures),
        )
        self._theta, self._draws = self.add_state("theta", shape), self.add_state("draws", [])
        self._steps = self.add_state("steps", shape)
        self._latest, self._known = self.add_state("latest", shape), self.add_state("known", shape)
        self._begin_round()

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss of the round's task, which has the weight 1."""
        if training:
            best = tf.argmax(tf.where(observed, self._theta, -1.0))
            weights = tf.where(observed, tf.one_hot(best, len(self.task_names)), 0.0)
            self._steps.assign_add(weights)
        else:
            weights = shares(tf.ones_like(losses), observed)
        return tf.reduce_sum(weights * losses), weights

    def observe(self, losses: Any) -> None:
        """End the round with the tasks' validation losses [K], not a number for a task without one."""
        losses = tf.convert_to_tensor(losses, tf.float32)
        primary = tf.constant([self.primary is None or name in self.primary for name in self.task_names])
        finite = tf.math.is_finite(losses)
        compared, steps = primary & finite & (self._known > 0), tf.convert_to_tensor(self._steps)
        if tf.reduce_any(compared) and tf.reduce_sum(steps) > 0:
            fell = tf.math.divide_no_nan(self._latest - losses, tf.abs(self._latest))
            success = tf.cast(tf.reduce_sum(tf.where(compared, fell, 0.0)) > 0, tf.float32)
            share = steps / tf.reduce_sum(steps)
            self.alpha.assign((1 - self.decay) * self.alpha + self.decay * self.successes + success * share)
            self.beta.assign((1 - self.decay) * self.beta + self.decay * self.failures + (1 - success) * share)
        if tf.reduce_any(primary & finite) and tf.reduce_sum(steps) > 0:
            self._begin_round()
        self._latest.assign(tf.where(finite, losses, self._latest))
        self._known.assign(tf.where(finite, 1.0, self._known))

    def end_epoch(self) -> None:
        """Begin another round if no validation losses were given so far."""
        if tf.reduce_all(self._known <= 0):
            self._begin_round()

    def _begin_round(self) -> None:
        self._theta.assign(beta_draws(next_seed(self.seed, self._draws), self.alpha, self.beta))
        self._steps.assign(tf.zeros_like(self._steps))

    def get_config(self) -> dict[str, Any]:
        own = {"seed": self.seed, "primary": self.primary, "decay": self.decay}
        return {**super().get_config(), **own, "successes": self.successes, "failures": self.failures}


def beta_draws(seed: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Return draws [K] of the beta distributions with parameters alpha and beta [K].

    Args:
        seed: int64 [2].
        alpha, beta: above 0.
    """
    both = tf.stack([tf.convert_to_tensor(alpha), tf.convert_to_tensor(beta)])
    gammas = tf.random.stateless_gamma(both.shape, seed, both)  # a share of two gamma variables has this distribution
    return tf.math.divide_no_nan(gammas[0], gammas[0] + gammas[1])
