"""Regression of a number that is above 0 only after an event, such as the spend of users who convert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tfmtl._keras import keras, register, tf
from tfmtl.tasks.binary_task import beside_parent, given_parent, share_with_parent
from tfmtl.tasks.pools import MeanExpectation
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.regression import Regression
from tfmtl.tasks.stackers import Stacker
from tfmtl.tasks.task import HeadInputs, LabelSummary, LossInputs


@register
class ChainedRegression(Regression):
    """Two-part (hurdle) regression: a number that is 0 unless an event happens, served as its expectation.

    Use it for spend or watch time after a conversion, where most rows are 0.

    The served value is P(event) t^-1(z), such as the expected spend of an exposure. The loss is l = (z - t(y))^2 over
    the rows in which the event happened, so that t^-1(z) estimates the value given the event. P(event) is the
    unconditional probability of the task `after`; the gradient of this loss does not reach that task.

    Label: 0 where the event did not happen. Such rows do not enter the loss; the metrics of the served value use them.
    Take offset, scale and clip from the rows with the event: call `from_statistics` with the statistics of a table from
    `tfmtl.data.mask_unreached`.

    Args:
        name: name of the task and of its label.
        after: name of the task of the event.
        units, scope, offset, scale, transform, clip: see `Regression`; `clip` bounds the value given the event.

    Returns:
        Network output: [B, 2], z and the logit of the event. Metrics: `rmse` and `mae` of the served value over all
        rows, and `conditional_rmse` of the value given the event over the rows with the event.

    Example:
        >>> task = ChainedRegression("spend", after="buy", offset=10.0)
        >>> task.predict(tf.constant([[2.0, 0.0]])).numpy().tolist()  # 12 at P(buy) = 1 / 2
        [6.0]

    Cost: that of `Regression`.
    """

    pool = MeanExpectation

    def __init__(
        self,
        name: str,
        after: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        offset: float = 0.0,
        scale: float = 1.0,
        transform: Literal["none", "log1p"] = "none",
        clip: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, offset, scale, transform, clip, **kwargs)
        self.after = after
        self.depends_on = (after,)
        self._conditional_rmse = keras.metrics.RootMeanSquaredError(name=f"{name}_conditional_rmse")

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers and z; return z and the logit of the event [B, 2], the latter without gradient."""
        return beside_parent(super().connect(encodings), encodings, self.name, self.after, constant=True)

    def _typical(self, mean: float, labels: Mapping[str, LabelSummary]) -> float:
        """Return the mean in the rows with the event: all other labels, and their logarithms, are 0 or missing."""
        return mean / (share_with_parent(labels, self.name, self.after) or 1.0)

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows with the event, and the weight of these rows."""
        return super().compute_loss(
            labels, outputs[:, :1], given_parent(sample_weight, inputs.labels, self.after), inputs
        )

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the expectation [B] of the number, whether the event happens or not."""
        return tf.sigmoid(outputs[:, 1]) * super().predict(outputs)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update RMSE and MAE of the served value and, if `inputs` holds the labels, the conditional RMSE."""
        super().update_metrics(labels, outputs, sample_weight, inputs)
        if inputs is not None:
            weight = given_parent(sample_weight, inputs.labels, self.after)
            self._conditional_rmse.update_state(known(labels), super().predict(outputs), sample_weight=weight)

    def stacker(self, strength: float) -> Stacker | None:
        """Return None: a linear model would mix the value with the logit of the event."""
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "after": self.after}
