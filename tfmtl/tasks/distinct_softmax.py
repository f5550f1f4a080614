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
    """Return the softmax loss of each query, with one logit for all rows of the same candidate.

    l_i = log( sum_c m_ic exp(s_ic - log q_c) ) - (s_ip - log q_p) with p the candidate of row i and m_ic the number of
    rows with candidate c, except that m_ip = 1 if accidental hits are removed. If the rows of an id have equal
    embeddings, this is the softmax over all rows; if not (dropout, features that differ by row), v_c is their mean.

    Args:
        query: u [B, d].
        candidate: v [C, d], C >= B: row i < B is the positive of query i, the other rows are negatives of all queries.
        ids: candidate ids [C].
        probability: q [C], the same for equal ids; None for no correction.
        remove_accidental_hits: whether to leave other rows with the id of a query's positive out of its negatives.

    Returns:
        [B].

    Example:
        >>> one = tf.ones([3, 1])
        >>> tf.exp(distinct_softmax(one, one, tf.constant([7, 7, 8]))).numpy().round().tolist()
        [2.0, 2.0, 3.0]

    Rounding: the error of a loss is about 1e-7 n |s|, for n rows that share the positive and scores s.

    Cost: B U d multiplications for U distinct ids, and about five passes over [B, U].
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
    own = tf.reduce_sum(query * tf.gather(columns, place), axis=1)  # cheaper than a gather from the logits
    largest = tf.stop_gradient(tf.maximum(tf.reduce_max(logits, axis=1), own))
    total = tf.reduce_sum(tf.exp(logits - largest[:, tf.newaxis]), axis=1)
    positive = tf.gather(count[:, 0], place)
    least = tf.exp(own - largest)
    if remove_accidental_hits:
        least /= positive
        total -= (positive - 1) * least
    total = tf.maximum(total, least)  # rounding of huge scores may leave a total below its own term
    return tf.math.log(total) + largest - (own - tf.math.log(positive))
