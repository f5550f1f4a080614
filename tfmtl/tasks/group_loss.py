"""GroupLoss: pairwise and listwise losses between the rows of one user or session."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.tasks.loss_inputs import LossInputs

GroupKind = Literal["logistic", "hinge", "softmax", "list_mle", "approx_ndcg"]


@dataclasses.dataclass(frozen=True)
class GroupLoss:
    r"""A loss by which the rows of one group, such as a user or a session, are ranked among each other.

    Use it as `BinaryClassification(group_loss=...)` or `Regression(group_loss=...)` where the order within a list
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

    A group is that of the rows of one batch. Sort the rows by group, or use large batches, if groups are small: a batch
    without two rows of one group that differ has the loss 0. Rows without a group or a label do not count. Replicas of
    a distribution strategy do not exchange rows.

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

    Cost: a few passes over a matrix [B, B].
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

    @classmethod
    def of(cls, given: GroupLoss | Mapping[str, Any] | None) -> GroupLoss | None:
        """Return the loss of an argument, which is one already or the attributes of one."""
        return cls(**given) if isinstance(given, Mapping) else given

    def config(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return dataclasses.asdict(self)

    def of_batch(self, scores: tf.Tensor, labels: tf.Tensor, sample_weight: tf.Tensor, inputs: LossInputs) -> tf.Tensor:
        """Return `weight` times the loss of a batch, a scalar.

        Args:
            scores: [B].
            labels: [B], NaN where missing.
            sample_weight: [B], 0 where the label is missing.
            inputs: with the groups, as keys of users or candidates, or as an encoded feature.
        """
        weights, groups = inputs.groups_of(self.group, sample_weight)
        known = tf.where(weights > 0, labels, 0.0)
        return self.weight * self.of_rows(tf.cast(scores, tf.float32), known, weights, groups["groups"])

    def of_rows(self, scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
        """Return the loss of rows, a scalar; 0 if no group has rows with different labels.

        Args:
            scores, labels: [B], without NaN.
            weights: [B], 0 for rows that do not count.
            groups: [B], equal for rows of one group.
        """
        counted = weights > 0
        same = tf.equal(groups[:, tf.newaxis], groups[tf.newaxis]) & counted[:, tf.newaxis] & counted[tf.newaxis]
        return _KINDS[self.kind](self, scores, labels, weights, same)

    def _pairs(
        self, loss: Callable[[tf.Tensor], tf.Tensor], scores: Any, labels: Any, weights: Any, same: Any
    ) -> tf.Tensor:
        better = same & (labels[:, tf.newaxis] > labels[tf.newaxis])
        weight = tf.where(better, weights[:, tf.newaxis] * weights[tf.newaxis], 0.0)
        losses = loss(tf.where(better, scores[:, tf.newaxis] - scores[tf.newaxis], 0.0))
        return tf.math.divide_no_nan(tf.reduce_sum(weight * losses), tf.reduce_sum(weight))

    def _logistic(self, *rows: Any) -> tf.Tensor:
        return self._pairs(lambda difference: tf.nn.softplus(-difference), *rows)

    def _hinge(self, *rows: Any) -> tf.Tensor:
        return self._pairs(lambda difference: tf.nn.relu(1 - difference), *rows)

    def _softmax(self, scores: Any, labels: Any, weights: Any, same: Any) -> tf.Tensor:
        varies = tf.reduce_any(same & tf.not_equal(labels[:, tf.newaxis], labels[tf.newaxis]), axis=1)
        weight = tf.where(varies, weights * labels, 0.0)
        losses = _log_sum(scores, same) - scores
        return tf.math.divide_no_nan(tf.reduce_sum(weight * losses), tf.reduce_sum(weight))

    def _list_mle(self, scores: Any, labels: Any, weights: Any, same: Any) -> tf.Tensor:
        below = same & (labels[tf.newaxis] < labels[:, tf.newaxis])
        weight = tf.where(tf.reduce_any(below, axis=1), weights, 0.0)
        losses = _log_sum(scores, same & (labels[tf.newaxis] <= labels[:, tf.newaxis])) - scores
        return tf.math.divide_no_nan(tf.reduce_sum(weight * losses), tf.reduce_sum(weight))

    def _approx_ndcg(self, scores: Any, labels: Any, weights: Any, same: Any) -> tf.Tensor:
        rows = tf.range(tf.shape(scores)[0])
        others = same & tf.not_equal(rows[:, tf.newaxis], rows[tf.newaxis])
        above = tf.sigmoid((scores[tf.newaxis] - scores[:, tf.newaxis]) / self.temperature)
        rank = 1 + tf.reduce_sum(tf.where(others, above, 0.0), axis=1)
        more, equal = (f(labels[tf.newaxis], labels[:, tf.newaxis]) for f in (tf.greater, tf.equal))
        ahead = others & (more | (equal & (rows[tf.newaxis] < rows[:, tf.newaxis])))
        ideal_rank = 1 + tf.math.count_nonzero(ahead, axis=1, dtype=tf.float32)
        gain = weights * (tf.pow(2.0, labels) - 1)
        found, ideal = (gain * math.log(2.0) / tf.math.log1p(each) for each in (rank, ideal_rank))
        members = tf.cast(same, tf.float32)
        found, ideal = (tf.linalg.matvec(members, each) for each in (found, ideal))
        varies = tf.reduce_any(others & ~equal, axis=1) & (ideal > 0)
        share = tf.where(varies, tf.math.divide_no_nan(1.0, tf.reduce_sum(members, axis=1)), 0.0)
        return tf.math.divide_no_nan(
            tf.reduce_sum(share * (1 - tf.math.divide_no_nan(found, ideal))), tf.reduce_sum(share)
        )


def _log_sum(scores: tf.Tensor, allowed: tf.Tensor) -> tf.Tensor:
    """Return log sum_k exp(s_k) over the allowed rows k of each row [B]; the score itself if it has none."""
    alone = tf.eye(tf.shape(scores)[0], dtype=tf.bool)
    chosen = tf.where(allowed | alone, scores[tf.newaxis], scores.dtype.min)
    return tf.reduce_logsumexp(chosen, axis=1)


_KINDS: Mapping[str, Callable[..., tf.Tensor]] = {
    "logistic": GroupLoss._logistic,
    "hinge": GroupLoss._hinge,
    "softmax": GroupLoss._softmax,
    "list_mle": GroupLoss._list_mle,
    "approx_ndcg": GroupLoss._approx_ndcg,
}
