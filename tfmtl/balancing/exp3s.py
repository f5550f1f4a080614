"""A bandit over the tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl._replicas import mean_over_replicas
from tfmtl.balancing.balancer import PERIOD, next_seed
from tfmtl.balancing.by_task import observed_softmax, shares
from tfmtl.balancing.loss_weighting import LossWeighting

_LEVELS = (0.2, 0.8)
_SCALES = ("quantiles", "range")


@register
class Exp3S(LossWeighting):
    """Exp3.S, a bandit over the tasks: draws one task a step, more often the tasks with fast progress.

    Use it as an automated curriculum, in long fits where a step should serve one task alone.

    objective = L_a, a drawn from pi_i = (1 - e) softmax(w)_i + e / n over the n observed tasks. After every m-th step
    progress = (L_a - L'_a) / |L_a|, with the losses of its batch before and after (L'), clipped to [-1, 1], and
    r = 2 (progress - low) / (high - low) - 1, clipped to [-1, 1], with low and high from the progress so far;
    v_i = w_i + h (r [i = a] + b) / pi_i; w_i = log((1 - s) exp(v_i) + s / (n - 1) sum_{j != i} exp(v_j)) with
    s = 1 / (t + n) in update t = 1, 2, ...; the second term lets w follow a change of the best task.
    Outside training the objective is the mean of the losses.

    Args:
        seed: seed of the draws; a draw depends on the seed and the number of training steps so far.
        learning_rate: h, above 0.
        exploration: e in (0, 1]; no observed task has a smaller probability than e / n.
        bonus: b, at least 0; raises tasks that are rarely drawn.
        reward_scale: `"quantiles"`: low and high are the 20 % and 80 % quantiles of the progress in the last steps, so
            that rewards stay of one size while progress shrinks; `"range"`: the minimum and maximum of the progress in
            all steps, so that steps in a long time without progress have nearly equal rewards.
        window: number of last measured steps that the quantiles are taken of.
        update_every: m, steps between two updates; the progress of the others is not measured. 1 is the paper's, at the
            cost of two forward passes in each step.

    Example:
        >>> balancer = Exp3S(seed=1)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> float(balancer(tf.constant([3.0, 5.0]), training=True))
        5.0
        >>> balancer.current_weights().numpy().tolist()
        [0.0, 1.0]
        >>> balancer.after_step(tf.constant([3.0, 5.0]), tf.constant([3.0, 4.0]), tf.constant([True, True]))

    Reference:
        Graves, Bellemare, Menick, Munos, Kavukcuoglu, "Automated Curriculum Learning for Neural Networks", ICML 2017,
        https://arxiv.org/abs/1704.03003, algorithm 1 with Exp3.S and the prediction gain, here relative to the loss, so
        that tasks of different scales compare. Their experiments have h = 0.001, e = 0.05 and b = 0, with far more
        steps than most fits of recommenders.

    Decided here: s = 1 / t would be 1 in the first update, which gives each task the rewards of the others; quantiles
    are those of a window, where the paper keeps a random sample of all steps; the newest progress takes part in low and
    high, and r = 0 where they are equal; m = 8, since a measurement takes as long as a step; unobserved tasks are
    never drawn and keep their share of the sum of exp(w); a loss that is not finite changes nothing; both losses are
    taken in inference mode.

    Cost: two more forward passes in every m-th step, and the labels of the other tasks in the batch are left unused:
    with many labels per row a step learns less than one of the plain sum. No evidence in recommenders.
    """

    needs_losses_after_step = True

    def __init__(
        self,
        seed: int = 0,
        learning_rate: float = 0.01,
        exploration: float = 0.05,
        bonus: float = 0.0,
        reward_scale: str = "quantiles",
        window: int = 256,
        update_every: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        valid = isinstance(learning_rate, int | float) and np.isfinite(learning_rate) and learning_rate > 0
        require(valid, "`learning_rate` must be a number above 0.", learning_rate=learning_rate)
        valid = isinstance(exploration, int | float) and 0 < exploration <= 1
        require(valid, "`exploration` must be a number in (0, 1].", exploration=exploration)
        valid = isinstance(bonus, int | float) and np.isfinite(bonus) and bonus >= 0
        require(valid, "`bonus` must be a number of at least 0.", bonus=bonus)
        require(reward_scale in _SCALES, f"`reward_scale` must be one of {list(_SCALES)}.", reward_scale=reward_scale)
        require_positive_int(window=window, update_every=update_every)
        self.seed = seed
        self.learning_rate, self.exploration, self.bonus = float(learning_rate), float(exploration), float(bonus)
        self.reward_scale = reward_scale
        self.window = window
        self.update_every = self.after_step_every = update_every

    def build_state(self) -> None:
        """Create w, the counters, and the progress that rewards are scaled by."""
        self.logits = self.add_state("logits", [len(self.task_names)])
        self._draws, self._updates = self.add_state("draws", []), self.add_state("updates", [])
        size = self.window if self.reward_scale == "quantiles" else 2
        self._progress, self._next = self.add_state("progress", [size]), self.add_state("next", [])

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss of the drawn task, which has the weight 1."""
        if training:
            weights = one_of(self._probabilities(observed), next_seed(self.seed, self._draws))
        else:
            weights = shares(tf.ones_like(losses), observed)
        return tf.reduce_sum(weights * losses), weights

    def _probabilities(self, observed: tf.Tensor) -> tf.Tensor:
        of_logits = observed_softmax(tf.convert_to_tensor(self.logits), observed)
        uniform = shares(tf.ones_like(of_logits), observed)
        return (1 - self.exploration) * of_logits + self.exploration * uniform

    def after_step(self, before: tf.Tensor, after: tf.Tensor, observed: tf.Tensor) -> None:
        """Update w from the progress of the drawn task."""
        before, after = mean_over_replicas(before), mean_over_replicas(after)
        drawn = observed & (self.last_weights >= 1) & tf.math.is_finite(before) & tf.math.is_finite(after)
        learns = tf.reduce_any(drawn)
        relative = tf.math.divide_no_nan(before - after, tf.abs(before))
        progress = tf.reduce_sum(tf.where(drawn, tf.clip_by_value(relative, -1.0, 1.0), 0.0))
        updates = self._updates + 1.0
        known, low, high = self._bounds(progress, updates)
        reward = 2 * tf.math.divide_no_nan(progress - low, high - low) - 1
        reward = tf.where(high > low, tf.clip_by_value(reward, -1.0, 1.0), 0.0)
        gains = reward * tf.cast(drawn, tf.float32) + self.bonus
        raised = self.logits + self.learning_rate * tf.math.divide_no_nan(gains, self._probabilities(observed))
        share = 1 / (updates + tf.reduce_sum(tf.cast(observed, tf.float32)))
        logits = mixed_logits(tf.convert_to_tensor(self.logits), raised, observed, share)
        self.logits.assign(tf.where(learns, logits, self.logits))
        self._progress.assign(tf.where(learns, known, self._progress))
        self._next.assign(tf.where(learns, tf.math.floormod(self._next + 1.0, self.window), self._next))
        self._updates.assign(tf.where(learns, tf.minimum(updates, PERIOD), self._updates))

    def _bounds(self, progress: tf.Tensor, updates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the progress known after a step, and low and high."""
        if self.reward_scale == "range":
            past = tf.where(updates > 1, self._progress, progress)
            known = tf.stack([tf.minimum(past[0], progress), tf.maximum(past[1], progress)])
            return known, known[0], known[1]
        newest = tf.range(self.window, dtype=tf.float32) == self._next
        known = tf.where(newest, progress, self._progress)
        return known, *quantiles(known, tf.minimum(updates, self.window), _LEVELS)

    def get_config(self) -> dict[str, Any]:
        own = {"seed": self.seed, "learning_rate": self.learning_rate, "exploration": self.exploration}
        rest = {"bonus": self.bonus, "reward_scale": self.reward_scale, "window": self.window}
        rest["update_every"] = self.update_every
        return {**super().get_config(), **own, **rest}


def one_of(probabilities: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return 1 for a drawn entry and 0 for the others [K]; all 0 if no entry is above 0.

    Args:
        probabilities: [K], in any unit; entries of 0 are never drawn and do not change the draw among the others.
        seed: int64 [2].
    """
    upper = tf.cumsum(probabilities)
    point = tf.random.stateless_uniform([], seed) * upper[-1]
    return tf.one_hot(tf.reduce_sum(tf.cast(upper <= point, tf.int32)), probabilities.shape[0])


def quantiles(values: tf.Tensor, filled: tf.Tensor, levels: tuple[float, float]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return two quantiles of the first entries, by linear interpolation between neighbours.

    Args:
        values: [n].
        filled: number of entries that count, at least 1, as a float.
        levels: of the quantiles, in [0, 1].

    Example:
        >>> low, high = quantiles(tf.constant([4.0, 1.0, 2.0, 9.0]), tf.constant(3.0), (0.0, 0.75))
        >>> float(low), float(high)
        (1.0, 3.0)
    """
    counts = tf.range(values.shape[0], dtype=tf.float32) < filled
    ordered = tf.sort(tf.where(counts, values, values.dtype.max))
    found = []
    for level in levels:
        at = level * (filled - 1)
        floor = tf.floor(at)
        lower, upper = (tf.gather(ordered, tf.cast(index, tf.int32)) for index in (floor, tf.math.ceil(at)))
        found.append(lower + (at - floor) * (upper - lower))
    return found[0], found[1]


def mixed_logits(logits: tf.Tensor, raised: tf.Tensor, observed: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Return log((1 - s) exp(v_i) + s / (n - 1) sum_{j != i} exp(v_j)) + c for the n observed tasks [K].

    The constant c keeps the sum of their exp(w); the others keep w.

    Args:
        logits: w [K].
        raised: v [K].
        observed: bool [K].
        share: s.
    """
    lowest = logits.dtype.min
    chosen = tf.where(observed, raised, lowest)
    values = tf.where(observed, tf.exp(chosen - tf.reduce_max(chosen)), 0.0)
    others = tf.reduce_sum(values) - values
    count = tf.reduce_sum(tf.cast(observed, tf.float32))
    mixed = (1 - share) * values + tf.math.divide_no_nan(share * others, count - 1)
    kept = tf.reduce_logsumexp(tf.where(observed, logits, lowest))
    return tf.where(observed, tf.math.log(shares(mixed, observed)) + kept, logits)
