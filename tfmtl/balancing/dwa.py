"""Dynamic weight average."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import observed_softmax
from tfmtl.balancing.loss_weighting import LossWeighting

_LARGEST_RATIO = 1e6


@register
class DWA(LossWeighting):
    """DWA, dynamic weight average: gives more weight to the tasks with the smallest fall of the loss by epoch.

    Use it in long fits only: it changes the weights after whole epochs.

    objective = sum_i w_i L_i, w = m softmax(r / T) over the m observed tasks, r_i = L_i(t-1) / L_i(t-2) with the
    epochs' mean training losses; uniform (w_i = 1) in the first two epochs.

    Args:
        temperature: T, above 0; the larger, the more equal the weights.

    Example:
        >>> balancer = DWA()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> for losses in ([2.0, 4.0], [1.0, 4.0]):
        ...     _ = balancer(tf.constant(losses), training=True)
        ...     balancer.end_epoch()
        >>> _ = balancer(tf.constant([1.0, 4.0]), training=True)
        >>> [round(float(weight), 3) for weight in balancer.current_weights()]  # 2 softmax([0.5 / 2, 1 / 2])
        [0.876, 1.124]

    Reference:
        Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
        https://arxiv.org/abs/1803.10704, equation 7.

    Left open there and decided here: an epoch's loss of a task is the mean over the batches that have a label of it; a
    task that an epoch does not observe keeps its last mean; r_i = 1 while a task has fewer than two means or its
    earlier one is 0, and r_i lies in [0, 1e6]; the weights of a batch sum to the number of tasks it observes.

    Cost: one running mean per task. It is of no use in fits of one or two epochs; no evidence in recommenders.
    """

    def __init__(self, temperature: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        valid = isinstance(temperature, int | float) and np.isfinite(temperature) and temperature > 0
        require(valid, "`temperature` must be a number above 0.", temperature=temperature)
        self.temperature = float(temperature)

    def build_state(self) -> None:
        """Create the means of this epoch and of the last two."""
        shape = [len(self.task_names)]
        self._mean, self._batches = self.add_state("mean", shape), self.add_state("batches", shape)
        self._latest, self._earlier = self.add_state("latest", shape), self.add_state("earlier", shape)

    def _first_weight(self) -> float:
        return 1.0

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the weighted sum and the epoch's weights."""
        if training:
            seen = tf.cast(observed, tf.float32)
            batches = self._batches.assign_add(seen)
            self._mean.assign_add(tf.math.divide_no_nan(seen * (losses - self._mean), batches))
        weights = average_weights(
            tf.convert_to_tensor(self._latest), tf.convert_to_tensor(self._earlier), observed, self.temperature
        )
        return tf.reduce_sum(weights * losses), weights

    def end_epoch(self) -> None:
        """Make the means of this epoch the latest ones."""
        latest = tf.where(self._batches > 0, self._mean, self._latest)
        self._earlier.assign(self._latest)
        self._latest.assign(latest)
        for state in (self._mean, self._batches):
            state.assign(tf.zeros_like(latest))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


def average_weights(latest: tf.Tensor, earlier: tf.Tensor, observed: tf.Tensor, temperature: float) -> tf.Tensor:
    """Return w [K], which sum to the number of observed tasks.

    Args:
        latest: mean loss of the last epoch [K].
        earlier: mean loss of the epoch before [K], 0 where there is none.
        observed: bool [K].
        temperature: T.
    """
    ratios = tf.where(earlier > 0, tf.math.divide_no_nan(latest, earlier), 1.0)
    ratios = tf.clip_by_value(ratios, 0.0, _LARGEST_RATIO)
    tasks = tf.reduce_sum(tf.cast(observed, tf.float32))
    return tasks * observed_softmax(ratios / temperature, observed)
