"""GroupLoss: pairwise and listwise losses between the rows of one user or session."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._replicas import gather_chosen
from tfmtl.tasks.loss_inputs import LossInputs
from tfmtl.tasks.task import LabelSummary

_LARGEST_LABEL = 30.0
GroupKind = Literal["logistic", "hinge", "softmax", "list_mle", "approx_ndcg"]


@dataclasses.dataclass(frozen=True)
class GroupLoss:
    r"""A loss by which the rows of one group, such as a user or a session, are ranked among each other.

    Use it as `BinaryClassification(extra_losses=[GroupLoss(...)])`, or of a regression, where the order within a list
    counts: the losses of single rows also pay for differences between users, which no list shows. The loss of the task
    becomes that of its rows plus `weight` times this one.

    With scores s (log-odds, or the output of a regression), labels y, weights w, and sums over rows of one group:

    - `"logistic"` (BPR, RankNet): mean over pairs with y_i > y_j of log(1 + exp(s_j - s_i)), with weights w_i w_j
    - `"hinge"`: mean over these pairs of max(0, 1 - (s_i - s_j))
    - `"softmax"` (ListNet): mean over rows of -y_i log(exp(s_i) / sum_k exp(s_k)), with weights w_i y_i
    - `"list_mle"`: mean over rows i with a smaller label in their group of log sum_{k: y_k <= y_i} exp(s_k) - s_i.
      Tied labels share one sum, so that no order of ties is drawn; for labels 0 and 1 it equals `"softmax"`
    - `"approx_ndcg"`: mean over groups of 1 - DCG / ideal DCG, with gains 2^y - 1 and smooth ranks
      r_i = 1 + sum_{k != i} sigma((s_k - s_i) / temperature)

    `"softmax"` and `"approx_ndcg"` need labels of 0 or more, the latter of at most 30, because its gains are powers.

    A group is that of the rows of one batch. Sort the rows by group, or use large batches, if groups are small: a batch
    without two rows of one group that differ has the loss 0. Rows without a group or a label do not count. Replicas of
    a distribution strategy exchange the rows, so that a group with rows on several replicas stays one group.

    Attributes:
        kind: the loss.
        group: name of the feature with the group of each row, usually the id of the user.
        weight: factor beside the loss of the rows; above 0.
        temperature: of `"approx_ndcg"`; above 0. The smooth ranks of a small one are near the ranks.

    Raises:
        ValueError: if an attribute is out of range.

    Example:
        >>> loss = GroupLoss("logistic", "user")
        >>> scores, labels, groups = tf.constant([2.0, 0.0, 9.0]), tf.constant([1.0, 0.0, 0.0]), tf.constant([3, 3, 4])
        >>> round(float(loss.of_rows(scores, labels, tf.ones(3), groups)), 4)  # log(1 + exp(-2)): one pair
        0.1269

    Reference:
        Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009,
        https://arxiv.org/abs/1205.2618; Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach",
        ICML 2007 (softmax); Xia et al., "Listwise Approach to Learning to Rank", ICML 2008 (ListMLE, which draws an
        order of ties); Qin, Liu, Li, "A general approximation framework for direct optimization of information
        retrieval measures", Information Retrieval 2010, equations 8 and 10 (ApproxNDCG).

    Cost: a sort of the rows by group, and some passes over the pairs of rows of one group; on replicas, each of them
    computes the loss of the whole batch.
    """

    kind: GroupKind
    group: str
    weight: float = 1.0
    temperature: float = 0.1

    def __post_init__(self) -> None:
        require(self.kind in get_args(GroupKind), f"`kind` must be one of {get_args(GroupKind)}.", kind=self.kind)
        require(isinstance(self.group, str) and bool(self.group), "`group` must be the name of a feature.")
        for name in ("weight", "temperature"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            valid = number and math.isfinite(value) and value > 0
            require(valid, f"`{name}` of a `GroupLoss` must be a finite number above 0.", **{name: value})

    @property
    def name(self) -> str:
        """Kind and group, which `evaluate` logs after the name of the task."""
        return f"{self.kind}_by_{self.group}"

    def config(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return dataclasses.asdict(self)

    def check_labels(self, task: str, statistics: LabelSummary) -> None:
        """Raise if the training labels of a task are below 0 or so large that their gains 2^y are no float32."""
        if self.kind not in ("softmax", "approx_ndcg"):
            return
        most = _LARGEST_LABEL if self.kind == "approx_ndcg" else math.inf
        require(
            statistics.minimum >= 0 and statistics.maximum <= most,
            f"The `GroupLoss` of task {task!r} with the kind {self.kind!r} needs labels from 0 to {most:g}; take "
            "'logistic', 'hinge' or 'list_mle', which read their order alone.",
            minimum=statistics.minimum,
            maximum=statistics.maximum,
        )

    def of_batch(self, scores: tf.Tensor, labels: tf.Tensor, sample_weight: tf.Tensor, inputs: LossInputs) -> tf.Tensor:
        """Return the loss of a batch, a scalar, without the factor `weight`; every replica must call this method.

        Args:
            scores: [B].
            labels: [B], NaN where missing.
            sample_weight: [B], 0 where the label is missing.
            inputs: with the groups, as keys of users or candidates, or as an encoded feature.
        """
        weights, groups = inputs.groups_of(self.group, sample_weight)
        columns = (tf.cast(scores, tf.float32), labels, weights, groups["groups"])
        return self.of_rows(*gather_chosen(weights > 0, columns))

    def of_rows(self, scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
        """Return the loss of rows, a scalar; 0 if no group has rows with different labels.

        Args:
            scores, labels: [B], without NaN.
            weights: [B], 0 for rows that do not count.
            groups: [B], equal for rows of one group.
        """
        pairs = _Pairs.of(*(tf.boolean_mask(column, weights > 0) for column in (scores, labels, weights, groups)))
        return _KINDS[self.kind](self, pairs)

    def _between(self, pairs: _Pairs, loss: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        better = pairs.first(pairs.labels) > pairs.second(pairs.labels)
        weight = tf.where(better, pairs.first(pairs.weights) * pairs.second(pairs.weights), 0.0)
        losses = loss(tf.where(better, pairs.first(pairs.scores) - pairs.second(pairs.scores), 0.0))
        return _mean(losses, weight)

    def _logistic(self, pairs: _Pairs) -> tf.Tensor:
        return self._between(pairs, lambda difference: tf.nn.softplus(-difference))

    def _hinge(self, pairs: _Pairs) -> tf.Tensor:
        return self._between(pairs, lambda difference: tf.nn.relu(1 - difference))

    def _softmax(self, pairs: _Pairs) -> tf.Tensor:
        differs = tf.not_equal(pairs.first(pairs.labels), pairs.second(pairs.labels))
        weight = tf.where(pairs.any(differs), pairs.weights * pairs.labels, 0.0)
        return _mean(pairs.log_sum(tf.ones_like(differs)) - pairs.scores, weight)

    def _list_mle(self, pairs: _Pairs) -> tf.Tensor:
        own, other = pairs.first(pairs.labels), pairs.second(pairs.labels)
        weight = tf.where(pairs.any(other < own), pairs.weights, 0.0)
        return _mean(pairs.log_sum(other <= own) - pairs.scores, weight)

    def _approx_ndcg(self, pairs: _Pairs) -> tf.Tensor:
        own, other = pairs.first(pairs.labels), pairs.second(pairs.labels)
        above = tf.sigmoid((pairs.second(pairs.scores) - pairs.first(pairs.scores)) / self.temperature)
        rank = 0.5 + pairs.sum(above)  # a row is above itself by 1/2
        ahead = (other > own) | (tf.equal(other, own) & (pairs.right <= pairs.left))
        gain = pairs.weights * (tf.pow(2.0, pairs.labels) - 1)
        ideal_rank = pairs.sum(tf.cast(ahead, tf.float32))
        found, ideal = (pairs.by_group(gain / tf.math.log1p(each)) for each in (rank, ideal_rank))
        differs = pairs.by_group(tf.cast(pairs.any(tf.not_equal(own, other)), tf.float32))
        counted = tf.cast((differs > 0) & (ideal > 0), tf.float32)
        return _mean(1 - tf.math.divide_no_nan(found, ideal), counted)


class _Pairs(NamedTuple):
    """Rows sorted by group, and all pairs of rows of one group, also of a row with itself.

    Attributes:
        scores, labels, weights: [n].
        group: number of each row's group [n].
        left, right: the rows of each pair [p].
    """

    scores: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    group: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor

    @classmethod
    def of(cls, scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, groups: tf.Tensor) -> _Pairs:
        """Return the pairs of rows with a weight."""
        _, group, counts = tf.unique_with_counts(groups)
        order = tf.argsort(group, stable=True)
        scores, labels, weights, group = (tf.gather(column, order) for column in (scores, labels, weights, group))
        sizes = tf.gather(counts, group)
        left = tf.repeat(tf.range(tf.size(group)), sizes)
        place = tf.range(tf.size(left)) - tf.repeat(tf.cumsum(sizes, exclusive=True), sizes)
        start = tf.gather(tf.cumsum(counts, exclusive=True), group)
        return cls(scores, labels, weights, group, left, tf.repeat(start, sizes) + place)

    def first(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values [p] of the first row of each pair."""
        return tf.gather(values, self.left)

    def second(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values [p] of the second row of each pair."""
        return tf.gather(values, self.right)

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """Return the sums [n] of values of pairs [p] by their first row."""
        return tf.math.unsorted_segment_sum(values, self.left, tf.size(self.group))

    def any(self, values: tf.Tensor) -> tf.Tensor:
        """Return whether one of the pairs [p] of each first row [n] is true."""
        return self.sum(tf.cast(values, tf.float32)) > 0

    def by_group(self, values: tf.Tensor) -> tf.Tensor:
        """Return the sums of values [n] by group; groups beyond the last one have 0."""
        return tf.math.unsorted_segment_sum(values, self.group, tf.size(self.group))

    def log_sum(self, allowed: tf.Tensor) -> tf.Tensor:
        """Return log sum_k exp(s_k) [n] over the second rows k of the allowed pairs [p]; a row allows itself."""
        scores = tf.where(allowed, self.second(self.scores), self.scores.dtype.min)
        most = tf.stop_gradient(tf.math.unsorted_segment_max(scores, self.left, tf.size(self.group)))
        return tf.math.log(self.sum(tf.exp(scores - self.first(most)))) + most


def _mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(weights * values), tf.reduce_sum(weights))


_KINDS: Mapping[str, Callable[..., tf.Tensor]] = {
    "logistic": GroupLoss._logistic,
    "hinge": GroupLoss._hinge,
    "softmax": GroupLoss._softmax,
    "list_mle": GroupLoss._list_mle,
    "approx_ndcg": GroupLoss._approx_ndcg,
}
