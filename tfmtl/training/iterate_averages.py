"""Averages of a training's iterates, exact also for the rows that a step leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.training.touched_rows import TouchedRows, by_row


class IterateAverages(TouchedRows):
    """Keeps the Polyak-Ruppert averages of all weights: goes before an optimiser of this package, as in `ASGD`.

    average_t = mean of x_s over start_step < s <= t; before that the weights themselves. A row that no batch touches
    keeps its value, so that it enters its average when it is touched next, once for each step, or when it is read.

    Attributes:
        start_step: the last step that is not averaged.
    """

    start_step: int

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the slots: an average of every weight, and for each row the step up to which it is averaged."""
        fresh = not getattr(self, "_built", False)
        super().build(var_list)
        if fresh:
            self._averages = [self.add_variable_from_reference(variable, "average") for variable in var_list]
            self._averaged_to = [self.add_row_steps(variable) for variable in var_list]
            with tf.init_scope():
                self._swapped = tf.Variable(False, trainable=False, name="swapped")
            self._variables.append(self._swapped)

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Update one variable and its average."""
        slot = self.slot_of(variable)
        average, done = self._averages[slot], self._averaged_to[slot]
        rows = self.moved_rows(gradient, variable)
        # The values before this step, for all steps since the last, and then the value of this step.
        mean = self._folded(_read(average, rows), _read(variable, rows), _read(done, rows), self.iterations)
        super().update_step(gradient, variable)
        steps = self.iterations + tf.zeros_like(_read(done, rows))
        mean = self._folded(mean, _read(variable, rows), steps, self.iterations + 1)
        _write(average, rows, mean)
        _write(done, rows, steps + 1)

    def average_of(self, variable: Any) -> tf.Tensor:
        """Return a variable's average, in its shape."""
        slot = self.slot_of(variable)
        weights = self._averages[slot] if self.holds_averages else variable
        average = variable if self.holds_averages else self._averages[slot]
        return self._folded(average, weights, self._averaged_to[slot], self.iterations)

    @property
    def holds_averages(self) -> bool:
        """Whether the variables hold their averages, after an odd number of `swap_averages`."""
        return bool(self._swapped.numpy())

    def swap_averages(self, variables: Sequence[Any]) -> None:
        """Exchange the variables' values and their averages; training goes on only after another exchange.

        Args:
            variables: all variables the optimiser was built for.
        """
        require(getattr(self, "_built", False), "The optimiser has no averages before its first step or `build`.")
        swapped = self.holds_averages
        for variable in variables:
            average, done = self._averages[self.slot_of(variable)], self._averaged_to[self.slot_of(variable)]
            weights = tf.identity(variable)
            variable.assign(average if swapped else self.average_of(variable))
            average.assign(weights)
            done.assign(tf.zeros_like(done) + self.iterations)
        self._swapped.assign(not swapped)

    def _folded(self, average: Any, value: Any, since: Any, until: Any) -> tf.Tensor:
        """Return averages up to step `since` [r, 1] with the steps up to `until` added, with the weights `value`."""
        start = tf.cast(self.start_step, since.dtype)
        total = tf.maximum(until - start, 0)
        new = tf.maximum(until, start) - tf.maximum(since, start)
        share = tf.cast(tf.where(total > 0, new / tf.maximum(total, 1), 1.0), value.dtype)
        return average + by_row(share, value) * (value - average)


def _read(variable: Any, rows: tf.Tensor | None) -> tf.Tensor:
    return tf.convert_to_tensor(variable) if rows is None else tf.gather(variable, rows)


def _write(variable: Any, rows: tf.Tensor | None, values: tf.Tensor) -> None:
    if rows is None:
        variable.assign(values)
    else:
        variable.scatter_update(tf.IndexedSlices(values, rows))
