"""ESCM2-DR: conversion rate with inverse propensities and an imputed loss."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.tasks.inverse_propensity import InversePropensityConversion
from tfmtl.tasks.task import HeadInputs, head


@register
class DoublyRobustConversion(InversePropensityConversion):
    """ESCM2-DR: entire-space conversion with a doubly robust loss of the conditional probability.

    Use it instead of `InversePropensityConversion` (ESCM2-IPS) if the propensities are small or poorly estimated, so
    that their inverses vary too much.

    l = BCE(y, p) + conditional_weight * mean[d + (o / q) (e - d) + (o / q) (e - d)^2] with o, q and e as in
    `InversePropensityConversion` and the imputation d = softplus(output of a second head), which estimates e. The
    expectation of d + (o / q) (e - d) is the mean of e over all rows if q or d is correct; the better d is, the smaller
    is the variance.

    No gradient flows through q, nor through e in the square, so that the imputation fits the error and the error is not
    changed to fit the imputation. The gradient flows through d in both terms, as in the paper: this is the only way in
    which rows without the preceding event train the trunk. The gradient of the head's logit a is that of ESCM2-IPS.

    Args:
        name, after, units, scope, serve, conditional_weight, min_propensity: see `InversePropensityConversion`. The
            imputation has separate hidden layers with the widths `units`.

    Returns:
        Network output: [B, 3], a, the logit of the preceding event, and the imputation before the softplus.

    Example:
        >>> DoublyRobustConversion("buy", after="click").predict(tf.zeros([1, 3])).numpy().tolist()
        [0.25]

    Reference:
        Wang et al., "ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation",
        SIGIR 2022, https://arxiv.org/abs/2204.05125. Differences: the softplus, because e is never negative and
        rows with o = 0 could otherwise lower the loss without bound; and no gradient through e in the square.

    Cost: one more head.
    """

    def connect(self, encodings: HeadInputs) -> Any:
        """Add the head, the logit of the preceding event and the head of the imputation: [B, 3]."""
        inputs = encodings.pair[self.name] if self.scope == "pair" else encodings.query
        name = f"{self.name}_imputation"
        join = keras.layers.Concatenate(name=f"{name}_joined", dtype="float32")
        return join([super().connect(encodings), head(inputs, self.units, 1, name, encodings.seed)])

    def conditional_losses(self, error: tf.Tensor, odds: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return the sum of the doubly robust loss and the loss of the imputation [B]."""
        imputed = tf.nn.softplus(outputs[:, 2])
        return imputed + odds * (error - imputed + tf.square(tf.stop_gradient(error) - imputed))
