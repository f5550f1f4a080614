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
    """Binary classification by cross-entropy: a label that is 0 or 1, such as a click, a purchase or a redeemed coupon.

    Use it for an event that may happen in any row; for an event that can only follow another one, such as a purchase
    after a click, see also `EntireSpaceConversion`.

    l = -y log sigma(z) - (1 - y) log(1 - sigma(z)) from the logit z; the served value is sigma(z).

    - `after` names the task of a preceding event, without which this event cannot happen. The loss then has the
      further term order_penalty * max(sigma(z) - sigma(z_after), 0), which keeps the served probabilities in order.
    - `label_smoothing` s replaces y by (1 - s) y + s / 2 in the training loss: the best sigma(z) of a row that is
      always 1 is then 1 - s / 2. Losses and metrics of validation use y itself.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        after: name of the task of the preceding event, or None. Rows without the preceding event have the label 0, not
            a missing label.
        order_penalty: weight of the penalty: above 0 with `after`, 0 without.
        label_smoothing: s, in [0, 1). Above 0 the served probabilities are not calibrated: they are drawn towards 1/2.

    Example:
        >>> task = BinaryClassification("click")
        >>> labels, logits = tf.constant([1.0, float("nan")]), tf.zeros([2, 1])
        >>> loss, weight = task.compute_loss(labels, logits, tf.constant([1.0, 0.0]), LossInputs({}))
        >>> round(float(loss), 4), float(weight)
        (0.6931, 1.0)

    Reference:
        The penalty is the "behavioral expectation calibrator" of Xi et al., "Modeling the Sequential Dependence among
        Audience Multi-step Conversions with Multi-task Learning in Targeted Display Advertising", KDD 2021,
        https://arxiv.org/abs/2105.08489. As in the paper, its gradient reaches both tasks; the paper sums over the
        rows, and this class takes the mean over the observed ones. `EntireSpaceConversion` needs no penalty: its
        probabilities are ordered by construction.
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
        """Add hidden layers and the logit [B, 1]; with `after` append the preceding event's logit [B, 2]."""
        logit = super().connect(encodings)
        return beside_parent(logit, encodings, self.name, self.after) if self.after else logit

    def event_logit(self, outputs: Any) -> Any:
        """Return the logit of the head."""
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
        own, preceding = tf.unstack(tf.sigmoid(tf.cast(outputs, tf.float32)), axis=1)
        return loss + self.order_penalty * mean_over_observed(tf.nn.relu(own - preceding), sample_weight)[0], total

    def stacker(self, strength: float) -> Stacker | None:
        """Return logistic regression; None with `after`, because a linear model would break the order of the events."""
        return None if self.after else binary_logistic(self.name, strength)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the label smoothing; tasks share one value unless each has its own name scope of `hp`."""
        return {"label_smoothing": hp.Float("label_smoothing", 0.0, 0.2, step=0.05, default=0.0)}

    def get_config(self) -> dict[str, Any]:
        own = {"after": self.after, "order_penalty": self.order_penalty, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **own}
