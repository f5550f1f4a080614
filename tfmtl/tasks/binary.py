"""Binary classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction
from tfmtl._keras import register, tf
from tfmtl.tasks.binary_task import BinaryTask, beside_parent
from tfmtl.tasks.ranking import Scope
from tfmtl.tasks.stackers import Stacker, binary_logistic
from tfmtl.tasks.task import HeadInputs, LossInputs, mean_over_observed


@register
class BinaryClassification(BinaryTask):
    """A label that is 0 or 1: click, purchase, coupon redeemed.

    l = -y log sigma(z) - (1 - y) log(1 - sigma(z)) from the logit z; served: sigma(z). With `after`, an event without
    which this one cannot happen, it adds order_penalty * max(sigma(z) - sigma(z_after), 0), so that what is served
    comes in the right order. With `label_smoothing` s the training loss has (1 - s) y + s / 2 in place of y, so that
    the best sigma(z) of a row that is always 1 is 1 - s / 2; losses and metrics of validation have y itself.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        after: name of the task of the event in front, or None. Both labels are those of all rows: a purchase without a
            click is a 0, not a missing label.
        order_penalty: weight of the penalty, 0 or more; above 0 exactly with `after`.
        label_smoothing: s, in [0, 1). What is served is then no longer calibrated: it is drawn towards 1 / 2.

    Example:
        >>> task = BinaryClassification("click")
        >>> labels, logits = tf.constant([1.0, float("nan")]), tf.zeros([2, 1])
        >>> loss, weight = task.compute_loss(labels, logits, tf.constant([1.0, 0.0]), LossInputs({}))
        >>> round(float(loss), 4), float(weight)
        (0.6931, 1.0)

    Reference:
        The penalty is the "behavioral expectation calibrator" of Xi et al., "Modeling the Sequential Dependence among
        Audience Multi-step Conversions with Multi-task Learning in Targeted Display Advertising", KDD 2021,
        https://arxiv.org/abs/2105.08489. As there its gradient reaches both tasks; we take the mean over the observed
        rows, where they take a sum. `EntireSpaceConversion` needs none: its probabilities are ordered by construction.
        Label smoothing is that of Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR
        2016, https://arxiv.org/abs/1512.00567, section 7.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        after: str | None = None,
        order_penalty: float = 0.0,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, **kwargs)
        require(
            order_penalty > 0 if after else order_penalty == 0,
            f"`order_penalty` of task {name!r} must be above 0 with `after`, and 0 without.",
            after=after,
            order_penalty=order_penalty,
        )
        require_fraction(label_smoothing=label_smoothing)
        self.after = after
        self.order_penalty = float(order_penalty)
        self.label_smoothing = float(label_smoothing)
        self.depends_on = (after,) if after else ()

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers and the logit [B, 1]; with `after` the output is [B, 2], the logit in front beside it."""
        logit = super().connect(encodings)
        return beside_parent(logit, encodings, self.name, self.after) if self.after else logit

    def event_logit(self, outputs: Any) -> Any:
        """Return the head's own logit."""
        return outputs[:, :1]

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows and their weight."""
        smoothing = self.label_smoothing if inputs.training else 0.0
        smoothed = (1 - smoothing) * labels + smoothing / 2 if smoothing else labels
        loss, total = super().compute_loss(smoothed, outputs, sample_weight, inputs)
        if not self.after:
            return loss, total
        own, front = tf.unstack(tf.sigmoid(tf.cast(outputs, tf.float32)), axis=1)
        return loss + self.order_penalty * mean_over_observed(tf.nn.relu(own - front), sample_weight)[0], total

    def stacker(self, strength: float) -> Stacker | None:
        """Return logistic regression, or None with `after`, since a linear model would break the order of events."""
        return None if self.after else binary_logistic(self.name, strength)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the label smoothing, one for all tasks of an `hp` outside of a name scope."""
        return {"label_smoothing": hp.Float("label_smoothing", 0.0, 0.2, step=0.05, default=0.0)}

    def get_config(self) -> dict[str, Any]:
        own = {"after": self.after, "order_penalty": self.order_penalty, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **own}
