"""Regression by the Huber loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.ranking import Scope
from tfmtl.tasks.regression import Regression
from tfmtl.tasks.row_loss import RowLoss


@register
class HuberRegression(Regression):
    """Regression by the Huber loss: squared for small errors, linear for large ones.

    Use it for a number with a few extreme or wrong labels, which a squared error would follow; the served value then
    lies between the median and the mean.

    With e = z - t(y), l = e^2 if |e| <= delta, else delta (2 |e| - delta): twice Huber's loss, so that small errors
    count as in `Regression`. t, the served value and the metrics are those of `Regression`. No gradient of a row
    exceeds 2 delta.

    Args:
        name, units, scope, offset, scale, transform, clip: see `Regression`; `from_statistics` sets offset, scale and
            clip.
        delta: error, in units of `scale`, from which the loss is linear; above 0. 1.345 keeps 95 % of the efficiency of
            the mean if errors are normal with deviation `scale`.

    Example:
        >>> from tfmtl.tasks import LossInputs
        >>> task = HuberRegression("watch_time", delta=1.0)
        >>> one = tf.ones([1])
        >>> [float(task.compute_loss(tf.constant([y]), tf.zeros([1, 1]), one, LossInputs({}))[0]) for y in (0.5, 3.0)]
        [0.25, 5.0]

    Reference: Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 1964,
    https://doi.org/10.1214/aoms/1177703732.

    Cost: that of `Regression`.
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
        delta: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, offset, scale, transform, clip, **kwargs)
        require(delta > 0, f"`delta` of task {name!r} must be above 0.", delta=delta)
        self.delta = float(delta)

    def keras_loss(self) -> keras.losses.Loss:
        """Return twice the Huber loss."""
        return RowLoss(self._row_losses)

    def _row_losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        error = tf.abs(outputs[:, 0] - targets)
        small = tf.minimum(error, self.delta)
        return small * (2 * error - small)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the error from which the loss is linear."""
        return {"delta": hp.Float("delta", 0.25, 4.0, sampling="log", default=1.0)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "delta": self.delta}
