"""The in-batch softmax with one logit per row of a batch."""

from __future__ import annotations

import tensorflow_recommenders as tfrs

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.tasks.float32 import float32_policy
from tfmtl.tasks.interests import best_of_all, best_of_pairs


def row_softmax(
    query: tf.Tensor,
    candidate: tf.Tensor,
    ids: tf.Tensor | None,
    expected: tf.Tensor | None = None,
    *,
    negative: tf.Tensor | None = None,
    remove_accidental_hits: bool = True,
    num_hard_negatives: int | None = None,
) -> tf.Tensor:
    """Return the softmax loss of each query over the rows of its candidates, by the layers of TFRS.

    With lambda_j the expected number of row j's candidate, l_i = log( exp(s_ii) + sum_{j != i} exp(s_ij) / lambda_j )
    - s_ii over the rows of other ids if accidental hits are removed, otherwise
    l_i = log( sum_j exp(s_ij) / lambda_j ) - (s_ii - log lambda_i).

    Args:
        query: u [B, d], or several vectors [B, K d]; see `best_of_all`.
        candidate: v [C, d], C >= B: row i < B is the positive of query i, the other rows are negatives of all queries.
        ids: candidate ids [C]; may be None unless accidental hits are removed.
        expected: lambda [C], above 0, the same for equal ids; None for 1, no correction.
        negative: the values of `candidate` with the gradients that they have as negatives; `candidate` by default.
        remove_accidental_hits: whether to leave other rows with the id of a query's positive out of its negatives.
        num_hard_negatives: number of negatives per row, those with the highest logits; None for all.

    Returns:
        [B].

    Example:
        >>> one = tf.ones([3, 1])
        >>> tf.exp(row_softmax(one, one, tf.constant([7, 7, 8]))).numpy().round().tolist()
        [2.0, 2.0, 3.0]

    Cost: B C d multiplications, and about nine passes over [B, C].
    """
    others = candidate if negative is None else negative
    scores = best_of_all(query, others)
    own = best_of_pairs(query, candidate[: tf.shape(query)[0]])
    labels = tf.eye(tf.shape(scores)[0], tf.shape(scores)[1])
    logits = scores if expected is None else scores - tf.math.log(expected)
    with float32_policy():
        if remove_accidental_hits:
            require(ids is not None, "Removing accidental hits needs the ids of the candidates.", ids=ids)
            logits = tf.linalg.set_diag(logits, own)
            logits = tfrs.layers.loss.RemoveAccidentalHits()(labels, logits, ids)
        if num_hard_negatives is not None:
            logits, labels = tfrs.layers.loss.HardNegativeMining(num_hard_negatives)(logits, labels)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    if negative is None or remove_accidental_hits:
        return losses
    return losses + tf.linalg.diag_part(scores) - own  # as a positive a candidate has the gradient of `candidate`
