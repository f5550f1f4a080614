"""The in-batch softmax of queries with several positives in a batch."""

from __future__ import annotations

from typing import NamedTuple

from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.tasks.interests import best_of_all, best_of_pairs

_HIDDEN = -1e30  # a logit that must not count; infinity would make a row without negatives NaN


def multi_positive_softmax(
    query: tf.Tensor,
    candidate: tf.Tensor,
    ids: tf.Tensor,
    queries: tf.Tensor,
    number: tf.Tensor,
    expected: tuple[tf.Tensor, tf.Tensor] | None = None,
    *,
    joint: bool = False,
    distinct: bool = True,
    num_hard_negatives: int | None = None,
    negative: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return the softmax loss of each query, without any positive of the query among its negatives.

    P_i are the candidates of all rows with the query of row i, p the one of row i, and R_i is the number of rows with
    other queries. With lambda_ij = R_i share_j + extra_j, N_i = sum_{j not in P_i} exp(s_ij) / lambda_ij is an unbiased
    estimate of the sum over all candidates outside P_i. l_i = log( exp(s_ip) + N_i ) - s_ip; if `joint`,
    l_i = log( sum_{c in P_i} exp(s_ic) + N_i ) - log sum_{c in P_i} exp(s_ic).

    Args:
        query, candidate, ids: u [B, d], v [C, d] and [C] as in `distinct_softmax`; row i < B has a positive of query i.
        queries: key [C] of the query of each row; -1 without one.
        number: number of rows that come from the batch.
        expected: the share of each candidate [C] in the rows of the batch, and its expected number [C] among the
            further rows, the same for equal ids; None for lambda = 1, no correction.
        joint: whether the positives of a query share one term.
        distinct: whether rows with the same candidate share one logit, with the mean of their embeddings.
        num_hard_negatives: number of negatives per row, those with the highest logits; None for all.
        negative: the values of `candidate` with the gradients that they have as negatives; `candidate` by default.

    Returns:
        [B].

    Example:
        >>> one, ids, queries = tf.ones([3, 1]), tf.constant([7, 8, 9]), tf.constant([1, 1, 2])
        >>> losses = multi_positive_softmax(one, one, ids, queries, tf.constant(3))
        >>> tf.exp(losses).numpy().round().tolist()  # one negative, one, two
        [2.0, 2.0, 3.0]

    Reference:
        Miech et al., "End-to-End Learning of Visual Representations from Uncurated Instructional Videos", CVPR 2020,
        https://arxiv.org/abs/1912.06430, equation 1, for the joint term; the correction is added here.

    Cost: B U d multiplications for U columns, and about eight passes over [B, U] and [B, C].
    """
    own = _rows_of_queries(queries, tf.shape(query)[0])
    columns = _Columns.of(ids, own, distinct)
    others = candidate if negative is None else negative
    vectors, others = (columns.means(rows) if distinct else rows for rows in (candidate, others))
    logits = best_of_all(query, others) + columns.repeated
    if expected is not None:
        drawn = tf.cast(number, tf.float32) - tf.reduce_sum(own, axis=1)
        logits -= _log_expected(drawn, *(tf.gather(values, columns.example) for values in expected))
    logits = tf.where(columns.positive, _HIDDEN, logits)
    if num_hard_negatives is not None:
        logits = tf.math.top_k(logits, tf.minimum(num_hard_negatives, tf.shape(logits)[1]), sorted=False).values
    return tf.math.softplus(tf.reduce_logsumexp(logits, axis=1) - _wanted(query, vectors, columns, joint))


def _wanted(query: tf.Tensor, vectors: tf.Tensor, columns: _Columns, joint: bool) -> tf.Tensor:
    """Return the score [B] of the positive of each row, or the logarithm of the sum over those of its query."""
    if not joint:
        return best_of_pairs(query, tf.gather(vectors, columns.column[: tf.shape(query)[0]]))
    scores = best_of_all(query, vectors) + columns.single
    return tf.reduce_logsumexp(tf.where(columns.positive, scores, _HIDDEN), axis=1)


def _rows_of_queries(queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return 1 for the rows of the query of each of the first rows, itself included, otherwise 0, [rows, C]."""
    own = tf.equal(queries[:rows, tf.newaxis], queries) & tf.not_equal(queries, NO_KEY)
    return tf.cast(own | tf.eye(rows, tf.size(queries), dtype=tf.bool), tf.float32)


def _log_expected(drawn: tf.Tensor, share: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
    """Return log lambda [B, U] of R [B] rows with shares [U] and further candidates [U]; 0 where lambda is 0."""
    expected = drawn[:, tf.newaxis] * share + extra
    return tf.math.log(tf.where(expected > 0, expected, 1.0))


class _Columns(NamedTuple):
    """The columns of the logits: one for each distinct candidate, or one for each row.

    Attributes:
        column: the column [C] of each row.
        example: a row of each column [U].
        count: number of rows of each column [U].
        positive: whether the candidate is one of the query's positives, bool [B, U].
        repeated: logarithm [U] of the number of rows in the column.
        single: logarithm [U] of the share of the column in its candidate, so that a candidate counts once.
    """

    column: tf.Tensor
    example: tf.Tensor
    count: tf.Tensor
    positive: tf.Tensor
    repeated: tf.Tensor
    single: tf.Tensor

    @classmethod
    def of(cls, ids: tf.Tensor, own: tf.Tensor, distinct: bool) -> _Columns:
        """Return the columns of candidates [C], of which 1 in `own` [B, C] marks the rows of each query."""
        unique, column = tf.unique(ids)
        positive = tf.transpose(tf.math.unsorted_segment_sum(tf.transpose(own), column, tf.size(unique))) > 0
        count = tf.math.unsorted_segment_sum(tf.ones_like(own[0]), column, tf.size(unique))
        row, logs = tf.range(tf.size(ids)), tf.math.log(count)
        if distinct:
            example = tf.math.unsorted_segment_min(row, column, tf.size(unique))
            return cls(column, example, count, positive, logs, tf.zeros_like(logs))
        positive, logs = tf.gather(positive, column, axis=1), tf.gather(logs, column)
        return cls(row, row, tf.ones_like(logs), positive, tf.zeros_like(logs), -logs)

    def means(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the mean [U, d] of the rows [C, d] of each column."""
        return tf.math.unsorted_segment_sum(rows, self.column, tf.size(self.count)) / self.count[:, tf.newaxis]
