"""Adam with a step that costs as much as the rows of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.training.touched_rows import TouchedRows, by_row

"""Tables of up to so many rows are updated as a whole, which is cheaper than a search for repeated rows."""


@register
class LazyAdam(TouchedRows, keras.optimizers.Adam):
    """Adam that updates only the embedding rows that a batch looks up, and catches up on the steps each row missed.

    For a row touched in step t and before that in step s, k = t - s: m <- b1^k m + (1 - b1) g,
    v <- b2^k v + (1 - b2) g^2, x <- x - a_t m / (sqrt(v) + eps) with Adam's corrected rate
    a_t = rate sqrt(1 - b2^t) / (1 - b1^t).

    Adam would have moved the row in the steps between, too, by its old momentum:
    M(s, c) = sum_{j=1..c} a_{s+j} q^j in units of m / (sqrt(v) + eps) at s, q = b1 / sqrt(b2), c = k - 1. For this sum
    a q (1 - q^c) / (1 - q) is taken, with a at the mean of j under the weights q^j. As a row that was away for k steps
    will be away again, the next k - 1 steps are paid ahead at once, M(t, k - 1), so that the row is read where Adam
    would have it; at the next touch the movement paid ahead is subtracted from the missed one. A row of every batch
    misses nothing: then this is Adam. A table of up to `dense_rows` rows takes Adam's own step for all rows, which is
    cheaper there than to look for repeated rows, and so do dense weights, in TensorFlow's fused operation.

    Args:
        learning_rate, beta_1, beta_2, epsilon: as in `tf_keras.optimizers.Adam`.
        catch_up: whether rows catch up on missed steps. Without it rows and moments of a table simply stay as they are
            while they are not touched (k = 1, M = 0): the rule known as lazy Adam, in which a rare row moves a tenth as
            far on a gradient as in Adam.
        dense_rows: tables with at most that many rows are updated by operations on the whole table; 0 for none. The
            default suits CPUs. Such a table needs no counters; state saved with one value does not fit another.
        name: of the optimiser.
        **kwargs: `weight_decay`, clipping and more, see `TouchedRows`; `amsgrad` is left to Keras, which updates all
            rows.

    Raises:
        ValueError: if `catch_up` is given with beta_1^2 >= beta_2, where M has no bound, if `adaptive_epsilon` is true,
            or if `dense_rows` is negative.

    Example:
        >>> table = tf.Variable(tf.ones([20_000, 1]))
        >>> LazyAdam(0.5).apply_gradients([(tf.IndexedSlices(tf.ones([1, 1]), tf.constant([1])), table)]) and None
        >>> table.numpy()[:3, 0].round(2).tolist()
        [1.0, 0.5, 1.0]

    Reference:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, https://arxiv.org/abs/1412.6980,
        algorithm 1 with the rate of section 2; that lazy Adam loses quality, and a rate by the steps skipped:
        https://github.com/tensorflow/tensorflow/issues/23668. Caffe2's operator `SmartDecaySparseAdam` makes good
        missed steps, too, but only after the row has been read (pytorch, caffe2/sgd/adam_op.h); paying ahead is ours,
        and so is the representative of a.

    Cost: rows of the batch, in the update a quarter more than without `catch_up`, and 16 bytes per row of a large
    table; Keras' Adam touches every row. On long-tail ratings (benchmarks/optimizers.py, 5 seeds, best rates) the test
    RMSE is that of Keras' Adam with it (-0.0008 +- 0.0023) and 0.0127 +- 0.0050 worse without, on MovieLens-100K that
    of Adam either way: therefore the default.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *,
        catch_up: bool = True,
        dense_rows: int = 16_384,
        name: str = "LazyAdam",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, name=name, **kwargs
        )
        require(not self.adaptive_epsilon, "LazyAdam has no `adaptive_epsilon`.", adaptive_epsilon=True)
        require(
            not catch_up or beta_1**2 < beta_2,
            "`catch_up` needs beta_1^2 < beta_2: else the missed steps of a row have no bounded sum.",
            beta_1=beta_1,
            beta_2=beta_2,
        )
        require(dense_rows >= 0, "`dense_rows` must be 0 or more.", dense_rows=dense_rows)
        self.catch_up = catch_up
        self.dense_rows = dense_rows

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the slots: the moments, and two counters for each row of a large table."""
        fresh = not getattr(self, "_built", False)
        super().build(var_list)
        if fresh and self.catch_up and not self.amsgrad:
            large = {str(i): v for i, v in enumerate(var_list) if not self._is_small(v.shape)}
            self._row_steps = {slot: self.add_row_steps(variable, 2) for slot, variable in large.items()}

    @property
    def row_steps(self) -> dict[int, tf.Variable]:
        """For each large table, by its index among the variables: each row's last step and steps paid ahead, [n, 2]."""
        return {int(slot): steps for slot, steps in getattr(self, "_row_steps", {}).items()}

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Update one variable; AMSGrad is left to Keras, which updates every row."""
        if self.amsgrad:
            super(TouchedRows, self).update_step(gradient, variable)
        else:
            super().update_step(gradient, variable)

    def update_dense(self, gradient: tf.Tensor, variable: Any) -> None:
        """Take the step of Adam in TensorFlow's fused operation."""
        slot, dtype = self.slot_of(variable), variable.dtype
        beta_1, beta_2, rate, epsilon = (
            tf.cast(x, dtype) for x in (self.beta_1, self.beta_2, self.learning_rate, self.epsilon)
        )
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[slot].handle, v=self._velocities[slot].handle, lr=rate,
            grad=gradient, beta1=beta_1, beta1_power=tf.pow(beta_1, step), beta2=beta_2,
            beta2_power=tf.pow(beta_2, step), epsilon=epsilon,
        )  # fmt: skip
        if self.catch_up and str(slot) in self._row_steps:  # every row was touched
            steps = self._row_steps[str(slot)]
            steps.assign(tf.zeros_like(steps) + tf.stack([self.iterations + 1, 0]))

    def update_rows(self, gradient: tf.IndexedSlices, variable: Any) -> None:
        """Update the touched rows."""
        if self._is_small(variable.shape):
            self._update_small(gradient, variable)
            return
        slot, dtype = self.slot_of(variable), variable.dtype
        momentums, velocities = self._momentums[slot], self._velocities[slot]
        rows = gradient.indices
        m, v = tf.gather(momentums, rows), tf.gather(velocities, rows)
        step = self.iterations + 1
        if not self.catch_up:
            m, v, direction = self._moved(m, v, gradient.values, None)
            self.subtract(variable, rows, self._rate(tf.cast(step, dtype)) * direction)
        else:
            steps = self._row_steps[str(slot)]
            last, ahead = tf.unstack(tf.gather(steps, rows), axis=1)
            now, gap = tf.fill(tf.shape(rows), step), step - last
            counts = tf.stack([gap - 1, ahead, gap - 1])
            missed, paid, coming = tf.unstack(self._missed(tf.stack([last, last, now]), counts, dtype))
            change = by_row(missed - paid, m) * _direction(m, v, self.epsilon)
            m, v, direction = self._moved(m, v, gradient.values, gap)
            change += by_row(self._rate(tf.cast(step, dtype)) + coming, m) * direction
            self.subtract(variable, rows, change, gap)
            steps.scatter_update(tf.IndexedSlices(tf.stack([now, gap - 1], axis=1), rows))
        momentums.scatter_update(tf.IndexedSlices(m, rows))
        velocities.scatter_update(tf.IndexedSlices(v, rows))

    def _update_small(self, gradient: tf.IndexedSlices, variable: Any) -> None:
        """Update a small table with operations on all of its rows."""
        touched, values = _summed_by_row(gradient, int(variable.shape[0]))
        share = self.decay_share(variable)
        if self.catch_up:
            if share is not None:
                variable.assign_sub(share * variable)
            self.update_dense(values, variable)
            return
        slot = self.slot_of(variable)
        momentums, velocities = self._momentums[slot], self._velocities[slot]
        m, v, direction = self._moved(momentums, velocities, values, None)
        change = self._rate(tf.cast(self.iterations + 1, variable.dtype)) * direction
        change = change if share is None else change + share * variable
        touched = by_row(touched, values)
        momentums.assign(tf.where(touched, m, momentums))
        velocities.assign(tf.where(touched, v, velocities))
        variable.assign_sub(tf.where(touched, change, 0))

    def _moved(self, m: tf.Tensor, v: tf.Tensor, gradient: tf.Tensor, gap: Any) -> tuple[tf.Tensor, ...]:
        """Return the moments after `gap` steps [r], or one, the last with a gradient, and their direction."""
        decay_1, decay_2 = self.beta_1, self.beta_2
        if gap is not None:
            decay_1, decay_2 = (by_row(_power(beta, gap, m.dtype), m) for beta in (self.beta_1, self.beta_2))
        m = decay_1 * m + (1 - self.beta_1) * gradient
        v = decay_2 * v + (1 - self.beta_2) * tf.square(gradient)
        return m, v, _direction(m, v, self.epsilon)

    def _rate(self, step: tf.Tensor) -> tf.Tensor:
        """Return the learning rate with Adam's correction of the moments' start, at steps [...]."""
        beta_1, beta_2, rate = (tf.cast(x, step.dtype) for x in (self.beta_1, self.beta_2, self.learning_rate))
        return rate * tf.sqrt(1 - tf.pow(beta_2, step)) / (1 - tf.pow(beta_1, step))

    def _missed(self, last: tf.Tensor, count: tf.Tensor, dtype: Any) -> tf.Tensor:
        """Return how far along a row's direction Adam goes in `count` [...] steps without gradient after `last` [...].

        sum_{j=1..c} rate(last + j) q^j with q = b1 / sqrt(b2), the rate taken at the mean of j under the weights q^j.
        """
        last, count = tf.cast(last, dtype), tf.cast(count, dtype)
        ratio = self.beta_1 / self.beta_2**0.5
        left = _power(ratio, count, dtype)
        mean = 1 / (1 - ratio) - tf.math.divide_no_nan(count * left, 1 - left)
        middle = last + tf.maximum(mean, 1)
        corrected = tf.sqrt(1 - _power(self.beta_2, middle, dtype)) / (1 - _power(self.beta_1, middle, dtype))
        return tf.cast(self.learning_rate, dtype) * corrected * (1 - left) * (ratio / (1 - ratio))

    def sums_rows(self, gradient: tf.IndexedSlices) -> bool:
        """Return whether the gradient is that of a small table, of which this class makes the step."""
        shape = None if gradient.dense_shape is None else tf.get_static_value(gradient.dense_shape)
        return shape is not None and not self.amsgrad and self._is_small(shape)

    def moved_rows(self, gradient: Any, variable: Any) -> tf.Tensor | None:
        """Return the touched rows, or None where the step is Adam's own."""
        whole = self.amsgrad or (self.catch_up and self._is_small(variable.shape))
        return None if whole else super().moved_rows(gradient, variable)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "catch_up": self.catch_up, "dense_rows": self.dense_rows}

    def _is_small(self, shape: Any) -> bool:
        """Return whether a table of a shape is updated as a whole."""
        return bool(len(shape) == 0 or shape[0] <= self.dense_rows)


def _power(base: float, exponents: tf.Tensor, dtype: Any) -> tf.Tensor:
    """Return powers of a number in [0, 1), faster than `tf.pow`."""
    return tf.exp(tf.cast(exponents, dtype) * max(math.log(base) if base else -math.inf, -1e30))


def _direction(m: tf.Tensor, v: tf.Tensor, epsilon: float) -> tf.Tensor:
    return m / (tf.sqrt(v) + (epsilon or 1e-30))  # 0 of a row without moments, also for an epsilon of 0


def _summed_by_row(gradient: tf.IndexedSlices, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which rows of a table [n, ...] a gradient touches, [n], and the sum of its values in each, [n, ...]."""
    touched = tf.math.bincount(tf.cast(gradient.indices, tf.int32), minlength=size, maxlength=size) > 0
    return touched, tf.math.unsorted_segment_sum(gradient.values, gradient.indices, size)
