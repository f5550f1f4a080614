"""ESCM2-IPS: conversion rate with inverse propensity scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.tasks.binary_task import given_parent
from tfmtl.tasks.entire_space import EntireSpaceConversion, Serve
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.task import LossInputs, mean_over_observed


@register
class InversePropensityConversion(EntireSpaceConversion):
    """ESCM2-IPS: entire-space conversion with an additional, propensity-weighted loss of the conditional probability.

    Use it if the conditional probability itself is served or matters: ESMM (`EntireSpaceConversion`) leaves it biased
    upwards.

    l = BCE(y, p) + conditional_weight * mean[o / max(q, min_propensity) * e] with o the label of the preceding event,
    q = P(preceding event) and e = BCE(y, sigma(a)). If q is correct, the second term is an unbiased estimate of the
    mean of e over all rows, with and without the preceding event.

    No gradient flows through q: a larger predicted q must not lower the loss. Rows in which the label of the preceding
    event is missing have no second term.

    Args:
        name, after, units, scope, serve: see `EntireSpaceConversion`.
        conditional_weight: factor of the second term, 0 or more.
        min_propensity: least divisor of the second term, in (0, 1]; it bounds the variance and adds bias.

    Returns:
        Network output: [B, 2], a and the logit of the preceding event.

    Example:
        >>> task = InversePropensityConversion("buy", after="click")
        >>> click, one = tf.constant([1.0, 0.0]), tf.ones([2])
        >>> inputs = LossInputs({}, labels={"click": click})
        >>> loss, _ = task.compute_loss(tf.zeros([2]), tf.zeros([2, 2]), one, inputs)
        >>> round(float(loss), 4)  # log 4 / 3, and the mean of 2 log 2 and 0
        0.9808

    Reference:
        Wang et al., "ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation",
        SIGIR 2022, https://arxiv.org/abs/2204.05125. The balancer's weight of this task
        takes the role of the paper's weight of the first term.

    Cost: that of `BinaryClassification`.
    """

    def __init__(
        self,
        name: str,
        after: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        serve: Serve = "entire",
        conditional_weight: float = 1.0,
        min_propensity: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, after, units, scope, serve, **kwargs)
        require(
            conditional_weight >= 0, f"`conditional_weight` of task {name!r} must be 0 or more.",
            conditional_weight=conditional_weight,
        )  # fmt: skip
        require(
            0 < min_propensity <= 1, f"`min_propensity` of task {name!r} must lie above 0 and up to 1.",
            min_propensity=min_propensity,
        )  # fmt: skip
        self.conditional_weight = float(conditional_weight)
        self.min_propensity = float(min_propensity)

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows, and their weight."""
        outputs = tf.cast(outputs, tf.float32)
        entire, total = super().compute_loss(labels, outputs, sample_weight, inputs)
        odds = given_parent(tf.ones_like(labels), inputs.labels, self.after) / self._propensity(outputs)
        error = tf.nn.sigmoid_cross_entropy_with_logits(labels=known(labels), logits=outputs[:, 0])
        decided = tf.where(tf.math.is_nan(inputs.labels[self.after]), 0.0, sample_weight)
        conditional, _ = mean_over_observed(self.conditional_losses(error, odds, outputs), decided)
        return entire + self.conditional_weight * conditional, total

    def conditional_losses(self, error: tf.Tensor, odds: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return the losses [B] of the second term.

        Args:
            error: e [B].
            odds: o / q [B], a constant.
            outputs: the network's output.
        """
        return odds * error

    def _propensity(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.maximum(tf.stop_gradient(tf.sigmoid(outputs[:, 1])), self.min_propensity)

    def calibrated(self, outputs: Any, change: Callable[[Any], Any]) -> Any:
        """Return the outputs with another first column; None with `serve="entire"`, because the loss needs them all."""
        return super().calibrated(outputs, change) if self.serve == "conditional" else None

    def get_config(self) -> dict[str, Any]:
        own = {"conditional_weight": self.conditional_weight, "min_propensity": self.min_propensity}
        return {**super().get_config(), **own}
