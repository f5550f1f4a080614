"""The encodings of features in a network: the first tensors with coordinates, at which gradients have a meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf, traced
from tfmtl.data import Batch
from tfmtl.data.frames import rows_of, rows_of_pass
from tfmtl.layers import CompressedEmbedding
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.layers.number_bins import NumberBins
from tfmtl.layers.tree_columns import TreeColumns
from tfmtl.models.cut import connections_kept
from tfmtl.models.graph import unwrapped
from tfmtl.types import Features

LOOK_UPS = (keras.layers.Embedding, JoinedEmbedding, CompressedEmbedding)
_COMPARISONS = (NumberBins, TreeColumns)


class Part(NamedTuple):
    """The columns of an encoding that belong to one feature.

    Attributes:
        tensor: position of the encoding.
        feature: name of the feature.
        start, end: columns of the encoding.
    """

    tensor: int
    feature: str
    start: int
    end: int


class Encodings:
    """A network cut at the encodings of its features.

    An encoding is a number as the network reads it, or the embedding that a table has for an index. The outputs depend
    on the encodings; they also depend on indices, which masks of lists and matches of candidates compare, and on
    numbers that bins and trees compare. Those keep the values of the row, because nothing lies between two of them.

    Args:
        network: functional network of a model.
        tasks: the outputs that are read.

    Attributes:
        features: the names of all features, in the order of the network's inputs.
        parts: the parts of the encodings that the outputs read.
        lists: the features of `parts` that are lists of ids with an encoding for each position.
    """

    def __init__(self, network: keras.Model, tasks: Sequence[str]) -> None:
        self._inputs = dict(network.input)
        self.features = list(self._inputs)
        outputs = {name: network.output[name] for name in tasks}
        names = {id(tensor): name for name, tensor in self._inputs.items()}
        calls = _calls(keras.Model(network.input, outputs))
        kept = [node.outputs for node, layer in calls if isinstance(layer, _COMPARISONS)]
        found = [(t, [(name, 0, int(t.shape[-1]))]) for name, t in self._inputs.items() if t.dtype.is_floating]
        found += [(node.outputs, _owners(node, layer, names)) for node, layer in calls if isinstance(layer, LOOK_UPS)]
        indices = {name: tensor for name, tensor in self._inputs.items() if not tensor.dtype.is_floating}
        read = _read(outputs, [*kept, *(tensor for tensor, _ in found), *indices.values()])
        found = [(tensor, owners) for tensor, owners in found if id(tensor) in read]
        kept = [tensor for tensor in kept if id(tensor) in read]
        indices = {name: tensor for name, tensor in indices.items() if id(tensor) in read}
        self.parts = [Part(i, *owner) for i, (_, owners) in enumerate(found) for owner in owners]
        self.lists = [
            name
            for name, tensor in self._inputs.items()
            if tensor.dtype.is_integer
            and len(tensor.shape) == 2
            and any(part.feature == name and len(found[part.tensor][0].shape) == 3 for part in self.parts)
        ]
        self._indices = list(indices)
        tensors = [tensor for tensor, _ in found]
        self._before = traced(_caller(keras.Model(network.input, [tensors, kept])), reduce_retracing=True)
        with connections_kept(network):
            self._behind = keras.Model([tensors, kept, indices], outputs)

    def of(self, features: Features) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return the encodings of rows, [B, d] or [B, length, d], and the compared tensors, which keep their values."""
        tensors, kept = self._before({name: features[name] for name in self._inputs})
        return tensors, kept

    def outputs(self, tensors: Sequence[tf.Tensor], kept: Sequence[tf.Tensor], features: Features) -> Any:
        """Return the outputs by task for encodings; `kept` and `features` are those of the rows."""
        indices = {name: features[name] for name in self._indices}
        return self._behind([list(tensors), list(kept), indices], training=False)

    def means(self, batch: Batch) -> list[np.ndarray]:
        """Return the mean of each encoding over rows [d], of a list over its entries that are not padding."""
        sums: list[Any] = []
        size, rows = rows_of_pass(batch.features), rows_of(batch)
        for start in range(0, rows, size):
            part = {name: column[start : start + size] for name, column in batch.features.items()}
            found = [_sums(tensor, self._mask(i, part)) for i, tensor in enumerate(self.of(part)[0])]
            sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, found, strict=True)] if sums else found
        return [total / np.maximum(count, 1) for total, count in sums]

    def _mask(self, tensor: int, features: Features) -> Any:
        """Return which entries of a list are present [B, length]; None for an encoding that is no list."""
        owners = [part.feature for part in self.parts if part.tensor == tensor]
        column = features[owners[0]]
        return column > 0 if len(column.shape) == 2 and column.dtype.is_integer else None


def _sums(tensor: tf.Tensor, mask: Any) -> tuple[np.ndarray, Any]:
    """Return the sum over rows and entries, and the number of summands."""
    values = tensor.numpy().astype(np.float64)
    if mask is None or values.ndim < 3:
        return values.sum(axis=0), len(values)
    present = mask.numpy()
    return (values * present[..., np.newaxis]).sum(axis=(0, 1)), present.sum()


def _calls(network: keras.Model) -> list[tuple[Any, keras.layers.Layer]]:
    """Return the nodes of a network with their layers, in the order of the network."""
    nodes = [node for depth in sorted(network._nodes_by_depth, reverse=True) for node in network._nodes_by_depth[depth]]
    return [(node, unwrapped(node.layer)) for node in nodes]


def _read(outputs: Any, cuts: Sequence[Any]) -> set[int]:
    """Return the ids of the cut tensors that symbolic outputs read, where nothing before a cut counts."""
    known, found, seen = {id(tensor) for tensor in cuts}, set(), set()
    left = list(tf.nest.flatten(outputs))
    while left:
        tensor = left.pop()
        if id(tensor) in known:
            found.add(id(tensor))
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            left += tensor.node.keras_inputs
    return found


def _owners(node: Any, layer: Any, names: Mapping[int, str]) -> list[tuple[str, int, int]]:
    """Return the features of a look-up with their columns."""
    if isinstance(layer, JoinedEmbedding):
        return [(name, i * layer.units, (i + 1) * layer.units) for i, name in enumerate(layer.sizes)]
    read = _inputs_before(node.keras_inputs, names)
    require(len(read) == 1, f"The look-up {layer.name!r} must read one feature to have an owner.", features=read)
    return [(read[0], 0, int(node.outputs.shape[-1]))]


def _inputs_before(tensors: Sequence[Any], names: Mapping[int, str]) -> list[str]:
    """Return the names of the inputs on which symbolic tensors depend."""
    found, left, seen = [], list(tensors), set()
    while left:
        tensor = left.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if id(tensor) in names:
            found.append(names[id(tensor)])
        left += tensor.node.keras_inputs
    return found


def _caller(model: keras.Model) -> Any:
    return lambda features: model(features, training=False)
