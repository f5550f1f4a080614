"""The base of what reads query and candidate together, in front of the trunk."""

from __future__ import annotations

import abc
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.marks import EncodingMark
from tfmtl.layers.trunks.base import FeatureEncodings


class Interaction(keras.layers.Layer, abc.ABC):
    """A part of the network that only tasks on pairs see: one encoding of the pair to the next.

    `build_network` connects its `interactions` one after the other; the trunk reads what the last one returns. A part
    may add to the encoding (`join`), replace it, or scale it, such as a gate by features of the context. The towers,
    and with them retrieval, never depend on it.

    Subclasses implement `connect`, and `call` as any layer does.

    Example:
        >>> class Gate(Interaction):
        ...     def connect(self, pair, features):
        ...         return self((pair, features.encode(["hour"])))
    """

    @abc.abstractmethod
    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        """Add this part to a network under construction.

        Args:
            pair: symbolic encoding of query, candidate and context [B, d], after the parts before this one.
            features: the network's features.

        Returns:
            The symbolic encoding [B, d'] that the parts after this one read.
        """

    def join(self, pair: Any, output: Any) -> Any:
        """Return the encoding [B, d + u] of a pair [B, d] with an output [B, u] beside it that the tasks share.

        The output is marked as an encoding: it comes from embeddings, past the marks of query, candidate and context.
        """
        marked = EncodingMark(name=f"{self.name}_mark")(output)
        return keras.layers.Concatenate(name=f"{self.name}_pair")([pair, marked])

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels; the model-optimization toolkit asks by this name."""
        return [v for v in self.trainable_weights if "kernel" in v.name]
