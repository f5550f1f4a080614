"""Softmax cross-entropy over a whole corpus, computed in blocks of rows to bound the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl._keras import tf
from tfmtl.tasks.interests import interests_in

_BLOCK = 1 << 20  # scores per block: 4 MB, so that the few copies that a softmax needs fit the processor's cache
_SMALLEST = 1e-7  # of 1 - p, so that the loss of a negative that has all of the probability is finite


def corpus_cross_entropy(
    query: tf.Tensor, corpus: tf.Tensor, positive: tf.Tensor, weight: tf.Tensor, *, negative: tf.Tensor | None = None
) -> tf.Tensor:
    """Return sum_i w_i l_i, a scalar, with l_i = -log p_i for positives and l_i = -log(1 - p_i) for negatives.

    p_i = exp <u_i, v_p(i)> / sum_j exp <u_i, v_j>. The gradients of both are multiples of that of log p_i, by -1 and by
    p_i / (1 - p_i).

    Args:
        query: u [B, d], float32; or K vectors [B, K d], of which the one with the largest product scores a candidate.
        corpus: v [C, d], float32.
        positive: p [B], rows of `corpus`.
        weight: w [B], float32; no gradient reaches it.
        negative: bool [B], whether the candidate of a row is an explicit negative of its query; None if none is.

    Cost: 3 B C K d multiplications including the gradients, which are computed block by block together with the loss;
    the matrix [B, C] is never in memory.

    Example:
        >>> loss = corpus_cross_entropy(tf.zeros([1, 2]), tf.eye(4, 2), tf.constant([3]), tf.constant([2.0]))
        >>> round(float(loss), 4)  # 2 log 4
        2.7726
    """
    if negative is None:
        negative = tf.zeros_like(positive, tf.bool)
    return _summed(query, corpus, positive, weight, negative)


@tf.custom_gradient  # of positional arguments alone: a graph takes no others
def _summed(
    query: tf.Tensor, corpus: tf.Tensor, positive: tf.Tensor, weight: tf.Tensor, negative: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Return the loss and the function of its gradients."""
    rows, interests = tf.shape(query)[0], interests_in(query, corpus)
    block = tf.maximum(_BLOCK // (tf.shape(corpus)[0] * interests), 1)
    blocks = tf.maximum(-(-rows // block), 1)  # an empty TensorArray cannot be concatenated
    by_query = tf.TensorArray(tf.float32, blocks, infer_shape=False, element_shape=[None, query.shape[1]])

    def add(i: tf.Tensor, loss: tf.Tensor, by_query: tf.TensorArray, by_corpus: tf.Tensor) -> tuple[Any, ...]:
        part = slice(i * block, (i + 1) * block)
        queries, own = query[part], positive[part]
        vectors = tf.reshape(queries, [-1, corpus.shape[1]])
        scores, best = _largest(tf.matmul(vectors, corpus, transpose_b=True), interests)
        largest = tf.reduce_max(scores, axis=1, keepdims=True)
        odds = tf.exp(scores - largest)
        total = tf.matmul(odds, ones)  # half the time of a sum over the last axis
        losses = tf.math.log(total[:, 0]) + (largest[:, 0] - tf.gather(scores, own, batch_dims=1))
        chance = tf.exp(-losses)
        rest = tf.maximum(-tf.math.expm1(-losses), _SMALLEST)
        losses = tf.where(negative[part], -tf.math.log(rest), losses)
        scale = (weight[part] * tf.where(negative[part], -chance / rest, 1.0))[:, tf.newaxis]
        if interests == 1:
            by_query = by_query.write(i, scale * (tf.matmul(odds, corpus) / total - tf.gather(corpus, own)))
            by_corpus += tf.matmul(odds, queries * scale / total, transpose_a=True)
            by_corpus -= tf.math.unsorted_segment_sum(queries * scale, own, tf.shape(corpus)[0])
        else:
            slopes = best(scale * (odds / total - tf.one_hot(own, tf.shape(corpus)[0])))
            by_query = by_query.write(i, tf.reshape(tf.matmul(slopes, corpus), [-1, query.shape[1]]))
            by_corpus += tf.matmul(slopes, vectors, transpose_a=True)
        return i + 1, loss + tf.reduce_sum(losses * weight[part]), by_query, by_corpus

    ones = tf.ones([tf.shape(corpus)[0], 1])
    start = tf.constant(0), tf.constant(0.0), by_query, tf.zeros_like(corpus)
    _, loss, by_query, by_corpus = tf.while_loop(lambda i, *_: i < blocks, add, start, parallel_iterations=1)
    of_query = tf.ensure_shape(by_query.concat(), query.shape)

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None, None, None]:
        return upstream * of_query, upstream * by_corpus, None, None, None

    return loss, gradients


def _largest(products: tf.Tensor, interests: int) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Return the largest of the K products [b, C], and the function from their gradients to those of the products.

    Args:
        products: [b K, C], those of one query in K rows.
        interests: K.
    """
    if interests == 1:
        return products, lambda slopes: slopes
    width = tf.shape(products)[1]
    by_interest = tf.reshape(products, [-1, interests, width])
    first = tf.argmax(by_interest, axis=1, output_type=tf.int32)

    def spread(slopes: tf.Tensor) -> tf.Tensor:
        chosen = tf.equal(first[:, tf.newaxis], tf.range(interests)[:, tf.newaxis])
        return tf.reshape(tf.where(chosen, slopes[:, tf.newaxis], 0.0), [-1, width])

    return tf.reduce_max(by_interest, axis=1), spread
