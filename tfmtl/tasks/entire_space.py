"""ESMM: conversion rate after a click, learned from all exposures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.binary_task import BinaryTask, beside_parent, given_parent, joint_logit, log_odds, share_with_parent
from tfmtl.tasks.pools import MeanConversion
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.task import HeadInputs, LabelSummary, LossInputs

Serve = Literal["entire", "conditional"]
_CERTAIN = 60.0  # its sigmoid is 1 in float32, and exp(-60) is negligible beside exp(-z) of any logit z below 40


@register
class EntireSpaceConversion(BinaryTask):
    """ESMM, the entire-space multi-task model: an event that can only follow another one, learned from all rows.

    Use it for conversion rates (CVR), which a model of the clicked rows alone estimates with selection bias.

    l = -y log p - (1 - y) log(1 - p) over all rows with p = P(event) = P(preceding event) sigma(a). a is the logit of
    the head, so that sigma(a) = P(event | preceding event). The preceding event is the label of another task, which may
    itself be an `EntireSpaceConversion`: exposure -> click -> cart -> purchase. p is computed from logits, without loss
    of precision near 0 and 1. The gradient also reaches the heads of all preceding tasks, in addition to the gradients
    of their own losses.

    Label: 0 or 1 in every row, 0 where the preceding event did not happen. It is missing only where it is unknown, such
    as a conversion that may still come (`tfmtl.data.mask_immature`). A label 1 without the preceding event contradicts
    the chain but enters the loss unchanged; `tfmtl.data.mask_unreached` finds such rows.

    Args:
        name: name of the task and of its label.
        after: name of the task of the preceding event; the model must have this task.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        serve: `"entire"` serves p, `"conditional"` serves sigma(a).

    Returns:
        Network output: [B, 2], a and the logit of the preceding event. Metrics: `auc` and `log_loss` of p over all
        rows, and `conditional_auc` of sigma(a) over the rows where the preceding event happened.

    Example:
        >>> task = EntireSpaceConversion("buy", after="click")
        >>> outputs = tf.constant([[0.0, 0.0]])  # P(buy | click) = P(click) = 1 / 2
        >>> task.predict(outputs).numpy().tolist()
        [0.25]

    Reference:
        Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate",
        SIGIR 2018, https://arxiv.org/abs/1804.07931. Differences: the paper shares only the embeddings, here the
        trunk decides which layers are shared; chains may be longer than two events.

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
        """Add hidden layers and the logit a; return a and the logit of the preceding event [B, 2]."""
        return beside_parent(super().connect(encodings), encodings, self.name, self.after)

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the log-odds of the event given the preceding one in the training labels."""
        share = share_with_parent(labels, self.name, self.after)
        return None if share is None else log_odds(labels[self.name].mean / share)

    def event_logit(self, outputs: Any) -> Any:
        """Return the logit of p."""
        return joint_logit(outputs[:, :1], outputs[:, 1:2])

    def served_logit(self, outputs: Any) -> tf.Tensor:
        """Return the logit of p, or a with `serve="conditional"`."""
        return self.event_logit(outputs) if self.serve == "entire" else outputs[:, :1]

    def calibrated(self, outputs: Any, change: Callable[[Any], Any]) -> Any:
        """Return the outputs with another logit of the served probability.

        If this is p, the outputs become the logit of p and a logit of 1 for the preceding event: their product is p.
        The outputs then no longer hold the conditional probability, and `conditional_auc` orders by p.
        """
        if self.serve == "conditional":
            return super().calibrated(outputs, change)
        logit = change(self.served_logit(outputs))
        return tf.concat([logit, _CERTAIN * tf.ones_like(logit), outputs[:, 2:]], axis=1)

    def served_weight(self, sample_weight: tf.Tensor, labels: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the weights; with `serve="conditional"` 0 where the preceding event did not happen."""
        return sample_weight if self.serve == "entire" else given_parent(sample_weight, labels, self.after)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update AUC and log loss of p and, if `inputs` holds the labels, the conditional AUC."""
        super().update_metrics(labels, outputs, sample_weight, inputs)
        if inputs is not None:
            weight = given_parent(sample_weight, inputs.labels, self.after)
            self._conditional_auc.update_state(known(labels)[:, tf.newaxis], outputs[:, :1], sample_weight=weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "after": self.after, "serve": self.serve}
