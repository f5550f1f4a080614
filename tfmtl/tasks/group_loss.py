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

    Cost: two sorts of the rows, and passes over pairs of rows of one group: those with different labels for
        `"logistic"` and `"hinge"`, all for `"approx_ndcg"`, rows with labels for `"list_mle"`, none for `"softmax"`. On
        replicas, each of them computes the loss of the whole batch.
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
        return _KINDS[self.kind](self, _Rows.of(scores, labels, weights, groups))

    def _between(self, rows: _Rows, loss: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        better, worse = _pairs(rows.tie_ends, rows.ends)
        weight = tf.gather(rows.weights, better) * tf.gather(rows.weights, worse)
        return _mean(loss(tf.gather(rows.scores, better) - tf.gather(rows.scores, worse)), weight)

    def _logistic(self, rows: _Rows) -> tf.Tensor:
        return self._between(rows, lambda difference: tf.nn.softplus(-difference))

    def _hinge(self, rows: _Rows) -> tf.Tensor:
        return self._between(rows, lambda difference: tf.nn.relu(1 - difference))

    def _softmax(self, rows: _Rows) -> tf.Tensor:
        weight = tf.where(rows.highest > rows.lowest, rows.weights * rows.labels, 0.0)
        sums = _log_sums(rows.scores, rows.group, rows.size)
        return _mean(tf.gather(sums, rows.group) - rows.scores, weight)

    def _list_mle(self, rows: _Rows) -> tf.Tensor:
        weight = tf.where(rows.labels > rows.lowest, rows.weights, 0.0)
        first = tf.equal(rows.tie_starts, tf.range(rows.size))  # one sum for all rows of a tie
        tie, other = _pairs(*(tf.boolean_mask(bound, first) for bound in (rows.tie_starts, rows.ends)))
        sums = _log_sums(tf.gather(rows.scores, other), tie, tf.reduce_sum(tf.cast(first, tf.int32)))
        return _mean(tf.gather(sums, tf.cumsum(tf.cast(first, tf.int32)) - 1) - rows.scores, weight)

    def _approx_ndcg(self, rows: _Rows) -> tf.Tensor:
        row, other = _pairs(tf.range(rows.size) + 1, rows.ends)
        above = tf.sigmoid((tf.gather(rows.scores, other) - tf.gather(rows.scores, row)) / self.temperature)
        rank = 1 + sum(
            tf.math.unsorted_segment_sum(share, one, rows.size) for share, one in ((above, row), (1 - above, other))
        )
        ideal_rank = tf.cast(1 + tf.range(rows.size) - rows.starts, tf.float32)
        gain = rows.weights * (tf.pow(2.0, rows.labels) - 1)
        found, ideal, differ = (
            tf.math.unsorted_segment_sum(each, rows.group, rows.size)
            for each in (
                gain / tf.math.log1p(rank), gain / tf.math.log1p(ideal_rank),
                tf.cast(rows.highest > rows.lowest, tf.float32),
            )
        )  # fmt: skip
        counted = tf.cast((differ > 0) & (ideal > 0), tf.float32)
        return _mean(1 - tf.math.divide_no_nan(found, ideal), counted)


class _Rows(NamedTuple):
    """Rows with a weight, sorted by group and in a group by falling label.

    Attributes:
        scores, labels, weights: [n].
        group: number of each row's group [n].
        starts, ends: first row of each row's group, and the row after its last [n].
        tie_starts, tie_ends: those of the rows of the group with the same label [n].
    """

    scores: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    group: tf.Tensor
    starts: tf.Tensor
    ends: tf.Tensor
    tie_starts: tf.Tensor
    tie_ends: tf.Tensor

    @classmethod
    def of(cls, scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, groups: tf.Tensor) -> _Rows:
        """Return the rows with a weight in order; equal labels keep the order of the batch."""
        chosen = tf.where(weights > 0)[:, 0]
        chosen = tf.gather(chosen, tf.argsort(tf.gather(labels, chosen), direction="DESCENDING", stable=True))
        _, group = tf.unique(tf.gather(groups, chosen))
        order = tf.argsort(group, stable=True)
        chosen, group = tf.gather(chosen, order), tf.gather(group, order)
        scores, labels, weights = (tf.gather(column, chosen) for column in (scores, labels, weights))
        begins = tf.not_equal(group[1:], group[:-1])
        bounds = (*_runs(begins, group), *_runs(begins | tf.not_equal(labels[1:], labels[:-1]), group))
        return cls(scores, labels, weights, group, *bounds)

    @property
    def size(self) -> tf.Tensor:
        """The number of rows."""
        return tf.size(self.group)

    @property
    def highest(self) -> tf.Tensor:
        """The largest label of each row's group [n]."""
        return tf.gather(self.labels, self.starts)

    @property
    def lowest(self) -> tf.Tensor:
        """The smallest label of each row's group [n]."""
        return tf.gather(self.labels, self.ends - 1)


def _pairs(starts: tf.Tensor, ends: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return pairs [p], [p] of i with each of `starts[i]`, ..., `ends[i] - 1`, in the order of i."""
    others = tf.ragged.range(starts, ends, row_splits_dtype=tf.int32)
    count = tf.size(others.values)
    begins = tf.math.bincount(others.row_splits[1:], minlength=count + 1, dtype=tf.int32)  # of an i without a pair too
    return tf.cumsum(begins)[:count], others.values


def _runs(begins: tf.Tensor, like: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first row of each row's run and the row after its last, by whether rows after the first begin one."""
    begins = tf.concat([tf.ones_like(like[:1]), tf.cast(begins, tf.int32)], axis=0)
    starts = tf.cast(tf.where(begins > 0)[:, 0], tf.int32)
    ends = tf.concat([starts[1:], [tf.size(like)]], axis=0)
    run = tf.cumsum(begins) - 1
    return tf.gather(starts, run), tf.gather(ends, run)


def _log_sums(scores: tf.Tensor, segment: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return log sum exp of the scores of each segment [size]; none may be empty."""
    most = tf.stop_gradient(tf.math.unsorted_segment_max(scores, segment, size))
    return tf.math.log(tf.math.unsorted_segment_sum(tf.exp(scores - tf.gather(most, segment)), segment, size)) + most


def _mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(weights * values), tf.reduce_sum(weights))


_KINDS: Mapping[str, Callable[..., tf.Tensor]] = {
    "logistic": GroupLoss._logistic,
    "hinge": GroupLoss._hinge,
    "softmax": GroupLoss._softmax,
    "list_mle": GroupLoss._list_mle,
    "approx_ndcg": GroupLoss._approx_ndcg,
}
