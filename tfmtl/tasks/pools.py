"""Pools: combine the outputs of an ensemble's members for one task into one output with the same meaning."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf


class Pool(keras.layers.Layer, abc.ABC):
    """The base of layers that combine the outputs of M ensemble members for one task by constant shares.

    A task names its pool in `Task.pool`. Subclasses implement `pool`.

    Args:
        shares: share of each member [M], above 0; `ensemble` passes shares that sum to 1.
    """

    def __init__(self, shares: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        positive = all(math.isfinite(share) and share > 0 for share in shares)
        require(len(shares) > 0 and positive, "`shares` must be numbers above 0, at least one.", shares=shares)
        self.shares = tuple(float(share) for share in shares)

    def call(self, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the combined output of the members' outputs, each [B, n]."""
        several = (
            outputs if isinstance(outputs, list | tuple) else [outputs]
        )  # Keras clones a list of one tensor as the tensor
        members = [tf.cast(output, tf.float32) for output in several]
        return self.pool(members, tf.constant(self.shares, tf.float32))

    @staticmethod
    @abc.abstractmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return the combined output; differentiable in the outputs, each [B, n], and in the shares [M]."""

    @classmethod
    def pool_structure(cls, outputs: Sequence[Any], shares: tf.Tensor) -> Any:
        """Return the combined output; if the members' outputs are mappings of tensors, combine them key by key."""
        if not isinstance(outputs[0], Mapping):
            return cls.pool(outputs, shares)
        return {side: cls.pool([output[side] for output in outputs], shares) for side in outputs[0]}

    @classmethod
    def connect(cls, outputs: Sequence[Any], shares: Sequence[float], name: str) -> Any:
        """Add the pool to a network under construction: one layer, or one per key if the outputs are mappings."""
        if not isinstance(outputs[0], Mapping):
            return cls(shares, name=name)(list(outputs))
        return {side: cls(shares, name=f"{name}_{side}")([output[side] for output in outputs]) for side in outputs[0]}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shares": list(self.shares)}


@register
class MeanValue(Pool):
    """The weighted mean of the outputs, for numbers: y = sum_m s_m z_m.

    The mean is taken on the scale of the loss, after the transform of the label. On this scale the squared error of the
    mean is the mean of the members' errors minus their variance, so that it never exceeds the mean of the errors. With
    `transform="log1p"` the served value is therefore a geometric mean.

    Args:
        shares: share of each member [M], above 0.

    Example:
        >>> MeanValue([0.75, 0.25])([tf.constant([[1.0]]), tf.constant([[5.0]])]).numpy().tolist()
        [[2.0]]

    Reference:
        Krogh, Vedelsby, "Neural Network Ensembles, Cross Validation, and Active Learning", NIPS 1994, equation 6.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return sum_m s_m z_m [B, n]."""
        return tf.tensordot(shares, tf.stack(outputs), axes=1)


@register
class MeanProbability(Pool):
    """The logit of the mean probability, for events: z = logit sum_m s_m sigma(z_m), in each column.

    The mean is one of probabilities, not of logits: it is the probability under a mixture of the members. Chained
    events therefore stay consistent, the log loss is convex in the shares, and one overconfident member cannot outvote
    the others. All computations are on the logarithmic scale, so that the result is finite and precise for any finite
    logits.

    Args:
        shares: share of each member [M], above 0, with sum 1.

    Example:
        >>> logit = MeanProbability([0.5, 0.5])([tf.constant([[0.0]]), tf.constant([[1.0986123]])])
        >>> round(float(tf.sigmoid(logit)[0, 0]), 4)  # of 1/2 and 3/4
        0.625

    Reference:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, https://arxiv.org/abs/1612.01474, section 2.4.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return the logits [B, n] of the mean probabilities."""
        return _mixture(tf.stack(outputs), _logs(shares))


@register
class MeanDistribution(Pool):
    """The logarithm of the mean distribution, for classes: z = log sum_m s_m softmax(z_m).

    Args:
        shares: share of each member [M], above 0, with sum 1.

    Example:
        >>> pooled = MeanDistribution([0.5, 0.5])([tf.constant([[0.0, 0.0]]), tf.constant([[1.0986123, 0.0]])])
        >>> tf.nn.softmax(pooled).numpy().round(4).tolist()
        [[0.625, 0.375]]
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return log probabilities [B, classes]."""
        return tf.reduce_logsumexp(_logs(shares) + tf.nn.log_softmax(tf.stack(outputs)), axis=0)


@register
class MeanConversion(Pool):
    """The mixture of conditional events, such as conversions after a click.

    The columns are the logit a of P(event | preceding event), the logit b of P(preceding event), and further columns
    that only training reads. P(preceding) = sum_m s_m sigma(b_m) and P(event, preceding) = sum_m s_m sigma(a_m)
    sigma(b_m). Their quotient is P(event | preceding): a mean of sigma(a_m) with weights s_m sigma(b_m). The further
    columns are averaged.

    Args:
        shares: share of each member [M], above 0, with sum 1.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return a, b and the further columns [B, n]."""
        columns, logs = tf.stack(outputs), _logs(shares)
        own, preceding, others = columns[..., :1], columns[..., 1:2], columns[..., 2:]
        weights = logs + tf.math.log_sigmoid(preceding)
        return tf.concat(
            [_mixture(own, weights), _mixture(preceding, logs), tf.tensordot(shares, others, axes=1)], axis=-1
        )


@register
class MeanExpectation(Pool):
    """The mixture of numbers after events: the columns are the value z given the event and the logit b of the event.

    P(event) = sum_m s_m sigma(b_m) and z = sum_m s_m sigma(b_m) z_m / P(event). Without transform and clip, the served
    value is therefore the weighted mean of the members' served values.

    Args:
        shares: share of each member [M], above 0, with sum 1.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return z and b [B, 2]."""
        columns, logs = tf.stack(outputs), _logs(shares)
        value, event = columns[..., :1], columns[..., 1:]
        weights = tf.nn.softmax(logs + tf.math.log_sigmoid(event), axis=0)
        return tf.concat([tf.reduce_sum(weights * value, axis=0), _mixture(event, logs)], axis=-1)


@register
class JoinedEmbeddings(Pool):
    """The concatenation of the members' embeddings, scaled by the square roots of their shares, for retrieval.

    <concat_m sqrt(s_m) u_m, concat_m sqrt(s_m) v_m> = sum_m s_m <u_m, v_m>: the weighted sum of the members' scores is
    itself a dot product, so that any index over dot products can serve it.

    Args:
        shares: share of each member [M], above 0.

    Example:
        >>> JoinedEmbeddings([4.0, 9.0])([tf.constant([[1.0]]), tf.constant([[5.0]])]).numpy().tolist()
        [[2.0, 15.0]]

    Cost: the width of the index is the sum of the members' widths.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return the scaled concatenation [B, sum of the widths]."""
        roots = tf.unstack(tf.sqrt(shares))
        return tf.concat([root * output for root, output in zip(roots, outputs, strict=True)], axis=1)


def _logs(shares: tf.Tensor) -> tf.Tensor:
    """Return log s [M, 1, 1]."""
    return tf.math.log(shares)[:, tf.newaxis, tf.newaxis]


def _mixture(logits: tf.Tensor, log_shares: tf.Tensor) -> tf.Tensor:
    """Return the logit of sum_m s_m sigma(z_m) / sum_m s_m [B, n] of logits [M, B, n]; the divisor cancels."""
    happens, fails = (
        tf.reduce_logsumexp(log_shares + tf.math.log_sigmoid(sign * logits), axis=0) for sign in (1.0, -1.0)
    )
    return happens - fails
