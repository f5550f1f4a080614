"""The in-batch softmax over the distinct candidates of a batch."""

from __future__ import annotations

from tfmtl._keras import tf
from tfmtl.tasks.interests import best_of_all, best_of_pairs, interests_in

_HIDDEN = -1e30  # added to a logit that must not count; infinity would make a row without negatives NaN


def distinct_softmax(
    query: tf.Tensor,
    candidate: tf.Tensor,
    ids: tf.Tensor,
    expected: tf.Tensor | None = None,
    *,
    negative: tf.Tensor | None = None,
    remove_accidental_hits: bool = True,
) -> tf.Tensor:
    """Return the softmax loss of each query, with one logit for all rows of the same candidate.

    With p the candidate of row i, m_c the number of rows with candidate c, and lambda_c its expected number:
    l_i = log( exp(s_ip) + sum_{c != p} m_c / lambda_c exp(s_ic) ) - s_ip if accidental hits are removed, otherwise
    l_i = log( sum_c m_c / lambda_c exp(s_ic) ) - (s_ip - log lambda_p). If the rows of an id have equal embeddings,
    this is the softmax over all rows; if not (dropout, features that differ by row), v_c is their mean.

    Args:
        query: u [B, d], or several vectors [B, K d]; see `best_of_all`.
        candidate: v [C, d], C >= B: row i < B is the positive of query i, the other rows are negatives of all queries.
        ids: candidate ids [C].
        expected: lambda [C], above 0, the same for equal ids; None for 1, no correction.
        negative: the values of `candidate` with the gradients that they have as negatives; `candidate` by default.
        remove_accidental_hits: whether to leave other rows with the id of a query's positive out of its negatives.

    Returns:
        [B].

    Example:
        >>> one = tf.ones([3, 1])
        >>> tf.exp(distinct_softmax(one, one, tf.constant([7, 7, 8]))).numpy().round().tolist()
        [2.0, 2.0, 3.0]

    Cost: B U d multiplications for U distinct ids, and about five passes over [B, U].
    """
    distinct, place = tf.unique(ids)
    ones = tf.ones([tf.size(ids), 1])
    shift = tf.zeros_like(ones) if expected is None else -tf.math.log(expected)[:, tf.newaxis]
    # One pass sums embeddings, corrections and counts by id.
    parts = [candidate, *([] if negative is None else [negative]), shift, ones]
    sums = tf.math.unsorted_segment_sum(tf.concat(parts, axis=1), place, tf.size(distinct))
    count = sums[:, -1:]
    vectors, weights = sums[:, :-2] / count, sums[:, -2:-1] / count + tf.math.log(count)
    width = tf.shape(candidate)[1]
    means, others = vectors[:, :width], vectors[:, -width:]
    rows = tf.shape(query)[0]
    place = place[:rows]
    if interests_in(query, candidate) == 1:  # one product adds the weights
        both = tf.concat([query, ones[:rows]], axis=1), tf.concat([others, weights], axis=1)
        logits = tf.matmul(*both, transpose_b=True)
    else:
        means, others = (tf.ensure_shape(part, [None, candidate.shape[1]]) for part in (means, others))
        logits = best_of_all(query, others) + weights[:, 0]
    own = best_of_pairs(query, tf.gather(means, place))
    if not remove_accidental_hits:
        wanted = own + tf.gather(weights[:, 0] - tf.math.log(count[:, 0]), place)
        return tf.reduce_logsumexp(logits, axis=1) - wanted
    # -log softmax of the positive against the others; a third faster than an update of the logits at the positives.
    hidden = logits + tf.one_hot(place, tf.size(distinct), on_value=_HIDDEN, off_value=0.0)
    return tf.math.softplus(tf.reduce_logsumexp(hidden, axis=1) - own)
