"""The losses of retrieval: a softmax over sampled candidates, or over the corpus."""

from __future__ import annotations

import abc
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._passes import repeats
from tfmtl._replicas import gather_chosen
from tfmtl.tasks.candidate_counts import CandidateCounts
from tfmtl.tasks.compared import Compared, padded
from tfmtl.tasks.corpus_softmax import corpus_cross_entropy
from tfmtl.tasks.distinct_softmax import distinct_softmax
from tfmtl.tasks.interests import interest_of
from tfmtl.tasks.loss_inputs import CandidateIds
from tfmtl.tasks.loss_rows import LossRows
from tfmtl.tasks.multi_positive_softmax import multi_positive_softmax
from tfmtl.tasks.negative_queue import NegativeQueue
from tfmtl.tasks.others import Others
from tfmtl.tasks.row_softmax import row_softmax
from tfmtl.tasks.task import LossInputs, Task, total_weight
from tfmtl.tasks.unlikelihood import unlikelihood


class RetrievalLoss(Task, abc.ABC):
    """The part of `Retrieval` that computes its loss; see there for the arguments."""

    sampling_correction: bool
    remove_accidental_hits: bool
    num_hard_negatives: int | None
    full_softmax: bool
    gather_negatives: bool
    distinct_candidates: bool
    explicit_negatives: float
    share_explicit_negatives: bool
    query_key: str | None
    joint_positives: bool
    num_queued_negatives: int
    negatives_power: float
    num_interests: int
    interest_sharpness: float | None
    shared_interest: bool
    _counts: CandidateCounts
    _queue: NegativeQueue
    _num_indices: int

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean softmax loss over the positive rows and their weight, with the part of explicit negatives."""
        outputs = self._with_one_vector(outputs)
        if self.full_softmax:
            return self._full_softmax_loss(labels, outputs, sample_weight, inputs)
        queries = None if self.query_key is None else inputs.keys_of(self.query_key)
        rows = LossRows.of(labels > 0, outputs, sample_weight, inputs.candidate_ids, queries).not_empty()
        negative = None
        if self.explicit_negatives:
            negative = LossRows.of(labels <= 0, outputs, sample_weight, inputs.candidate_ids)
        shared = negative is not None and self.share_explicit_negatives
        compared = self._compared(rows.followed_by(negative) if negative is not None and shared else rows, inputs)
        total = total_weight(rows.weight)
        summed = tf.reduce_sum(rows.weight * self._softmax_losses(rows.query, compared, inputs))
        if negative is not None:
            drawn = compared.number - 1 if shared else compared.number
            expected = self._expected_counts(compared.ids, drawn, inputs)
            rivals = compared.candidate if compared.negative is None else compared.negative
            losses = unlikelihood(
                negative.query, negative.candidate, rivals, compared.hidden_from(negative.ids), expected
            )
            summed += self.explicit_negatives * tf.reduce_sum(negative.weight * losses)
        return tf.math.divide_no_nan(summed, total), total

    def _with_one_vector(self, outputs: Any) -> Any:
        """Return outputs with the vector of each query that the candidate of its row chooses; see `interest_of`."""
        if self.num_interests == 1 or not self.shared_interest:
            return outputs
        query, candidate = (tf.cast(outputs[side], tf.float32) for side in ("query", "candidate"))
        return {"query": interest_of(query, candidate, self.interest_sharpness), "candidate": candidate}

    def _softmax_losses(self, query: tf.Tensor, compared: Compared, inputs: LossInputs) -> tf.Tensor:
        """Return the loss of each positive; their candidates are the first ones of `compared`."""
        candidate, ids, hits = compared.candidate, compared.ids, self.remove_accidental_hits
        distinct, hard = self.distinct_candidates and self.num_hard_negatives is None, self.num_hard_negatives
        negative = compared.negative
        if compared.queries is not None and ids is not None:
            shares = self._shares(ids, inputs) if self.sampling_correction else None
            return multi_positive_softmax(
                query, candidate, ids.keys, compared.queries, compared.number,
                shares and (shares[0], shares[1] + tf.zeros_like(shares[0])),
                joint=self.joint_positives, distinct=distinct, num_hard_negatives=hard, negative=negative,
            )  # fmt: skip
        expected = self._expected_counts(ids, compared.number - 1 if hits else compared.number, inputs)
        if distinct and ids is not None:
            return distinct_softmax(
                query, candidate, ids.keys, expected, negative=negative, remove_accidental_hits=hits
            )
        keys = None if ids is None else ids.keys
        return row_softmax(
            query, candidate, keys, expected, negative=negative, remove_accidental_hits=hits, num_hard_negatives=hard
        )

    def _full_softmax_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        require(
            inputs.negatives is not None and inputs.positions is not None,
            f"Retrieval task {self.name!r} with `full_softmax` needs the corpus as `negatives`, and `positions` in it.",
        )
        corpus, _ = inputs.negatives  # type: ignore[misc]
        position, negative = tf.convert_to_tensor(inputs.positions), None
        observed = tf.where(position >= 0, sample_weight, 0.0)
        weight = tf.where(labels > 0, observed, 0.0)
        total = total_weight(weight)
        if self.explicit_negatives:
            weight += self.explicit_negatives * tf.where(labels <= 0, observed, 0.0)
        kept = weight > 0
        if self.explicit_negatives:
            negative = tf.boolean_mask(labels <= 0, kept)
        query = tf.boolean_mask(tf.cast(outputs["query"], tf.float32), kept)
        weight, position = tf.boolean_mask(weight, kept), tf.boolean_mask(position, kept)
        summed = corpus_cross_entropy(query, tf.cast(corpus, tf.float32), position, weight, negative=negative)
        return tf.math.divide_no_nan(summed, total), total

    def _compared(self, offered: LossRows, inputs: LossInputs) -> Compared:
        """Count the offered rows; return the candidates that queries are compared with, also of other replicas."""
        present = offered.weight > 0
        others = Others.of(present)
        ids = every_id = None if offered.ids is None else CandidateIds(*map(others.behind, offered.ids))
        if every_id is not None and inputs.training and (self.sampling_correction or self.negatives_power):
            seen = tf.concat([tf.cast(present, tf.float32), tf.ones([others.count])], axis=0)
            if not repeats():
                self._counts.add(every_id, seen)
        candidate, queries = offered.candidate, offered.queries
        number = tf.math.count_nonzero(present, dtype=tf.int32)
        if self.gather_negatives:
            candidate, number = others.behind(candidate), number + others.count
            queries = None if queries is None else others.behind(queries)
        else:
            ids = offered.ids
        compared = Compared(candidate, ids, padded(present, candidate, True), number, queries)
        if self.num_queued_negatives and inputs.training:
            compared = self._with_queue(compared, offered)
        if inputs.negatives is not None:
            compared = compared.followed_by(*inputs.negatives)
        return compared._replace(number=tf.maximum(compared.number, 1))

    def _with_queue(self, compared: Compared, offered: LossRows) -> Compared:
        """Return the candidates, then those of the queue, to which the rows of all replicas are added after that."""
        rule = f"Retrieval task {self.name!r} with `num_queued_negatives` needs the ids of the candidates."
        require(compared.ids is not None, rule)
        ids: Any = offered.ids
        own: Any = compared.ids
        candidate, keys, queries = self._queue.entries(compared.candidate, own)
        longer = compared.followed_by(candidate, keys, queries)
        present = offered.weight > 0
        parts = [offered.candidate, *ids] + ([] if offered.queries is None else [offered.queries])
        number = compared.number + tf.shape(candidate)[0]
        joined = longer._replace(number=number, factors=self._negative_factors(compared, number, longer))
        if repeats():
            return joined
        # All replicas add the rows in one order, so that their copies of the queue stay equal.
        vectors, *rest = gather_chosen(present, [tf.stop_gradient(part) for part in parts])
        self._queue.add(vectors, CandidateIds(*rest[:2]), rest[2] if len(rest) > 2 else None)
        return joined

    def _negative_factors(self, compared: Compared, number: tf.Tensor, longer: Compared) -> tf.Tensor:
        """Return the factors of the gradients of negatives, so that rows of the batch stand for those of the queue.

        An entry of the queue has no gradient. With b negatives of the batch and Q entries, lambda_c = (b + Q) q_c for a
        candidate of share q_c, which is expected b q_c times in the batch: with the factor (b + Q) / b the expected
        gradient of sum_j exp(s_j) / lambda_j by v_c is that of exp(s_c), as in a softmax over the corpus.
        """
        own = 1 if self.remove_accidental_hits or self.query_key is not None else 0  # the positive is not drawn
        drawn, fresh = (tf.cast(tf.maximum(n - own, 1), tf.float32) for n in (number, compared.number))
        scaled = tf.fill([tf.shape(compared.candidate)[0]], drawn / fresh)
        return padded(scaled, longer.candidate, 0.0)

    def negative_shares(self, ids: CandidateIds) -> tf.Tensor | None:
        """Return (1 + n_j)^power of the candidates of the corpus [C], normalized; None for a power of 0."""
        if not self.negatives_power:
            return None
        return tf.nn.softmax(self.negatives_power * tf.math.log1p(self._counts.of(ids)))

    def _expected_counts(self, ids: CandidateIds | None, drawn: tf.Tensor, inputs: LossInputs) -> tf.Tensor | None:
        """Return lambda: how often each candidate is expected among the candidates that a query is compared with.

        Args:
            ids: the candidates [C]; None without ids, which cannot be corrected.
            drawn: number of candidates that are not drawn from the corpus.
            inputs: further inputs, with the candidates that are.
        """
        if ids is None or not self.sampling_correction:
            return None
        share, extra = self._shares(ids, inputs)
        expected = tf.cast(drawn, tf.float32) * share + extra
        return tf.where(expected > 0, expected, 1.0)  # a single positive has no negatives to correct

    def _shares(self, ids: CandidateIds, inputs: LossInputs) -> tuple[tf.Tensor, tf.Tensor | float]:
        """Return the share [C] of each candidate in the rows of batches, and its expected number in the drawn ones."""
        share = self._counts.of(ids) / tf.maximum(self._counts.total, 1.0)
        uniform = 1.0 / (inputs.num_candidates or self._num_indices)
        share = tf.where(share > 0, share, uniform)  # a candidate without counts has the uniform probability
        extra = 0.0 if inputs.negatives is None else tf.cast(tf.shape(inputs.negatives[0])[0], tf.float32)
        return share, extra * (uniform if inputs.negative_shares is None else inputs.negative_shares(ids.keys))
