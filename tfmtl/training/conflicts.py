"""The conflicts between the tasks' gradients, measured while training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tfmtl._keras import tf
from tfmtl.balancing import TrainingStep
from tfmtl.balancing.step_gradients import At, gramian_at
from tfmtl.training.pair_monitor import PairMonitor


class ConflictMonitor(PairMonitor):
    """Measures how the gradients of each pair of tasks agree, every n-th step, under any balancer.

    With g_i the gradient of task i's own loss, unweighted, at the chosen location:
    cosine = g_i . g_j / (|g_i| |g_j|); magnitude = 2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2), 1 for equal lengths and 0 if
    one vanishes beside the other; conflict = share of the measurements with a negative cosine.

    The epoch's means enter its log as `conflict/<a>~<b>`, `cosine/<a>~<b>` and `magnitude/<a>~<b>` for each pair in the
    tasks' order. Put the monitor before callbacks that read the log, such as `CSVLogger` and `TensorBoard`; `History`
    always has them. Training itself stays as it is without the monitor.

    A pair is measured in a batch that has labels of both tasks, unless a gradient is zero or not finite. A pair never
    measured in an epoch, for instance in one shorter than `every_n_steps`, has NaN.

    Args:
        every_n_steps: optimiser steps between two measurements, 1 or more; steps 0, n, 2 n, ... of the optimiser's
            counter are measured, across epochs.
        at: where gradients are taken, as in `GramianBalancer`: `"representation"`, `"shared"` or names of layers.

    Attributes:
        history: one dict an epoch of the last `fit`: `"conflict"`, `"cosine"` and `"magnitude"`, arrays [K, K] of
            means, and `"count"`, the number of measurements [K, K].
        task_names: names of the K tasks.

    Raises:
        ValueError: when training starts, if a named layer does not exist or another monitor takes part.

    Example:
        >>> monitor = ConflictMonitor(every_n_steps=20, at="shared")
        >>> # model.fit(table, callbacks=[monitor]); conflict_heat_map(monitor.history, monitor.task_names)
        >>> round(float(pair_measures(tf.constant([[1.0, -1.0], [-1.0, 2.0]]), tf.constant([True, True]))[1, 0, 1]), 4)
        -0.7071

    Reference:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, https://arxiv.org/abs/2001.06782,
        definitions 1 (conflict) and 2 (magnitude similarity); definition 3, the curvature, needs second derivatives and
        is not measured. The paper leaves zero gradients open: they have no direction and are not counted here.

    Cost: at the n-th steps K backward passes from the losses down to the location; nothing at the others, but under a
    strategy with several replicas every step pays, since replicas cannot communicate in a branch.
    Use it to see which tasks disagree before choosing a balancer; a high conflict rate alone is no evidence that
    balancing gradients beats tuned fixed weights.
    """

    measures = ("conflict", "cosine", "magnitude")

    def __init__(self, every_n_steps: int = 10, at: At = "representation") -> None:
        super().__init__(every_n_steps, at)

    def pair_values(self, step: TrainingStep) -> tf.Tensor:
        """Return conflict, cosine, magnitude and count [4, K, K] of a step."""
        return pair_measures(gramian_at(step, step.output_gradients(), self.at), step.observed)

    def logged_pairs(self) -> Iterable[tuple[int, int]]:
        """Return each pair once, in the tasks' order."""
        return itertools.combinations(range(len(self.task_names)), 2)


def pair_measures(gramian: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return conflict (0 or 1), cosine, magnitude similarity and count (0 or 1) of all pairs of tasks [4, K, K].

    All four are 0 for a pair that is not counted: a task is unobserved, or its gradient zero or not finite.

    Args:
        gramian: inner products of the tasks' gradients [K, K], in any unit.
        observed: bool [K].
    """
    norms = tf.sqrt(tf.linalg.diag_part(gramian))
    known = observed & (norms > 0) & tf.math.is_finite(norms)
    counted = known[:, tf.newaxis] & known[tf.newaxis, :] & tf.math.is_finite(gramian)
    norms = tf.where(known, norms, 1.0)
    rows, columns = norms[:, tf.newaxis], norms[tf.newaxis, :]
    cosine = tf.clip_by_value(gramian / (rows * columns), -1.0, 1.0)
    magnitude = 2.0 / (rows / columns + columns / rows)  # the squares of the definition could overflow
    conflict = tf.cast(gramian < 0, tf.float32)
    return tf.where(counted, tf.stack([conflict, cosine, magnitude, tf.ones_like(cosine)]), 0.0)
