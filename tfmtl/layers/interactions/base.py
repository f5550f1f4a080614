"""The base of layers that read query and candidate together, before the trunk."""

from __future__ import annotations

import abc
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.marks import EncodingMark
from tfmtl.layers.trunks.base import FeatureEncodings


class Interaction(keras.layers.Layer, abc.ABC):
    """Maps the encoding of the pair to another one, between the towers and the trunk.

    Use one when ranking should depend on products of query and candidate features. `build_network` connects its
    `interactions` one after the other, and the trunk reads the output of the last one. An interaction may add to the
    encoding (`join`), replace it, or scale it, such as a gate by features of the context. The towers, and with them
    retrieval, never depend on it.

    Subclasses implement `connect`, and `call` as any layer does.

    Example:
        >>> class Gate(Interaction):
        ...     def connect(self, pair, features):
        ...         return self((pair, features.encode(["hour"])))
    """

    @abc.abstractmethod
    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        """Add this interaction to a network under construction.

        Args:
            pair: symbolic encoding of query, candidate and context [B, d], after the preceding interactions.
            features: the network's features.

        Returns:
            The symbolic encoding [B, d'] that the next interaction or the trunk reads.
        """

    def join(self, pair: Any, output: Any) -> Any:
        """Return the concatenation [B, d + u] of the encoding of a pair [B, d] and an output [B, u].

        The output is marked as an encoding that the tasks share, since it reads embeddings before they are marked.
        """
        marked = EncodingMark(name=f"{self.name}_mark")(output)
        return keras.layers.Concatenate(name=f"{self.name}_pair")([pair, marked])

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [v for v in self.trainable_weights if "kernel" in v.name]
