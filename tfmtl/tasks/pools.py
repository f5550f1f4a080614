"""Pools: how an ensemble combines its members' outputs of one task into one output of the same meaning."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf


class Pool(keras.layers.Layer, abc.ABC):
    """Combines M members' outputs of one task by constant shares.

    Args:
        shares: of the members [M], above 0; those of `ensemble` sum to 1.
    """

    def __init__(self, shares: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        positive = all(math.isfinite(share) and share > 0 for share in shares)
        require(len(shares) > 0 and positive, "`shares` must be numbers above 0, at least one.", shares=shares)
        self.shares = tuple(float(share) for share in shares)

    def call(self, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the combined output of the members' outputs, each [B, n]."""
        several = outputs if isinstance(outputs, list | tuple) else [outputs]  # Keras clones a list of one as its item
        members = [tf.cast(output, tf.float32) for output in several]
        return self.pool(members, tf.constant(self.shares, tf.float32))

    @staticmethod
    @abc.abstractmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return the combined output; differentiable in the outputs, each [B, n], and in the shares [M], above 0."""

    @classmethod
    def pool_structure(cls, outputs: Sequence[Any], shares: tf.Tensor) -> Any:
        """Return the combined output of outputs that may be mappings of tensors."""
        if not isinstance(outputs[0], Mapping):
            return cls.pool(outputs, shares)
        return {side: cls.pool([output[side] for output in outputs], shares) for side in outputs[0]}

    @classmethod
    def connect(cls, outputs: Sequence[Any], shares: Sequence[float], name: str) -> Any:
        """Add the pool to a network under construction, a layer a tensor: each tower keeps to its own side."""
        if not isinstance(outputs[0], Mapping):
            return cls(shares, name=name)(list(outputs))
        return {side: cls(shares, name=f"{name}_{side}")([output[side] for output in outputs]) for side in outputs[0]}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shares": list(self.shares)}


@register
class MeanValue(Pool):
    """The weighted mean of the outputs, for numbers: y = sum_m s_m z_m.

    The mean is taken where the loss compares, after the label's transform: there the squared error of the mean is the
    mean of the members' errors less their spread, so that it is never above their mean. With `transform="log1p"` what
    is served is thus a geometric mean.

    Args:
        shares: of the members, above 0.

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

    A mean of probabilities rather than of logits: it is the probability of a mixture of the members, so that chained
    events stay exact, the log loss is convex in the shares, and one overconfident member cannot outvote the others. It
    is computed without leaving the logarithmic scale: finite, with all digits, for any finite logits.

    Args:
        shares: of the members, above 0, that sum to 1.

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
        shares: of the members, above 0, that sum to 1.

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
    """The mixture of events after events: columns are the logits of P(event | front) and of P(front), and others.

    P(front) = sum_m s_m sigma(b_m), P(event, front) = sum_m s_m sigma(a_m) sigma(b_m), and P(event | front) is their
    quotient: the mean of sigma(a_m) where members that believe in the event in front count for more. Further columns,
    which only training reads, are averaged.

    Args:
        shares: of the members, above 0, that sum to 1.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return a, b and the others [B, n]."""
        columns, logs = tf.stack(outputs), _logs(shares)
        own, front, others = columns[..., :1], columns[..., 1:2], columns[..., 2:]
        believed = logs + tf.math.log_sigmoid(front)
        return tf.concat(
            [_mixture(own, believed), _mixture(front, logs), tf.tensordot(shares, others, axes=1)], axis=-1
        )


@register
class MeanExpectation(Pool):
    """The mixture of numbers after events: columns are the value z and the logit b of the event.

    P(event) = sum_m s_m sigma(b_m), z = sum_m s_m sigma(b_m) z_m / P(event), so that without transform and clip what is
    served is the mean of what the members serve.

    Args:
        shares: of the members, above 0, that sum to 1.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return z and b [B, 2]."""
        columns, logs = tf.stack(outputs), _logs(shares)
        value, event = columns[..., :1], columns[..., 1:]
        believed = tf.nn.softmax(logs + tf.math.log_sigmoid(event), axis=0)
        return tf.concat([tf.reduce_sum(believed * value, axis=0), _mixture(event, logs)], axis=-1)


@register
class JoinedEmbeddings(Pool):
    """The members' embeddings beside each other, times the roots of their shares, for retrieval.

    <concat_m sqrt(s_m) u_m, concat_m sqrt(s_m) v_m> = sum_m s_m <u_m, v_m>: the weighted sum of the members' scores is
    again a dot product, exactly, and any index serves it.

    Args:
        shares: of the members, above 0.

    Example:
        >>> JoinedEmbeddings([4.0, 9.0])([tf.constant([[1.0]]), tf.constant([[5.0]])]).numpy().tolist()
        [[2.0, 15.0]]

    Cost: an index as wide as the members' together.
    """

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        """Return [B, sum of the widths]."""
        roots = tf.unstack(tf.sqrt(shares))
        return tf.concat([root * output for root, output in zip(roots, outputs, strict=True)], axis=1)


def _logs(shares: tf.Tensor) -> tf.Tensor:
    """Return log s [M, 1, 1]."""
    return tf.math.log(shares)[:, tf.newaxis, tf.newaxis]


def _mixture(logits: tf.Tensor, log_shares: tf.Tensor) -> tf.Tensor:
    """Return logit of sum_m s_m sigma(z_m) / sum_m s_m [B, n] of logits [M, B, n]; the normaliser cancels."""
    happens, fails = (
        tf.reduce_logsumexp(log_shares + tf.math.log_sigmoid(sign * logits), axis=0) for sign in (1.0, -1.0)
    )
    return happens - fails
