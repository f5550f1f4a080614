"""The inputs of a task's loss in addition to labels and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tfmtl._checks import require
from tfmtl._identity import FIRST, NO_KEY
from tfmtl._keras import tf
from tfmtl.types import Features


class CandidateIds(NamedTuple):
    """The candidates of rows, by identity and by embedding row.

    Attributes:
        keys: int64 [n], equal for the same candidate only; -1 where the id is missing. See `tfmtl.data.keys_of`.
        indices: int32 encoded ids [n]; all ids outside the vocabulary have one index.
    """

    keys: tf.Tensor
    indices: tf.Tensor


@dataclasses.dataclass(frozen=True)
class LossInputs:
    """The inputs of a task's loss in addition to labels and outputs.

    Attributes:
        features: encoded features of the batch.
        candidate_ids: the candidates of the rows [B], or None without candidates.
        negatives: further candidates as a pair (output "candidate" of this task [n, d], ids [n]), or None. For a task
            that `needs_corpus` they are the whole corpus.
        training: whether the loss is that of a training step.
        labels: the labels of all tasks [B], NaN where missing.
        keys: int64 keys [B] of the users and candidates, by the names of the features that identify them.
        positions: positions [B] of the rows' candidates in the corpus, -1 outside it, for a task that `needs_corpus`.
        num_candidates: number of candidates in the corpus from which `negatives` come.
        negative_shares: from keys [n] to the probabilities [n] of these candidates in a draw of `negatives`, or None if
            they are drawn uniformly.
    """

    features: Features
    candidate_ids: CandidateIds | None = None
    negatives: tuple[tf.Tensor, CandidateIds] | None = None
    training: bool = False
    labels: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)
    positions: tf.Tensor | None = None
    num_candidates: int | None = None
    negative_shares: Callable[[tf.Tensor], tf.Tensor] | None = None

    def groups_of(self, feature: str, weight: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the weights [B] of the rows in a metric of groups, 0 without a group, and its argument `groups` [B].

        Args:
            feature: name of the feature with the group of each row.
            weight: weights [B] of the rows.
        """
        if feature in self.keys:
            keys = tf.convert_to_tensor(self.keys[feature])
            return tf.where(tf.equal(keys, NO_KEY), 0.0, weight), {"groups": keys}
        groups = self.features[feature]
        return tf.where(groups >= FIRST, weight, 0.0), {"groups": groups}

    def keys_of(self, feature: str) -> tf.Tensor:
        """Return int64 keys [B] of the values of a feature of ids; -1 where it is missing or outside the vocabulary.

        Raises:
            ValueError: if the rows have no such feature.
        """
        rule = f"The rows have no feature {feature!r} that identifies their queries."
        require(feature in self.keys or feature in self.features, rule, known=[*self.keys, *self.features])
        if feature in self.keys:
            return tf.convert_to_tensor(self.keys[feature])
        values = tf.cast(self.features[feature], tf.int64)
        return tf.where(values >= FIRST, values, NO_KEY)
