"""Where the columns of a network's tensors come from, so that kernels of two networks can be laid over each other."""

from __future__ import annotations

import collections
import re
from collections.abc import Hashable, Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.adaptation.parts import bare
from tfmtl.adaptation.tables import group_of, split_name
from tfmtl.layers import (
    Adapter,
    AttentionPooling,
    CompressedEmbedding,
    ContextGate,
    CrossNetwork,
    Dropout,
    Fusion,
    MaskedMean,
    MultiTaskLayer,
    SelfAttentionHistory,
    TargetAttention,
)
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.layers.marks import EncodingMark

Column = Hashable
_PASS = (Adapter, AttentionPooling, ContextGate, Dropout, EncodingMark, MaskedMean, SelfAttentionHistory)
_MIX = (keras.layers.Dense, MultiTaskLayer, Fusion, TargetAttention)  # outputs are what the weights make of all inputs


class Columns:
    """The origin of every column of a network.

    A column of an encoding is (group of tables, feature, place); a column of a layer's output is (the layer's identity,
    output, place). What only arranges columns (concatenation, dropout, poolings of a list's embeddings) passes them on.

    Args:
        network: functional network.
        vocabularies: names of the vocabularies.
    """

    def __init__(self, network: keras.Model, vocabularies: Sequence[str]) -> None:
        self._vocabularies = sorted(vocabularies, key=len, reverse=True)
        self.nodes = {node.layer.name: node for nodes in network._nodes_by_depth.values() for node in nodes}
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
        history = tensor._keras_history
        layer, node = bare(history.layer), history.layer._inbound_nodes[history.node_index]
        width = tensor.shape[-1] if tensor.shape.rank > 1 else 1
        if isinstance(layer, keras.layers.InputLayer):
            return [("", layer.name, i) for i in range(width)]
        if isinstance(layer, JoinedEmbedding):
            return [(group_of(layer), name, i) for name in layer.sizes for i in range(layer.units)]
        if isinstance(layer, keras.layers.Embedding | CompressedEmbedding):
            named = split_name(layer.name, self._vocabularies) or ("", layer.name)
            return [(named[0], _source(tensor), i) for i in range(width)]
        if isinstance(layer, keras.layers.Concatenate):
            return [column for part in node.keras_inputs for column in self.of(part)]
        if isinstance(layer, _PASS) and len(self.of(node.keras_inputs[0])) == width:
            return self.of(node.keras_inputs[0])
        identity: Column = self._identity.get(history.layer.name, layer.name)
        if isinstance(layer, CrossNetwork):
            own = self.of(node.keras_inputs[0])
            crossed: list[Column] = [(identity, column) for column in own]
            return [*own, *crossed] if layer.structure == "parallel" else crossed
        output: Any = history.tensor_index
        if isinstance(layer, MultiTaskLayer):
            output = sorted(layer.task_names)[output]  # Keras flattens a dict in the order of its keys
        if not isinstance(layer, _MIX):  # its columns may mean other things where its inputs do
            identity = identity, hash(tuple(tuple(self.of(part)) for part in node.keras_inputs))
        return [(identity, output, i) for i in range(width)]


def _source(tensor: Any) -> str:
    """Return the name of the input that the indices of an embedding come from."""
    layer, index = tensor._keras_history.layer, tensor._keras_history.node_index
    inputs = layer._inbound_nodes[index].keras_inputs
    return _source(inputs[0]) if inputs else str(layer.name)


def _identities(network: keras.Model) -> Any:
    """Yield each layer with what the same layer of another network has, too: its name, or its kind and place where the
    name is one that Keras counts up.
    """
    seen: collections.Counter[str] = collections.Counter()
    for layer in network.layers:
        own = bare(layer)
        kind = type(own).__name__
        snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", kind)).lower()
        if re.fullmatch(rf"_?{snake}(_\d+)?", own.name) or kind.endswith("OpLambda"):
            key = f"{kind} {own.name.rsplit('_', 1)[0]}" if kind.endswith("OpLambda") else kind
            seen[key] += 1
            yield (key, seen[key]), layer
        else:
            yield own.name, layer


def axes(
    layer: keras.layers.Layer, node: Any, inputs: Sequence[Sequence[Column]]
) -> list[dict[int, list[Column]] | None]:
    """Return, for each weight, the columns along those of its axes that are as long as an input is wide.

    Found by building the layer again with an input one column wider: the axes that grow are those. None stands for a
    weight of which that does not tell, since an axis grows with several inputs.
    """
    found: list[dict[int, list[Column]] | None] = [{} for _ in layer.weights]
    for place, columns in enumerate(inputs):
        wider = _built(type(layer), layer.get_config(), node, place)
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
    """Return, for each weight by name, what stands along those of its axes that hold as much for each task.

    Found by building the trunk with one task more: the axes that grow are those. None if that cannot be.
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
    """Return a layer's weights by their names inside of the layer, which must not depend on the layer's own name."""
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


def _built(kind: type, config: dict[str, Any], node: Any, place: int | None) -> keras.layers.Layer | None:
    """Return a new layer, called as the node's was, one of its inputs a column wider; None if that cannot be."""
    wider = {}
    for i, tensor in enumerate(node.keras_inputs):
        shape = list(tensor.shape[1:])
        if i == place and shape:
            shape[-1] += 1
        wider[str(id(tensor))] = [keras.Input(shape, dtype=tensor.dtype)]
    args, kwargs = node.map_arguments(wider)
    try:
        layer = kind.from_config(config)  # type: ignore[attr-defined]
        layer(*args, **kwargs)
    except (ValueError, TypeError, KeyError):  # not every layer can be as wide or have as many tasks
        return None
    return layer
