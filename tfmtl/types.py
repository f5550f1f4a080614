"""Aliases that all packages share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, TypeAlias

import tensorflow as tf

Features: TypeAlias = Mapping[str, tf.Tensor]
"""Feature tensors by feature name; dimension 0 is the batch."""

Outputs: TypeAlias = Mapping[str, "tf.Tensor | Mapping[str, tf.Tensor]"]
"""Network outputs by task name; a retrieval task's output is `{"query": [B, K d], "candidate": [B, d]}`, with K = 1
unless its queries have several vectors."""

Column: TypeAlias = Hashable
"""The origin of one column of a tensor [B, ..., columns], such as ("", "user", 3): equal in two networks for columns of
equal meaning."""


class HasColumnSources(Protocol):
    """A layer that names the origin of its output's columns, so that `warm_start` can align the weights that read them.

    Implement it in a layer that may read other columns in the new network than in the old one, such as a pooling over
    wider embeddings. The columns of a layer without it depend on all of its inputs together: weights that read it are
    taken over only if both networks have the same inputs there.

    Example: a pooling of a list's embeddings keeps the meaning of each column.

        >>> class Last:
        ...     def column_sources(self, inputs, own):
        ...         return inputs[0]
        >>> Last().column_sources([["a", "b"], ["index"]], ["x", "y"])
        ['a', 'b']
    """

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the origin of each column of an output.

        Args:
            inputs: columns of each tensor that the layer reads, in Keras' flat order.
            own: (layer, output, index) for each column of the output; return it if the layer's weights make every
                column from all inputs, as those of a dense layer do.
        """
