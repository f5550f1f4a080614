"""The Page-Hinkley test: an alarm when the mean of a series becomes worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require


class PageHinkley:
    """Page-Hinkley test: raises an alarm when a metric becomes worse, given one value per increment.

    Use it in `DriftMonitor` for the metrics of an `OnlineLearner`.

    m_t = sum_{i <= t} (x_i - mean_i - tolerance), mean_i of x_1, ..., x_i; an alarm if m_t - min_{s <= t} m_s exceeds
    `threshold`, after which the test starts again. With mode `"max"`, x is the negative of the metric. Missing values
    (NaN) are ignored.

    Args:
        threshold: accumulated worsening that raises an alarm, above 0, in units of the metric.
        tolerance: worsening of a single value that does not count, 0 or more.
        mode: `"min"` if small values are good, such as losses, `"max"` if large ones are.
        patience: number of values before the first possible alarm, from which the first mean is computed.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> watch = PageHinkley(threshold=0.5, mode="min")
        >>> [watch.update(loss) for loss in (1.0, 1.1, 0.9, 1.0, 1.9)]
        [False, False, False, False, True]

    Reference:
        Page, "Continuous Inspection Schemes", Biometrika 41, 1954, https://doi.org/10.1093/biomet/41.1-2.100; Gama et
        al., "A Survey on Concept Drift Adaptation", ACM Computing Surveys 46(4), 2014,
        https://doi.org/10.1145/2523813, section 3.2.
    """

    def __init__(self, threshold: float, tolerance: float = 0.0, mode: str = "min", patience: int = 3) -> None:
        require(threshold > 0, "`threshold` must be above 0.", threshold=threshold)
        require(tolerance >= 0, "`tolerance` must be 0 or more.", tolerance=tolerance)
        require(mode in ("min", "max"), '`mode` must be "min" or "max".', mode=mode)
        self.threshold = threshold
        self.tolerance = tolerance
        self.mode = mode
        self.patience = patience
        self.statistic = 0.0
        self._restart()

    def _restart(self) -> None:
        self._count, self._mean, self._sum, self._least = 0, 0.0, 0.0, 0.0

    def update(self, value: float) -> bool:
        """Add the next value, set `statistic` to m_t - min m_s, and return whether it raises an alarm."""
        if math.isnan(value):
            return False
        x = value if self.mode == "min" else -value
        self._count += 1
        self._mean += (x - self._mean) / self._count
        self._sum += x - self._mean - self.tolerance
        self._least = min(self._least, self._sum)
        self.statistic = self._sum - self._least
        alarm = self._count > self.patience and self.statistic > self.threshold
        if alarm:
            self._restart()
        return alarm

    def get_state(self) -> dict[str, Any]:
        """Return arguments and state as plain values."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PageHinkley:
        """Return a test with the state from `get_state`."""
        watch = cls(state["threshold"])
        vars(watch).update(state)
        return watch
