"""The loss of explicit negatives: candidates that a query must not retrieve."""

from __future__ import annotations

from tfmtl._keras import tf
from tfmtl.tasks.interests import best_of_all, best_of_pairs

_HIDDEN = -1e30  # added to a logit that must not count; infinity would make a row without competitors NaN


def unlikelihood(
    query: tf.Tensor,
    negative: tf.Tensor,
    candidate: tf.Tensor,
    hidden: tf.Tensor,
    expected: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return -log of the probability that each query does not retrieve its explicit negative.

    With e_i the negative of query i, p_i = exp<u_i, e_i> / ( exp<u_i, e_i> + sum_j exp(s_ij) / lambda_j ), s_ij =
    <u_i, v_j>, and l_i = -log(1 - p_i) = softplus( <u_i, e_i> - log sum_j exp(s_ij) / lambda_j ).

    The gradient by <u_i, e_i> is p_i, between 0 and 1, so that a negative with a low score has nearly no effect.

    Args:
        query: u [E, d], or several vectors [E, K d]; see `best_of_all`.
        negative: e [E, d].
        candidate: v [C, d], the competitors of all negatives.
        hidden: bool [E, C], the competitors that do not count for a query.
        expected: lambda [C], above 0; None for 1, no correction.

    Returns:
        [E]; 0 for a query without a competitor.

    Example:
        >>> one = tf.ones([1, 1])
        >>> loss = unlikelihood(one, one, tf.ones([3, 1]), tf.constant([[False, False, True]]))
        >>> round(float(tf.exp(-loss[0])), 4)  # two competitors of equal score: 1 - 1/3
        0.6667

    Reference:
        Wang et al., "Learning from Negative User Feedback and Measuring Responsiveness for Sequential Recommenders",
        RecSys 2023, https://arxiv.org/abs/2308.12256, the "not-to-recommend" loss.

    Cost: E C d multiplications.
    """
    logits = best_of_all(query, candidate)
    logits = logits if expected is None else logits - tf.math.log(expected)
    competitors = tf.reduce_logsumexp(tf.where(hidden, _HIDDEN, logits), axis=1)
    losses = tf.math.softplus(best_of_pairs(query, negative) - competitors)
    return tf.where(tf.reduce_all(hidden, axis=1), 0.0, losses)
