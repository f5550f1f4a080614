"""Regression of quantiles by the pinball loss."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.ascending import Ascending, before_ascending
from tfmtl.tasks.number_metrics import quantile_metrics, weighted_quantiles
from tfmtl.tasks.ranking import Ranking, Scope
from tfmtl.tasks.regression import Regression
from tfmtl.tasks.row_loss import RowLoss
from tfmtl.tasks.stackers import Stacker
from tfmtl.tasks.task import HeadInputs, LabelSummary, LossInputs


@register
class QuantileRegression(Regression):
    """Quantile regression: several quantiles of a number, such as the 10 %, 50 % and 90 % quantiles of a watch time.

    Use it for intervals, or for a typical value that large labels do not move.

    l = mean over the quantiles tau of max(tau e, (tau - 1) e) with e = t(y) - z_tau. The outputs cannot cross: the head
    gives the first quantile and softplus distances to the next ones. The served value is t^-1(z), in which t keeps the
    order, so that quantiles of log(1 + y) become those of y.

    Metrics: `rmse` and `mae` of the central quantile, that nearest to 1/2. A report holds the mean `pinball` loss in
    the unit of the label and, for each quantile, `pinball_<tau>` and `coverage_<tau>`, the share of labels up to it;
    with several quantiles `interval_coverage` and `interval_width` of the outermost ones; and the `mae` of the central
    quantile. Predictions of one number per row, as of `baselines`, count as this number for every quantile.

    Args:
        name, units, scope, offset, scale, transform, clip: see `Regression`; `from_statistics` sets offset, scale and
            clip.
        quantiles: the quantiles, ascending, each in (0, 1).
        serve: the quantile to serve as one number per row [B], which `recommend` can fuse with other scores; with None
            all are served as [B, quantiles], and the task does not enter the fused score.

    Returns:
        Network output: the ascending z [B, quantiles]. An ensemble averages them.

    Example:
        >>> task = QuantileRegression("watch_time", quantiles=[0.5, 0.9])
        >>> outputs = tf.constant([[10.0, 20.0]])  # errors 5 and -5: 0.5 * 5 and 0.1 * 5
        >>> round(float(task.compute_loss(tf.constant([15.0]), outputs, tf.ones([1]), LossInputs({}))[0]), 4)
        1.5

    Reference: Koenker, Bassett, "Regression Quantiles", Econometrica 1978, https://doi.org/10.2307/1913643.

    Cost: that of `Regression`, with as many outputs as quantiles.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        offset: float = 0.0,
        scale: float = 1.0,
        transform: Literal["none", "log1p"] = "none",
        clip: tuple[float, float] | None = None,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        serve: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, offset, scale, transform, clip, **kwargs)
        inside = len(quantiles) > 0 and all(0 < quantile < 1 for quantile in quantiles)
        require(
            inside and all(low < high for low, high in itertools.pairwise(quantiles)),
            f"`quantiles` of task {name!r} must be ascending numbers between 0 and 1, both excluded.",
            quantiles=quantiles,
        )
        require(
            serve is None or serve in quantiles, f"`serve` of task {name!r} must be one of {list(quantiles)}, or None.",
            serve=serve,
        )  # fmt: skip
        self.quantiles = tuple(float(quantile) for quantile in quantiles)
        self.serve = None if serve is None else float(serve)

    @property
    def output_units(self) -> int:
        """One number per quantile."""
        return len(self.quantiles)

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers and the ascending outputs [B, quantiles]."""
        return Ascending(name=f"{self.name}_ascending")(super().connect(encodings))

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the quantiles of the training labels, or those of a normal label if there are too many values."""
        mean = super().initial_bias(labels)
        if mean is None:
            return None
        own = labels[self.name]
        if own.frequencies:
            values, shares = (np.array(list(part), np.float64) for part in zip(*own.frequencies.items(), strict=True))
            found = self.targets(tf.constant(weighted_quantiles(values, shares, self.quantiles), tf.float32)).numpy()
        else:
            deviation = (own.log_deviation if self.transform == "log1p" else own.deviation) / self.scale
            found = mean[0] + deviation * np.array([NormalDist().inv_cdf(quantile) for quantile in self.quantiles])
        return before_ascending(found.tolist())

    def keras_loss(self) -> keras.losses.Loss:
        """Return the mean pinball loss of the quantiles."""
        return RowLoss(self._row_losses)

    def _row_losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        error = targets[:, tf.newaxis] - outputs
        return tf.reduce_mean(tf.maximum(self.quantiles * error, (np.array(self.quantiles) - 1) * error), axis=1)

    @property
    def _central(self) -> int:
        return int(np.argmin(np.abs(np.array(self.quantiles) - 0.5)))

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the served quantiles, [B, quantiles] or [B]."""
        chosen = outputs if self.serve is None else outputs[:, self.quantiles.index(self.serve)]
        return self.served_numbers(chosen)

    def central_value(self, outputs: Any) -> tf.Tensor:
        """Return the quantile [B] nearest to 1/2."""
        return self.served_numbers(outputs[:, self._central])

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `quantile_metrics` of the served quantiles."""
        quantiles = self.quantiles if self.serve is None else (self.serve,)
        columns = np.reshape(predictions, [len(labels), -1])
        return quantile_metrics(labels, np.broadcast_to(columns, [len(labels), len(quantiles)]), weights, quantiles)

    def constant_prediction(self, labels: np.ndarray, weights: np.ndarray, rows: int) -> np.ndarray:
        """Return the quantiles of the labels, [rows, quantiles] or [rows]."""
        observed = np.where(np.isnan(labels), 0.0, weights)
        quantiles = self.quantiles if self.serve is None else (self.serve,)
        found = np.tile(weighted_quantiles(labels, observed, quantiles), (rows, 1))
        return found if self.serve is None else found[:, 0]

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return the mean squared difference of the outputs of all quantiles; `temperature` is not used."""
        return Ranking.distillation_loss(self, outputs, teacher_outputs, sample_weight, inputs, temperature)

    def stacker(self, strength: float) -> Stacker | None:
        """Return None: a linear model of several quantiles could let them cross."""
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantiles": list(self.quantiles), "serve": self.serve}
