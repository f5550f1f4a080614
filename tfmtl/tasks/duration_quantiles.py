"""Watch time as its quantile among rows of similar duration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.number_task import AmountTask, clipped
from tfmtl.tasks.quantile_tables import QuantileTables
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.row_loss import RowLoss
from tfmtl.tasks.task import HeadInputs, LossInputs, mean_over_observed, total_weight

_SPREAD = math.sqrt(12)  # 1 / the standard deviation of a uniform quantile


@register
class DurationQuantiles(AmountTask):
    """D2Q, duration-deconfounded quantiles: watch time by its quantile among rows of similar duration.

    Use it where long videos are watched longer because they are long: a loss of seconds mostly learns durations, and
    ranks short videos last. `fit` measures the bins and quantiles in a training table.

    F_b is the empirical distribution of the watch times in the bin b of durations, given by K knots, Q_b its inverse:
    both are linear between the knots. The target is the quantile q = F_b(y); where several knots equal y, it is the
    middle of their quantiles. l = (z - t)^2 with t = sqrt(12) (q - 1/2), which has the variance 1 in each bin, so that
    the loss starts near 1. The served value, in seconds, is Q_b(z / sqrt(12) + 1/2).

    A row with a missing duration has the quantiles of all rows. A duration beyond those of the training table is in the
    last bin, and is served no watch time above the longest one of this bin. As Q_b is not linear, the served value
    estimates neither the mean nor the median; see `calibration` in the report.

    Metrics: `rmse` and `mae` of the served value; a report adds `r2`, `xauc`, the usual metric of watch times, and
    `calibration`, the predicted over the observed total.

    Args:
        name: name of the task and of its label.
        duration: name of a `Numeric` feature with the duration. With `missing="mean"` its missing values have the bin
            of the mean.
        edges: ascending first durations [E] of all bins except the first one, in the unit of the column.
        knots: watch times [E + 2][K]: for each bin, and last for all rows, K >= 2 ascending quantiles in equal steps,
            from the smallest watch time to the largest one.
        units: widths of the head's hidden layers.
        scope: `"pair"`, or `"query"` if the duration is a feature of the query.
        clip: (lowest, highest) served value, or None.

    Returns:
        Network output: [B, 2], z and the bin, E + 1 where the duration is missing. A `GroupLoss` ranks by z.

    Raises:
        ValueError: if edges or knots are not ascending or not finite, their numbers do not fit, or a knot is below 0;
            on `connect`, if the network has mixup, under which the label of a row has the duration of another row.

    Example:
        >>> task = DurationQuantiles("watched", "length", edges=[60.0], knots=[[0, 10, 20], [0, 50, 250], [0, 15, 250]])
        >>> outputs = tf.constant([[0.0, 0.0], [0.0, 1.0], [math.sqrt(12) / 4, 1.0]])  # two medians, and q = 3/4
        >>> task.predict(outputs).numpy().round(3).tolist()
        [10.0, 50.0, 150.0]

    Reference: Zhan et al., "Deconfounding Duration Bias in Watch-time Prediction for Video Recommendation", KDD 2022,
    https://arxiv.org/abs/2206.06003, section 4.2. The paper predicts q itself; the knots are added here.

    Cost: that of `Regression`, and K comparisons for each row in training.
    """

    kendall_factor = 0.5

    def __init__(
        self,
        name: str,
        duration: str,
        edges: Sequence[float],
        knots: Sequence[Sequence[float]],
        units: Sequence[int] = (),
        scope: Scope = "pair",
        clip: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, clip, **kwargs)
        of = f"of task {name!r}"
        rising = all(math.isfinite(edge) for edge in edges) and all(
            low < high for low, high in itertools.pairwise(edges)
        )
        require(rising, f"`edges` {of} must be ascending finite numbers.", edges=edges)
        require(
            len(knots) == len(edges) + 2,
            f"`knots` {of} must have one row for each of the {len(edges) + 1} bins, and one for all rows.",
            rows=len(knots),
        )
        self.duration = duration
        self.edges = tuple(float(edge) for edge in edges)
        self.knots = tuple(tuple(float(knot) for knot in row) for row in knots)
        self._tables = QuantileTables(self.knots, f"`knots` {of}")

    @classmethod
    def fit(
        cls,
        name: str,
        duration: str,
        table: Mapping[str, npt.ArrayLike],
        num_bins: int = 20,
        num_knots: int = 101,
        column: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the task with bins and quantiles of the rows of a training table.

        The bins have nearly equal numbers of rows; rows of one duration share a bin, so that there may be fewer bins.
        Rows without a watch time do not count, and those without a duration count among all rows only.

        Args:
            name: name of the task.
            duration: column of the durations and name of their feature.
            table: a data frame, or columns by name.
            num_bins: largest number of bins.
            num_knots: K, number of quantiles of each bin; at least 2.
            column: column of the watch times; `name` by default.
            kwargs: further arguments of the task.

        Raises:
            ValueError: if a column is absent, no row has a duration and a watch time, a duration is not above 0, a
                watch time is below 0, or one of them is infinite.
        """
        require_positive_int(num_bins=num_bins)
        require(num_knots >= 2, f"`num_knots` of task {name!r} must be 2 or more.", num_knots=num_knots)
        times, lengths = (_numbers(table, each, name) for each in (column or name, duration))
        times, lengths = times[~np.isnan(times)], lengths[~np.isnan(times)]
        timed = ~np.isnan(lengths)
        require(bool(timed.any()), f"No row has both a watch time and a duration for task {name!r}.", rows=len(times))
        require(
            bool((lengths[timed] > 0).all()),
            f"Durations of task {name!r} must be above 0, or missing.",
            duration=float(lengths[timed].min()),
        )
        require(
            bool((times >= 0).all()), f"Watch times of task {name!r} must be 0 or more.", watch_time=float(times.min())
        )
        edges = _equal_frequency(lengths[timed], num_bins)
        bins = np.searchsorted(edges, lengths[timed], side="right")
        parts = [*(times[timed][bins == each] for each in range(len(edges) + 1)), times]
        knots = [np.quantile(part, np.linspace(0, 1, num_knots)).tolist() for part in parts]
        return cls(name, duration, edges.tolist(), knots, **kwargs)

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers and z; return z and the bin of the duration [B, 2].

        Raises:
            ValueError: if the network has mixup.
        """
        require(
            encodings.bins is not None,
            f"Under `mixup` the label of a row has the duration of another one, which task {self.name!r} cannot use; "
            "leave `mixup` out.",
        )
        number = encodings.bins(self.duration, self.edges, f"{self.name}_bins")  # type: ignore[misc]
        join = keras.layers.Concatenate(name=f"{self.name}_binned", dtype="float32")
        return join([super().connect(encodings), number])

    def keras_loss(self) -> keras.losses.Loss:
        """Return the squared error of z."""
        return RowLoss(lambda t, z: tf.math.squared_difference(t, z[:, 0]))

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean squared error of z over the observed rows, and their weight."""
        outputs = tf.cast(outputs, tf.float32)
        target = _SPREAD * (self._tables.quantiles(known(labels), outputs[:, 1]) - 0.5)
        summed = self._objective(
            target[:, tf.newaxis], outputs[:, :1], sample_weight=sample_weight, compute_metrics=False
        )
        total = total_weight(sample_weight)
        return tf.math.divide_no_nan(summed, total), total

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the served watch times [B]."""
        return clipped(self._tables.values(outputs[:, 0] / _SPREAD + 0.5, outputs[:, 1]), self.clip)

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return the mean squared difference of z; `temperature` is not used."""
        return mean_over_observed(tf.square(outputs[:, 0] - teacher_outputs[:, 0]), sample_weight)[0]

    def get_config(self) -> dict[str, Any]:
        knots = [list(row) for row in self.knots]
        return {**super().get_config(), "duration": self.duration, "edges": list(self.edges), "knots": knots}


def _numbers(table: Mapping[str, npt.ArrayLike], column: str, task: str) -> npt.NDArray[np.float64]:
    """Return a column [N], NaN where missing."""
    require_known([column], table, "column", f"the table of task {task!r}")
    values = np.asarray(table[column], np.float64)
    require(not np.isinf(values).any(), f"Column {column!r} of task {task!r} must be finite or missing.")
    return values


def _equal_frequency(lengths: npt.NDArray[np.float64], num_bins: int) -> npt.NDArray[np.float64]:
    """Return ascending edges between distinct durations, which split the rows into parts of nearly equal size."""
    distinct, first = np.unique(np.sort(lengths), return_index=True)
    if len(distinct) == 1:
        return np.zeros(0)
    wanted = len(lengths) * np.arange(1, num_bins) / num_bins
    upper = np.unique([1 + int(np.abs(first[1:] - count).argmin()) for count in wanted]).astype(int)
    middles = (distinct[upper - 1] + distinct[upper]) / 2
    return np.asarray(middles, np.float64)
