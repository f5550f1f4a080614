"""The embedding tables of a network, each a layer, a range of rows of a joined layer, or a compressed layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl._names import layer_name
from tfmtl.adaptation.graph import inputs_before
from tfmtl.layers import CompressedEmbedding
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.models.graph import unwrapped

_SHARED = ("query", "candidate", "context", "shared")


@dataclasses.dataclass(frozen=True)
class EmbeddingTable:
    """The embedding table of one vocabulary.

    Attributes:
        vocabulary: name of the vocabulary.
        group: name of the set of tables that it belongs to, such as a task's own; "" for the shared ones.
        layer: the layer with its weights.
        first, size: first row and number of rows in the layer's weights.
    """

    vocabulary: str
    group: str
    layer: keras.layers.Layer
    first: int
    size: int

    @property
    def key(self) -> tuple[str, str]:
        """The key by which it is found in another network."""
        return self.group, self.vocabulary

    def read(self) -> np.ndarray:
        """Return the rows [size, d]."""
        if isinstance(self.layer, CompressedEmbedding):
            rows: np.ndarray = self.layer(tf.range(self.size)).numpy()
        else:
            rows = self.layer.embeddings.numpy()[self.first : self.first + self.size]
        return rows

    def write(self, rows: np.ndarray) -> None:
        """Set the rows [size, d]; a compressed table approximates them."""
        if isinstance(self.layer, CompressedEmbedding):
            self.layer.fit_to(rows)
            return
        values = self.layer.embeddings.numpy()
        values[self.first : self.first + self.size] = rows
        self.layer.embeddings.assign(values)


def tables_of(network: keras.Model, vocabularies: Iterable[str]) -> dict[tuple[str, str], EmbeddingTable]:
    """Return the tables of the vocabularies by key."""
    longest_first = sorted(vocabularies, key=len, reverse=True)
    found = (table for layer in network.layers for table in _of(layer, longest_first))
    return {table.key: table for table in found}


def group_of(joined: JoinedEmbedding) -> str:
    """Return the name of the group that a joined table belongs to."""
    group = joined.name.rsplit("_embedding_", 1)[0]
    first, last = group.split("_")[0], group.rsplit("_", 1)[-1]
    return "" if first in _SHARED else group.removesuffix(f"_{last}") if last in _SHARED else group


def split_name(name: str, vocabularies: Iterable[str]) -> tuple[str, str] | None:
    """Return group and vocabulary of a table by the name of its layer, or None if it has no vocabulary."""
    for vocabulary in vocabularies:
        own = layer_name(f"{vocabulary}_embedding")
        if name == own:
            return "", vocabulary
        if name.endswith(f"_{own}"):
            return name.removesuffix(f"_{own}"), vocabulary
    return None


def _of(named: keras.layers.Layer, vocabularies: list[str]) -> Iterator[EmbeddingTable]:
    layer = unwrapped(named)
    if isinstance(layer, JoinedEmbedding):
        first = 0
        for name, size in layer.sizes.items():
            yield EmbeddingTable(name, group_of(layer), layer, first, size)
            first += size
    elif isinstance(layer, keras.layers.Embedding | CompressedEmbedding):
        # The table `buy_user` may be that of `user` in the group `buy`, or that of the feature `buy_user`.
        nodes = range(len(named.inbound_nodes))
        read = {name for node in nodes for name in inputs_before(named.get_input_at(node))}
        found = split_name(layer.name, sorted(vocabularies, key=lambda name: name not in read))
        if found is not None:
            yield EmbeddingTable(found[1], found[0], layer, 0, layer.input_dim)
