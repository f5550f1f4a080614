"""Retrieval: two towers that find the candidates of a query in the whole corpus."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl._replicas import serves_parameters
from tfmtl.tasks.candidate_counts import CandidateCounts
from tfmtl.tasks.copies import Copy, copy_of
from tfmtl.tasks.interests import best_of_all, best_of_pairs, joined_to_each, unit_vectors
from tfmtl.tasks.loss_rows import not_empty
from tfmtl.tasks.negative_queue import NegativeQueue
from tfmtl.tasks.others import Others
from tfmtl.tasks.pools import JoinedEmbeddings
from tfmtl.tasks.retrieval_loss import RetrievalLoss
from tfmtl.tasks.task import (
    HeadInputs,
    LabelSummary,
    LossInputs,
    head,
    mean_over_observed,
)
from tfmtl.types import Features


@register
class Retrieval(RetrievalLoss):
    """Two-tower retrieval by sampled softmax: in-batch negatives with logQ correction, or a softmax over the corpus.

    Use it to find the best candidates of a query among all candidates; tasks on pairs then rank them.

    l_i = log( exp(s_ii) + sum_j exp(s_ij - log lambda_j) ) - s_ii with s_ij = <u_i, v_j>, over the rows with a label
    above 0, or over all rows if the schema has no label for the task. The sum has the B - 1 other positives of the
    batch and N uniform negatives out of C candidates, without those of i's own id. lambda_j = (B - 1) n_j / n + N / C,
    with streaming counts n_j of sum n, is the expected number of candidate j among them, so that the sum estimates
    the sum of exp(s) over all other candidates without bias. The positive is always present and has no correction.
    With accidental hits the positive is one of the sample: l_i = log( sum_j exp(s_ij - log lambda_j) ) -
    (s_ii - log lambda_i), where j includes i and lambda_j = B n_j / n + N / C. The network output is
    {"query": u [B, d], "candidate": v [B, d]}. A score is the dot product of u and v, so that any index over dot
    products can serve it.

    Args:
        name: name of the task and of its label.
        units: widths of dense layers between the shared towers and u, v; the last width is d. Without layers u and v
            are the outputs of the towers.
        normalize: whether to scale u and v to length 1, before `temperature` divides u.
        temperature: divisor of every score; above 0.
        sampling_correction: whether to subtract log lambda in the loss. Scores then estimate preference, otherwise
            preference relative to popularity.
        remove_accidental_hits: whether to leave candidates with the id of a row's positive out of its negatives.
        num_hard_negatives: number of negatives per row, those with the highest scores; None for all.
        num_uniform_negatives: N, candidates drawn uniformly from the corpus in each training step as further negatives;
            the model then needs its `candidates`.
        full_softmax: whether to take the softmax over the whole corpus. The candidate tower then embeds the corpus in
            every step, in evaluation too, and the model needs its `candidates`. `sampling_correction`,
            `remove_accidental_hits` and `gather_negatives` have no effect, and rows with a positive outside the corpus
            do not count.
        candidate_bias: whether to learn a popularity bias: a further coordinate of v, where u is 1.
        gather_negatives: whether replicas of a distribution strategy that compute one batch together exchange their
            candidates, so that the negatives of a row come from the whole batch; otherwise they come from the part of
            its replica. Workers of a parameter server never compute a batch together.
        distinct_candidates: whether rows with the same candidate share one logit, with the mean of their embeddings and
            their number as its weight. The loss is the same if the candidate features of an id are equal in all rows.
            Otherwise, and with hard negatives, every row has its own logit, as in TFRS.
        explicit_negatives: weight of the loss of rows with a label of 0 or below, relative to that of positive rows; 0
            ignores these rows, and the schema needs a label. Use it for candidates that a user disliked, skipped, or
            saw without a click. A row adds w_i -log(1 - p_i), where p_i is the probability of its candidate against the
            same sample of other candidates, for the query of the row, which needs no positive. p_i is of the order of
            1 / C, so that weights of the order of 100 matter; too large ones cost accuracy on positives.
        share_explicit_negatives: whether the explicit negatives of all rows are in the sample of every other row. The
            counts n_j are then those of positives and explicit negatives; it has no effect with `full_softmax`.
        query_key: name of the feature of ids, such as the user or the session, that identifies the query of a row. All
            positives of a query in the batch are then left out of its negatives, and lambda_j counts the rows of other
            queries, for any `remove_accidental_hits`. By default a row has its own positive alone.
        joint_positives: whether the positives P of a query in the batch share one term, l = log( sum_{c in P} exp(s_c)
            + sum_j exp(s_j - log lambda_j) ) - log sum_{c in P} exp(s_c), so that one of them with a high score is
            enough; otherwise each has its own term.
        num_queued_negatives: number of candidates of earlier batches that a queue keeps as further negatives, in
            training only. Their embeddings are those of their batch, except that a candidate of this batch has its
            present one. lambda_j counts them as rows of the batch, also while the queue is not full. They have no
            gradient by v; instead that of the B - 1 negatives of the batch is (B - 1 + Q) / (B - 1) times as large, so
            that its mean is that of as many fresh negatives. Loss and gradient are then unbiased for present
            embeddings; with `query_key` the gradient is too small for users with several rows. On MovieLens-100K a
            queue of 4,096 is level with the batch alone (NDCG@10 0.0015 above it, of 0.101; without the factor 0.023
            below). The queue is saved with the model. It is refused under parameter servers.
        negatives_power: exponent of the probabilities p_j, in proportion to (1 + n_j)^power, with which the N negatives
            from the corpus are drawn; lambda_j has N p_j instead of N / C. 0.75 is common; 0 is uniform.
        copy: a `HistoryCopy`, which adds a part to the scores of candidates in the query's history, or a
            `UserNeighbors`, with a list for each user; in evaluation, prediction and serving, but not in the loss.
        num_interests: K, number of vectors u_k of a query, for users with several interests at a time (ComiRec). The
            output is then {"query": [B, K d], "candidate": [B, d]}, and a score is max_k <u_k, v>; with `units` the
            last layer of the query has K d outputs, otherwise its tower must have that width, such as that of
            `layers.MultiInterestPooling`. In the loss, too, each candidate has its own largest product.
        shared_interest: whether the vector u_m with m = argmax_k <u_k, v> by the candidate v of a row also scores the
            other candidates in its loss, as in ComiRec, so that only this vector has a gradient. In a short run on
            MovieLens-1M Recall@100 was then 0.46 after four epochs, against 0.55 with products of their own; on Tmall's
            brands it was below that of one vector.
        interest_sharpness: p of the soft choice (MIND) u = sum_k a_k u_k, a = softmax(p <u_k, v>), in the loss; None
            for the largest product. It needs `shared_interest`.

    Reference:
        Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019,
        https://doi.org/10.1145/3298689.3346996, equation 3 (the paper estimates the intervals between occurrences,
        this class counts them); Khrylchenko et al., "Correcting the LogQ Correction: Revisiting Sampled Softmax for
        Large-Scale Retrieval", RecSys 2025, https://arxiv.org/abs/2507.09331 (the positive is not corrected); Yang et
        al., "Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020,
        https://doi.org/10.1145/3366424.3386195; Wang et al., "Learning from Negative User Feedback and Measuring
        Responsiveness for Sequential Recommenders", RecSys 2023, https://arxiv.org/abs/2308.12256 (explicit negatives,
        here with the probability from the sample); Wang et al., "Cross-Batch Negative Sampling for Training Two-Tower
        Recommenders", SIGIR 2021, https://arxiv.org/abs/2110.15154 (the queue); Cen et al., "Controllable
        Multi-Interest Framework for Recommendation" (ComiRec), KDD 2020, https://arxiv.org/abs/2005.09347, equation 7;
        Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall" (MIND), CIKM 2019,
        https://arxiv.org/abs/1904.08030, section 4.4 (there products are raised to the power p; here they may be
        negative, and p is a factor). `tfrs.tasks.Retrieval` differs: it corrects the positive too.

    Cost: B (U + N) d multiplications per step for U <= B distinct candidates in batch and queue. The full softmax takes
    3 B C d multiplications and a pass of C candidates through their tower, in the memory of one block of rows; use it
    for corpora of some thousand candidates, or for large batches. `gather_negatives` sends v, and in the backward pass
    the sum of the gradients [B, d], from each replica to every other.
    """

    uses_trunk: ClassVar[bool] = False
    needs_label: ClassVar[bool] = False
    retrieves: ClassVar[bool] = True
    pool = JoinedEmbeddings

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        normalize: bool = False,
        temperature: float = 1.0,
        sampling_correction: bool = True,
        remove_accidental_hits: bool = True,
        num_hard_negatives: int | None = None,
        num_uniform_negatives: int = 0,
        full_softmax: bool = False,
        candidate_bias: bool = False,
        gather_negatives: bool = True,
        distinct_candidates: bool = True,
        explicit_negatives: float = 0.0,
        share_explicit_negatives: bool = False,
        query_key: str | None = None,
        joint_positives: bool = False,
        num_queued_negatives: int = 0,
        negatives_power: float = 0.0,
        copy: Copy | Mapping[str, Any] | None = None,
        num_interests: int = 1,
        interest_sharpness: float | None = None,
        shared_interest: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        self.units = tuple(units)
        self.normalize = normalize
        self.temperature = float(temperature)
        self.sampling_correction = sampling_correction
        self.remove_accidental_hits = remove_accidental_hits
        self.num_hard_negatives = num_hard_negatives
        self.num_uniform_negatives = num_uniform_negatives
        self.full_softmax = full_softmax
        self.candidate_bias = candidate_bias
        self.gather_negatives = gather_negatives
        self.distinct_candidates = distinct_candidates
        self.explicit_negatives = float(explicit_negatives)
        self.share_explicit_negatives = share_explicit_negatives
        self.query_key = query_key
        self.joint_positives = joint_positives
        self.num_queued_negatives = num_queued_negatives
        self.negatives_power = float(negatives_power)
        self.copy = copy_of(copy)
        self.num_interests = num_interests
        self.interest_sharpness = interest_sharpness
        self.shared_interest = shared_interest
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Raise unless the numbers are in their ranges and the arguments on negatives fit together."""
        of, full = f"of task {self.name!r}", self.full_softmax
        for width in self.units:
            require_positive_int(units=width)
        require(self.temperature > 0, f"`temperature` {of} must be above 0.", temperature=self.temperature)
        require(
            self.num_uniform_negatives >= 0,
            f"`num_uniform_negatives` {of} must be 0 or more.",
            n=self.num_uniform_negatives,
        )
        require(
            self.num_queued_negatives >= 0,
            f"`num_queued_negatives` {of} must be 0 or more.",
            n=self.num_queued_negatives,
        )
        if self.num_hard_negatives is not None:
            require_positive_int(num_hard_negatives=self.num_hard_negatives)
        require(
            not full
            or (self.num_hard_negatives is None and not self.num_uniform_negatives and not self.num_queued_negatives),
            f"`full_softmax` {of} has no negatives to choose; leave out the other arguments on negatives.",
            num_hard_negatives=self.num_hard_negatives,
            num_uniform_negatives=self.num_uniform_negatives,
            num_queued_negatives=self.num_queued_negatives,
        )
        require(
            not self.negatives_power or (math.isfinite(self.negatives_power) and self.num_uniform_negatives > 0),
            f"`negatives_power` {of} must be a finite number, and needs `num_uniform_negatives` above 0.",
            negatives_power=self.negatives_power,
            num_uniform_negatives=self.num_uniform_negatives,
        )
        require(
            0 <= self.explicit_negatives < float("inf"),
            f"`explicit_negatives` {of} must be a finite weight, 0 or more.",
            explicit_negatives=self.explicit_negatives,
        )
        require(
            not self.joint_positives or self.query_key is not None,
            f"`joint_positives` {of} needs `query_key`, by which rows of one query are found.",
            query_key=self.query_key,
        )
        require(
            self.query_key is None or not full,
            f"`query_key` {of} removes positives from sampled negatives; leave it or `full_softmax` out.",
            query_key=self.query_key,
        )
        self._check_interests(of)

    def _check_interests(self, of: str) -> None:
        require_positive_int(num_interests=self.num_interests)
        several, sharpness = self.num_interests > 1, self.interest_sharpness
        require(
            sharpness is None or (several and self.shared_interest and math.isfinite(sharpness) and sharpness > 0),
            f"`interest_sharpness` {of} must be a finite number above 0, and needs `num_interests` above 1 and a "
            "`shared_interest`.",
            interest_sharpness=sharpness,
            num_interests=self.num_interests,
            shared_interest=self.shared_interest,
        )
        require(
            not (several and self.shared_interest and self.joint_positives),
            f"`joint_positives` {of} has one term for positives of several interests; set `shared_interest` False.",
            num_interests=self.num_interests,
        )

    @property
    def num_extra_negatives(self) -> int:  # type: ignore[override]
        """Number of negatives from the corpus that the model draws for each training step."""
        return self.num_uniform_negatives

    @property
    def needs_corpus(self) -> bool:  # type: ignore[override]
        """Whether the model embeds all candidates for each loss."""
        return self.full_softmax

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise if no training row has a label above 0, or none has an explicit negative that the loss needs."""
        require(
            statistics.maximum > 0,
            f"Retrieval task {self.name!r} needs rows with a label above 0.",
            maximum=statistics.maximum,
        )
        require(
            not self.explicit_negatives or statistics.minimum <= 0,
            f"Retrieval task {self.name!r} with `explicit_negatives` needs rows with a label of 0 or below.",
            minimum=statistics.minimum,
        )

    def prepare(self, num_indices: int) -> None:
        """Create the streaming counts; those of an earlier model with this task are dropped."""
        self._forget("_counts")
        self._num_indices = num_indices
        self._counts = CandidateCounts(self, num_indices)

    def prepare_output(self, output: Any) -> None:
        """Create the queue of negatives, if there is one, empty."""
        self._forget("_queue")
        if self.num_queued_negatives:
            require(
                not serves_parameters(tf.distribute.get_strategy()),
                f"`num_queued_negatives` of task {self.name!r} needs workers that compute a batch together, unlike "
                "those of parameter servers; take `num_uniform_negatives`.",
                num_queued_negatives=self.num_queued_negatives,
            )
            self._queue = NegativeQueue(self, self.num_queued_negatives, int(output["candidate"].shape[-1]))

    def _forget(self, name: str) -> None:
        """Remove the variables of a part of the state, if there is one, from the weights."""
        old = {id(weight) for weight in getattr(self, name).weights} if hasattr(self, name) else set()
        own = self._non_trainable_weights
        for position in reversed(range(len(own))):
            if id(own[position]) in old:
                del own[position]

    def limit_counts(self, total: float) -> None:
        """Scale the streaming counts down to a sum of at most `total`, so that later rows have more weight."""
        self._counts.cap(total)

    def connect(self, encodings: HeadInputs) -> dict[str, Any]:
        """Add the layers of u and v to the towers.

        Raises:
            ValueError: if there are no candidates, or u has another width than v, or than K times that of v.
        """
        require(
            encodings.candidate is not None,
            f"Retrieval task {self.name!r} needs candidate features; the schema has none.",
        )
        query = self._project(encodings.query, "query", encodings.seed)
        candidate = self._project(encodings.candidate, "candidate", encodings.seed)
        self._check_widths({"query": int(query.shape[-1]), "candidate": int(candidate.shape[-1])})
        if self.temperature != 1.0:
            query = keras.layers.Rescaling(1 / self.temperature, name=f"{self.name}_query_scaled")(query)
        if self.candidate_bias:
            bias = head(encodings.candidate, (), 1, f"{self.name}_candidate_bias", encodings.seed)
            candidate = keras.layers.Concatenate(name=f"{self.name}_candidate_biased")([candidate, bias])
            one = tf.ones_like(query[:, :1])
            query = joined_to_each(query, one, self.num_interests, f"{self.name}_query_biased")
        return {"query": query, "candidate": candidate}

    def _check_widths(self, widths: Mapping[str, int]) -> None:
        several = self.num_interests > 1
        require(
            several or widths["query"] == widths["candidate"],
            f"Retrieval task {self.name!r} has no dot product, because its towers have outputs of different widths; "
            "give `Retrieval(units=...)` or `tower_units` a width, or choose `embedding_dim` for equal widths.",
            widths=widths,
        )
        require(
            not several or widths["query"] == self.num_interests * widths["candidate"],
            f"The query tower of retrieval task {self.name!r} must have `num_interests` times the width of the "
            f"candidate tower, {self.num_interests} x {widths['candidate']}; give `Retrieval(units=...)` a width.",
            widths=widths,
        )

    def _project(self, tower: Any, side: str, seed: int) -> Any:
        name, interests = f"{self.name}_{side}", self.num_interests if side == "query" else 1
        output = head(tower, self.units[:-1], interests * self.units[-1], name, seed) if self.units else tower
        return unit_vectors(output, interests, f"{name}_unit") if self.normalize else output

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the dot product [B] of each row's pair, the largest one of several vectors."""
        return best_of_pairs(outputs["query"], outputs["candidate"])

    def served_value(self, outputs: Any, features: Features, candidate: tf.Tensor | None) -> tf.Tensor:
        """Return the score [B] of each row's pair, with the part of `copy`."""
        score = self.predict(outputs)
        if self.copy is None or candidate is None:
            return score
        return tf.cast(score, tf.float32) + self.copy.of_pairs(features[self.copy.history], candidate)

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return T^2 KL(teacher || student) of the score distributions of each query over the batch's candidates."""
        positive = sample_weight > 0
        weight = not_empty(tf.boolean_mask(sample_weight, positive))
        others = Others.of(weight > 0)
        both = (self._scores(x, positive, others) / temperature for x in (outputs, teacher_outputs))
        student, teacher = map(tf.nn.log_softmax, both)
        divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=1)
        return temperature**2 * mean_over_observed(divergence, weight)[0]

    def _scores(self, outputs: Any, positive: tf.Tensor, others: Others) -> tf.Tensor:
        sides = (tf.boolean_mask(tf.cast(outputs[side], tf.float32), positive) for side in ("query", "candidate"))
        query, candidate = map(not_empty, sides)
        return best_of_all(query, others.behind(candidate) if self.gather_negatives else candidate)

    def output_arguments(self) -> dict[str, Any]:
        """Return `copy`: with any other arguments the score is the dot product of the outputs.

        Raises:
            ValueError: with several interests, since a sum of maxima is no maximum of as many dot products.
        """
        require(
            self.num_interests == 1,
            f"Retrieval task {self.name!r} has several interests, and an ensemble of such tasks cannot be searched by "
            "dot products; use members with `num_interests` 1.",
            num_interests=self.num_interests,
        )
        return {} if self.copy is None else {"copy": self.copy}

    def distillation_weight(self, labels: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Return the weights of the positive rows, since only their queries and candidates enter the softmax."""
        return tf.where(labels > 0, sample_weight, 0.0)

    def get_config(self) -> dict[str, Any]:
        own = (
            "normalize", "temperature", "sampling_correction", "remove_accidental_hits", "num_hard_negatives",
            "num_uniform_negatives", "full_softmax", "candidate_bias", "gather_negatives", "distinct_candidates",
            "explicit_negatives", "share_explicit_negatives", "query_key", "joint_positives",
            "num_queued_negatives", "negatives_power", "num_interests", "interest_sharpness",
            "shared_interest",
        )  # fmt: skip
        copied = {} if self.copy is None else {"copy": self.copy.config()}
        plain = {name: getattr(self, name) for name in own}
        return {**super().get_config(), "units": list(self.units), **plain, **copied}
