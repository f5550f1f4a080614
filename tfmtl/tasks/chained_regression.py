"""A number that there only is after an event: the spend of those who convert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tfmtl._keras import keras, register, tf
from tfmtl.tasks.binary_task import beside_parent, given_parent
from tfmtl.tasks.pools import MeanExpectation
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.regression import Regression
from tfmtl.tasks.stackers import Stacker
from tfmtl.tasks.task import HeadInputs, LossInputs


@register
class ChainedRegression(Regression):
    """A number that is 0 unless an event happens, served as its expectation over all rows.

    Served: P(event) t^-1(z), the expected spend of an exposure; l = (z - t(y))^2 over the rows where the event
    happened, so that t^-1(z) is the value given the event. P(event) is that of the task in front, in the entire space.
    The loss does not reach that task.

    Label: 0 where the event did not happen, so that the served value can be judged there; rows without the event never
    enter the loss. Offset, scale and clip should be those of rows with the event: `from_statistics` with the label's
    statistics of a table from `tfmtl.data.mask_unreached`.

    Args:
        name: name of the task and of its label.
        after: name of the task of the event.
        units, scope, offset, scale, transform, clip: see `Regression`; `clip` bounds the value given the event.

    Returns:
        Of the network: [B, 2], z and the logit of the event. Metrics are `rmse` and `mae` of the served value over all
        rows, and `conditional_rmse` of the value given the event over the rows with it.

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
        """Add hidden layers and z, and put the logit of the event beside it [B, 2], as a constant."""
        return beside_parent(super().connect(encodings), encodings, self.name, self.after, constant=True)

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows with the event and their weight."""
        return super().compute_loss(
            labels, outputs[:, :1], given_parent(sample_weight, inputs.labels, self.after), inputs
        )

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return expectations [B] over rows with and without the event."""
        return tf.sigmoid(outputs[:, 1]) * super().predict(outputs)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update RMSE and MAE of what is served and, if `inputs` brings the other labels, the conditional RMSE."""
        super().update_metrics(labels, outputs, sample_weight, inputs)
        if inputs is not None:
            weight = given_parent(sample_weight, inputs.labels, self.after)
            self._conditional_rmse.update_state(known(labels), super().predict(outputs), sample_weight=weight)

    def stacker(self, strength: float) -> Stacker | None:
        """Return None: a linear model would break the expectation."""
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "after": self.after}
