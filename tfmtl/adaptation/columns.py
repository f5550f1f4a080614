"""The origin of each column of a network's tensors, by which the kernels of two networks are aligned."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.adaptation.graph import layer_of, nodes_of, output_key, read_by
from tfmtl.adaptation.parts import TABLES
from tfmtl.adaptation.tables import group_of, split_name
from tfmtl.layers import MultiTaskLayer
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.models.graph import keras_name, unwrapped
from tfmtl.types import Column


class Columns:
    """The origin of every column of a network.

    A column of an embedding is (group of tables, feature, index). Every other layer names its own: by
    `tfmtl.types.HasColumnSources`, or by the defaults for the layers of Keras in `default_sources`.

    Args:
        network: functional network.
        vocabularies: names of the vocabularies.
    """

    def __init__(self, network: keras.Model, vocabularies: Sequence[str]) -> None:
        self._vocabularies = sorted(vocabularies, key=len, reverse=True)
        self.nodes = nodes_of(network)
        self.layers = dict(_identities(network))
        self._identity = {layer.name: identity for identity, layer in self.layers.items()}
        self._known: dict[int, list[Column]] = {}

    def inputs_of(self, layer: keras.layers.Layer) -> list[list[Column]]:
        """Return the columns of each tensor that a layer reads."""
        return [self.of(tensor) for tensor in self.nodes[layer.name].keras_inputs]

    def of(self, tensor: Any) -> list[Column]:
        """Return the columns of a symbolic tensor [B, ..., columns]."""
        if id(tensor) not in self._known:
            self._known[id(tensor)] = self._trace(tensor)
        return self._known[id(tensor)]

    def _trace(self, tensor: Any) -> list[Column]:
        named, layer = layer_of(tensor), unwrapped(layer_of(tensor))
        width = tensor.shape[-1] if tensor.shape.rank > 1 else 1
        if isinstance(layer, keras.layers.InputLayer):
            return [("", layer.name, i) for i in range(width)]
        if isinstance(layer, JoinedEmbedding):
            return [(group_of(layer), name, i) for name in layer.sizes for i in range(layer.units)]
        if isinstance(layer, TABLES):
            group, _ = split_name(layer.name, self._vocabularies) or ("", "")
            return [(group, _source(tensor), i) for i in range(width)]
        identity, output = self._identity.get(named.name, layer.name), output_key(tensor)
        own: list[Column] = [(identity, output, i) for i in range(width)]
        inputs = [self.of(read) for read in read_by(tensor)]
        if hasattr(layer, "column_sources"):
            found = list(layer.column_sources(inputs, own))
            if len(found) == width:
                return found
        return default_sources(layer, inputs, own)


def default_sources(
    layer: keras.layers.Layer, inputs: Sequence[Sequence[Column]], own: Sequence[Column]
) -> list[Column]:
    """Return the origin of the output columns of a layer without `column_sources`.

    A concatenation has the columns of its inputs. A dense layer has its own columns, since it computes each from all
    inputs by trained weights. The columns of any other layer are equal in two networks only if its inputs are.

    Args:
        layer: not a table.
        inputs: columns of each tensor that it reads.
        own: (layer, output, index) for each column of the output.
    """
    if isinstance(layer, keras.layers.Concatenate):
        return [column for part in inputs for column in part]
    if isinstance(layer, keras.layers.Dense):
        return list(own)
    read = hash(tuple(tuple(part) for part in inputs))
    return [(column, read) for column in own]


def _source(tensor: Any) -> str:
    """Return the name of the input that the indices of an embedding come from."""
    inputs = read_by(tensor)
    return _source(inputs[0]) if inputs else str(layer_of(tensor).name)


def _identities(network: keras.Model) -> Iterator[tuple[Column, keras.layers.Layer]]:
    """Yield each layer with an identity that it also has in another network.

    The identity is its name, or its class and position among the layers of that class if Keras numbered the name.
    """
    seen: collections.Counter[str] = collections.Counter()
    for layer in network.layers:
        own = unwrapped(layer)
        kind = type(own).__name__
        if keras_name(layer) is not None or kind.endswith("OpLambda"):
            key = f"{kind} {re.sub(r'_[0-9]+$', '', own.name)}" if kind.endswith("OpLambda") else kind
            seen[key] += 1
            yield (key, seen[key]), layer
        else:
            yield own.name, layer


def axes(
    layer: keras.layers.Layer, node: Any, inputs: Sequence[Sequence[Column]]
) -> list[dict[int, list[Column]] | None]:
    """Return, for each weight, the columns along those of its axes that are as long as an input is wide.

    To find these axes the layer is built again with an input one column wider: they are the ones that grow. The result
    is None for a weight with an axis that grows with several inputs.
    """
    found: list[dict[int, list[Column]] | None] = [{} for _ in layer.weights]
    for index, columns in enumerate(inputs):
        wider = _built(type(layer), layer.get_config(), node, index)
        if wider is None or len(wider.weights) != len(found):
            return [None] * len(found)
        for i, (weight, other) in enumerate(zip(layer.weights, wider.weights, strict=True)):
            for axis in _grown(weight, other):
                along = found[i]
                if along is not None and axis not in along and len(columns) == weight.shape[axis]:
                    along[axis] = list(columns)
                else:
                    found[i] = None
    return found


def task_axes(trunk: MultiTaskLayer, node: Any) -> dict[str, dict[int, list[Column]]] | None:
    """Return, for each weight by name, the (task, index) along those of its axes that hold equal parts for all tasks.

    To find these axes the trunk is built with one task more: they are the ones that grow. None if it cannot be built.
    """
    config = trunk.get_config()
    more = _built(type(trunk), {**config, "task_names": [*trunk.task_names, "another"]}, node, None)
    if more is None:
        return None
    others = weights_of(more)
    tasks = trunk.task_names
    found: dict[str, dict[int, list[Column]]] = {}
    for name, weight in weights_of(trunk).items():
        if name not in others or others[name].shape.rank != weight.shape.rank:
            continue
        grown = _grown(weight, others[name])
        each = {axis: others[name].shape[axis] - weight.shape[axis] for axis in grown}
        if all(weight.shape[axis] == n * len(tasks) for axis, n in each.items()):
            found[name] = {axis: [(task, i) for task in tasks for i in range(n)] for axis, n in each.items()}
    return found


def weights_of(layer: keras.layers.Layer) -> dict[str, tf.Variable]:
    """Return a layer's weights by their names without the layer's own name, which differs between networks."""
    found: dict[str, tf.Variable] = {}
    counter: collections.Counter[str] = collections.Counter()
    for weight in layer.weights:
        name = weight.name.split(":")[0].removeprefix(f"{layer.name}/")
        counter[name] += 1
        found[name if counter[name] == 1 else f"{name} {counter[name]}"] = weight
    return found


def _grown(weight: tf.Variable, other: tf.Variable) -> list[int]:
    if weight.shape.rank != other.shape.rank:
        return []
    return [axis for axis, (n, m) in enumerate(zip(weight.shape, other.shape, strict=True)) if m != n]


def _built(kind: type, config: dict[str, Any], node: Any, index: int | None) -> keras.layers.Layer | None:
    """Return a new layer called like the node's, with one input a column wider; None if that fails."""
    wider = {}
    for i, tensor in enumerate(node.keras_inputs):
        shape = list(tensor.shape[1:])
        if i == index and shape:
            shape[-1] += 1
        wider[str(id(tensor))] = [keras.Input(shape, dtype=tensor.dtype)]
    args, kwargs = node.map_arguments(wider)
    try:
        layer = kind.from_config(config)  # type: ignore[attr-defined]
        layer(*args, **kwargs)
    except (ValueError, TypeError, KeyError):  # not every layer takes a wider input or another task
        return None
    return layer
