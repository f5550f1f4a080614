"""Averaged gradient descent."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register
from tfmtl.training.iterate_averages import IterateAverages
from tfmtl.training.lazy_sgd import LazySGD


@register
class ASGD(IterateAverages, LazySGD):
    """ASGD, averaged stochastic gradient descent: `LazySGD` that also keeps the averages of its iterates.

    Use it to evaluate, export and serve averages (Polyak-Ruppert) instead of the last iterates.

    average_t = mean of x_s over start_step < s <= t, exact also for rows that steps leave alone. Training reads the
    last iterates; `SwapAverages` puts the averages in for validation and after `fit`, `averaged(model)` for a block of
    code, such as an export.

    Args:
        learning_rate: a number or a schedule. The theory wants rates that fall more slowly than 1 / t.
        start_step: steps that are not averaged; those of the first epoch or two.
        name: of the optimiser.
        **kwargs: `momentum`, `nesterov`, `weight_decay`, clipping: as in `LazySGD`.

    Raises:
        ValueError: if `start_step` is negative.

    Example:
        >>> from tfmtl._keras import tf
        >>> table, optimizer = tf.Variable([[6.0], [6.0]]), ASGD(1.0)
        >>> for row in (0, 1, 0, 1):
        ...     slices = tf.IndexedSlices(tf.ones([1, 1]), tf.constant([row]))
        ...     optimizer.apply_gradients([(slices, table)]) and None
        >>> optimizer.average_of(table).numpy()[:, 0].round(4).tolist()  # of 5, 5, 4, 4 and of 6, 5, 5, 4
        [4.5, 5.0]

    Reference:
        Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on Control and
        Optimization 30(4), 1992, https://doi.org/10.1137/0330046; Ruppert, 1988. The start at `start_step`, and rows in
        their own time, are additions.

    Cost: a step reads and writes the averages of the touched rows; a table's size and 8 bytes of state per row. A swap
    passes over all weights. Keras' `use_ema` keeps exponential averages and passes over every table in every step.
    """

    def __init__(self, learning_rate: Any = 0.01, start_step: int = 0, *, name: str = "ASGD", **kwargs: Any) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        require(
            isinstance(start_step, int) and start_step >= 0, "`start_step` must be 0 or more.", start_step=start_step
        )
        self.start_step = start_step

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start_step": self.start_step}
