"""The in-batch softmax over the distinct candidates of a batch."""

from __future__ import annotations

from tfmtl._keras import tf


def distinct_softmax(
    query: tf.Tensor,
    candidate: tf.Tensor,
    ids: tf.Tensor,
    probability: tf.Tensor | None = None,
    *,
    remove_accidental_hits: bool = True,
) -> tf.Tensor:
    """Return each query's softmax loss, with one logit for all rows that offer the same candidate.

    l_i = log( sum_c m_ic exp(s_ic - log q_c) ) - (s_ip - log q_p), p the candidate of row i, m_ic the number of rows
    that offer c, except m_ip = 1 where accidental hits are removed. Where rows of one id are embedded alike this is the
    softmax over all rows; where they are not (dropout, features that differ by row) v_c is their mean.

    Args:
        query: u [B, d].
        candidate: v [C, d], C >= B: row i < B is the positive of query i, the rest are negatives of all.
        ids: candidate ids [C].
        probability: q [C], the same for equal ids; None for no correction.
        remove_accidental_hits: whether other rows with the id of a query's positive are kept from being its negatives.

    Returns:
        [B].

    Example:
        >>> one = tf.ones([3, 1])
        >>> tf.exp(distinct_softmax(one, one, tf.constant([7, 7, 8]))).numpy().round().tolist()
        [2.0, 2.0, 3.0]

    Rounding: a loss is right to about 1e-7 n |s|, n the rows that share its positive and s the scores.

    Cost: B U d multiplications for U distinct ids, and some five passes over [B, U].
    """
    distinct, place = tf.unique(ids)
    ones = tf.ones([tf.size(ids), 1])
    shift = tf.zeros_like(ones) if probability is None else -tf.math.log(probability)[:, tf.newaxis]
    # One pass sums embeddings, corrections and counts by id.
    sums = tf.math.unsorted_segment_sum(tf.concat([candidate, shift, ones], axis=1), place, tf.size(distinct))
    count = sums[:, -1:]
    columns = tf.concat([sums[:, :-2] / count, sums[:, -2:-1] / count + tf.math.log(count)], axis=1)
    rows = tf.shape(query)[0]
    place = place[:rows]
    query = tf.concat([query, ones[:rows]], axis=1)
    logits = tf.matmul(query, columns, transpose_b=True)
    own = tf.reduce_sum(query * tf.gather(columns, place), axis=1)  # cheaper than to pick them from the logits
    largest = tf.stop_gradient(tf.maximum(tf.reduce_max(logits, axis=1), own))
    total = tf.reduce_sum(tf.exp(logits - largest[:, tf.newaxis]), axis=1)
    positive = tf.gather(count[:, 0], place)
    least = tf.exp(own - largest)
    if remove_accidental_hits:
        least /= positive
        total -= (positive - 1) * least
    total = tf.maximum(total, least)  # rounding of huge scores must not take all of it
    return tf.math.log(total) + largest - (own - tf.math.log(positive))
