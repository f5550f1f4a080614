"""Binary classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from tfmtl._checks import require, require_fraction
from tfmtl._keras import register, tf
from tfmtl.tasks.binary_task import BinaryTask, beside_parent
from tfmtl.tasks.focal import best_logit, class_balanced_weights, focal_cross_entropy, require_weights
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.stackers import Stacker, binary_logistic
from tfmtl.tasks.task import HeadInputs, LabelSummaries, LabelSummary, LossInputs, mean_over_observed, summary_of


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
    - `focal_gamma` g above 0 gives the focal loss, which multiplies -log of the probability of the label by
      (1 - that probability)^g: rows that are already right count less. The served probabilities are then too near to
      1/2; their order does not change.
    - `class_weights` (w_0, w_1) multiply the losses of rows with the labels 0 and 1; `class_balanced` sets them. The
      served logit is then too large by log(w_1 / w_0), and the order of the rows does not change.

    Both change the loss of training and of validation, not the metrics, of which `log_loss` and `calibration` show the
    distance from calibrated probabilities; `recipes.calibrate` removes it. `recipes.join_boosting` leaves such a task
    as it is.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        after: name of the task of the preceding event, or None. Rows without the preceding event have the label 0, not
            a missing label.
        order_penalty: weight of the penalty: above 0 with `after`, 0 without.
        label_smoothing: s, in [0, 1). Above 0 the served probabilities are not calibrated: they are drawn towards 1/2.
        focal_gamma: g, 0 or more; 2 is usual. 0 is cross-entropy.
        class_weights: (w_0, w_1), both above 0.

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
        The focal loss is that of Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
        https://arxiv.org/abs/1708.02002, equation 4; the class weights are its alpha.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        after: str | None = None,
        order_penalty: float = 0.0,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        class_weights: tuple[float, float] = (1.0, 1.0),
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
        require_weights(name, focal_gamma, class_weights)
        self.after = after
        self.order_penalty = float(order_penalty)
        self.label_smoothing = float(label_smoothing)
        self.focal_gamma = float(focal_gamma)
        self.class_weights = (float(class_weights[0]), float(class_weights[1]))
        self.depends_on = (after,) if after else ()

    @classmethod
    def class_balanced(
        cls, name: str, statistics: LabelSummaries | LabelSummary, beta: float = 0.999, **kwargs: Any
    ) -> Self:
        """Build the task with class-balanced weights, from the effective numbers of positives and negatives.

        w_c is proportional to (1 - beta) / (1 - beta^n_c) for n_c training labels of class c, and the mean weight of
        the training rows is 1.

        Args:
            name: name of the task.
            statistics: `preprocessor.statistics`, or the statistics of the label of this task.
            beta: in [0, 1); with 0 both weights are 1, near 1 they are inverse to the numbers of rows.
            kwargs: further arguments of the task.

        Raises:
            ValueError: if the statistics hold no label of the task, one class has no label, or beta is outside [0, 1).

        Reference: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
        https://arxiv.org/abs/1901.05555, equation 3. The paper scales the weights to the number of classes.
        """
        statistics = summary_of(name, statistics)
        require_fraction(beta=beta)
        rate = statistics.mean
        require(0 < rate < 1, f"Class weights of task {name!r} need training labels of both classes.", mean=rate)
        return cls(name, class_weights=class_balanced_weights(statistics.count, rate, beta), **kwargs)

    @property
    def reweighted(self) -> bool:
        """Whether the loss is another one than cross-entropy, so that the probabilities are not calibrated."""
        return self.focal_gamma != 0 or self.class_weights != (1.0, 1.0)

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the logit of least loss for the rate of the training labels: their log-odds with cross-entropy."""
        if not self.reweighted or self.name not in labels:
            return super().initial_bias(labels)
        best = best_logit(labels[self.name].mean, self.focal_gamma, self.class_weights)
        return None if best is None else [best]

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
        if self.reweighted:
            logits = tf.cast(self.event_logit(outputs), tf.float32)[:, 0]
            losses = focal_cross_entropy(known(smoothed), logits, self.focal_gamma, self.class_weights)
            loss, total = mean_over_observed(losses, sample_weight)
        else:
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
        names = ("after", "order_penalty", "label_smoothing", "focal_gamma", "class_weights")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
