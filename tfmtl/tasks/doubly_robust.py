"""Conversion learned from clicks, and from a guess of the loss elsewhere."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.tasks.inverse_propensity import InversePropensityConversion
from tfmtl.tasks.task import HeadInputs, head


@register
class DoublyRobustConversion(InversePropensityConversion):
    """Entire-space conversion with an imputed conditional loss where the event in front did not happen (ESCM2-DR).

    l = BCE(y, p) + conditional_weight * mean[d + (o / q) (e - d) + (o / q) (e - d)^2] with o, q and e as in
    `InversePropensityConversion` and d = softplus(a second head), which learns what e is. The mean of d + (o / q)
    (e - d) is that of e over all rows if either q or d is right, and varies less the better d is.

    No gradient flows through q, nor through e in the square: the head is to find the error, not the error to suit the
    head. Through d it flows in both terms, as in the paper: only so can d tell the trunk anything about rows where the
    event in front did not happen. The gradient of the head's logit a itself is that of inverse propensities.

    Args:
        name, after, units, scope, serve, conditional_weight, min_propensity: see `InversePropensityConversion`. The
            imputation has hidden layers of its own with the widths `units`.

    Returns:
        Of the network: [B, 3], a, the logit of the event in front, and the imputation before the softplus.

    Example:
        >>> DoublyRobustConversion("buy", after="click").predict(tf.zeros([1, 3])).numpy().tolist()
        [0.25]

    Reference:
        Wang et al., "ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation",
        SIGIR 2022, https://arxiv.org/abs/2204.05125. The softplus is ours: e is never negative, and without it rows
        with o = 0 could lower the loss without bound. So is the constant e in the square.

    Cost: one more head.
    """

    def connect(self, encodings: HeadInputs) -> Any:
        """Add the head, the logit of the event in front and the imputation's head: [B, 3]."""
        inputs = encodings.pair[self.name] if self.scope == "pair" else encodings.query
        name = f"{self.name}_imputation"
        join = keras.layers.Concatenate(name=f"{name}_joined", dtype="float32")
        return join([super().connect(encodings), head(inputs, self.units, 1, name, encodings.seed)])

    def conditional_losses(self, error: tf.Tensor, odds: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return the doubly robust loss and the imputation's own [B]."""
        imputed = tf.nn.softplus(outputs[:, 2])
        return imputed + odds * (error - imputed + tf.square(tf.stop_gradient(error) - imputed))
