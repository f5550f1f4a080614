"""Regression of counts by the Poisson deviance."""

from __future__ import annotations

from tfmtl._keras import register
from tfmtl.tasks.log_link import LogLinkRegression


@register
class PoissonRegression(LogLinkRegression):
    """Poisson regression: the mean of a count, such as plays, visits or units bought.

    Use it for labels of 0 or more with a variance that grows with their mean; for amounts see `TweedieRegression`.

    m = e^z and l = 2 (y log(y / m) - y + m) / dispersion, which is the Poisson negative log likelihood up to factor and
    constant. The served value is m. Sums are calibrated: at the minimum over a set of rows with a bias of their own,
    the sum of m is the sum of y. Labels need not be integers.

    Metrics: `rmse` and `mae`; a report adds `r2`, `xauc`, the mean `deviance`, and `calibration`, the predicted over
    the observed total.

    Args:
        name, units, scope: see `Regression`.
        dispersion: divisor of the deviance, which `from_statistics` sets to variance / mean of the labels, so that the
            loss starts near 1; above 0.
        clip: (lowest, highest) served value, or None.

    Example:
        >>> import tensorflow as tf
        >>> task = PoissonRegression("plays")
        >>> task.predict(tf.math.log([[2.0], [0.5]])).numpy().round(4).tolist()
        [2.0, 0.5]

    Reference: McCullagh, Nelder, "Generalized Linear Models", 1989, chapter 6.

    Cost: that of `Regression`.
    """

    @property
    def variance_power(self) -> float:
        """1: the variance is proportional to the mean."""
        return 1.0
