"""Conversion after a click, learned from all exposures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.binary_task import BinaryTask, beside_parent, given_parent, joint_logit
from tfmtl.tasks.pools import MeanConversion
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.task import HeadInputs, LossInputs

Serve = Literal["entire", "conditional"]


@register
class EntireSpaceConversion(BinaryTask):
    """An event that can only follow another one, learned from every row instead of those where it could happen (ESMM).

    l = -y log p - (1 - y) log(1 - p) over all rows with p = P(this event) = P(event in front) sigma(a), a the head's
    logit, so that sigma(a) = P(this event | event in front). The event in front is the label of another task, which
    may be one of this kind again: exposure -> click -> cart -> purchase. p is computed from logits, without loss of
    digits at either end. The gradient reaches the heads of all tasks in front; their own losses are theirs.

    Label: 0 or 1 in every row, 0 where the event in front did not happen; missing only where it is unknown, such as a
    conversion that may still come (`tfmtl.data.mask_immature`). A 1 where the preceding event is 0 contradicts the
    chain and is learned as it stands; `tfmtl.data.mask_unreached` finds such rows.

    Args:
        name: name of the task and of its label.
        after: name of the task of the event in front; the model must have it.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        serve: `"entire"` serves p, `"conditional"` sigma(a). Metrics are `auc` and `log_loss` of p over all rows, and
            `conditional_auc` of sigma(a) over the rows where the event in front happened.

    Returns:
        Of the network: [B, 2], a and the logit of the event in front.

    Example:
        >>> task = EntireSpaceConversion("buy", after="click")
        >>> outputs = tf.constant([[0.0, 0.0]])  # P(buy | click) = P(click) = 1 / 2
        >>> task.predict(outputs).numpy().tolist()
        [0.25]

    Reference:
        Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate",
        SIGIR 2018, https://arxiv.org/abs/1804.07931. Embeddings are shared there and towers separate; here the trunk
        decides. Chains may be longer than two.

    Cost: that of `BinaryClassification`.
    """

    pool = MeanConversion

    def __init__(
        self, name: str, after: str, units: Sequence[int] = (), scope: Scope = "pair", serve: Serve = "entire",
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(name, units, scope, **kwargs)
        require(
            serve in ("entire", "conditional"), f"`serve` of task {name!r} must be 'entire' or 'conditional'.",
            serve=serve,
        )  # fmt: skip
        self.after = after
        self.serve = serve
        self.depends_on = (after,)
        self._conditional_auc = keras.metrics.AUC(name=f"{name}_conditional_auc", from_logits=True)

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers and the logit, and put the logit of the event in front beside it [B, 2]."""
        return beside_parent(super().connect(encodings), encodings, self.name, self.after)

    def event_logit(self, outputs: Any) -> Any:
        """Return the logit of p."""
        return joint_logit(outputs[:, :1], outputs[:, 1:2])

    def served_logit(self, outputs: Any) -> tf.Tensor:
        """Return the logit of p, or a."""
        return self.event_logit(outputs) if self.serve == "entire" else outputs[:, :1]

    def served_weight(self, sample_weight: tf.Tensor, labels: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the weights of all rows, or of those where the event in front happened."""
        return sample_weight if self.serve == "entire" else given_parent(sample_weight, labels, self.after)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update AUC and log loss of p and, if `inputs` brings the other labels, the conditional AUC."""
        super().update_metrics(labels, outputs, sample_weight, inputs)
        if inputs is not None:
            weight = given_parent(sample_weight, inputs.labels, self.after)
            self._conditional_auc.update_state(known(labels)[:, tf.newaxis], outputs[:, :1], sample_weight=weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "after": self.after, "serve": self.serve}
