"""Regression of amounts by the Tweedie deviance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register
from tfmtl.tasks.log_link import LogLinkRegression
from tfmtl.tasks.ranking import Scope


@register
class TweedieRegression(LogLinkRegression):
    """Tweedie regression: the mean of an amount that is 0 in many rows and skewed in the others, such as spend.

    Use it for a sum over a Poisson number of gamma distributed parts, which the Tweedie distribution with a power in
    (1, 2) describes, in one output; `ChainedRegression` and `ZeroInflatedLognormal` model the event and the amount
    apart.

    m = e^z and l = d(y, m) / dispersion, d = 2 (y^(2-p) / ((1-p)(2-p)) - y m^(1-p) / (1-p) + m^(2-p) / (2-p)). The
    served value is m. A power near 1 gives large labels more weight, as counts do; near 2 relative errors count.

    Metrics: `rmse` and `mae`; a report adds `r2`, `xauc`, the mean `deviance`, and `calibration`, the predicted over
    the observed total.

    Args:
        name, units, scope: see `Regression`.
        dispersion: divisor of the deviance, which `from_statistics` sets to variance / mean^p of the labels, so that
            the loss starts near 1 for any unit; above 0.
        clip: (lowest, highest) served value, or None.
        power: p in (1, 2).

    Example:
        >>> import tensorflow as tf
        >>> from tfmtl.tasks import LossInputs
        >>> task = TweedieRegression("spend", power=1.5)
        >>> loss, _ = task.compute_loss(tf.constant([4.0]), tf.zeros([1, 1]), tf.ones([1]), LossInputs({}))
        >>> round(float(loss), 4)  # 2 (-8 + 8 + 2)
        4.0

    Reference: Zhou, Qian, Yang, "Tweedie Gradient Boosting for Extremely Unbalanced Zero-inflated Data", 2018,
    https://arxiv.org/abs/1811.10192; the paper's loss is half of this one without its constant.

    Cost: that of `Regression`.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        dispersion: float = 1.0,
        clip: tuple[float, float] | None = None,
        power: float = 1.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, dispersion, clip, **kwargs)
        require(
            1 < power < 2,
            f"`power` of task {name!r} must lie between 1 (`PoissonRegression`) and 2.",
            power=power,
        )
        self.power = float(power)

    @property
    def variance_power(self) -> float:
        """The power of the mean in the variance."""
        return self.power

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the power; compare by a metric other than the loss, which depends on it."""
        return {"power": hp.Float("power", 1.1, 1.9, step=0.1, default=1.5)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}
