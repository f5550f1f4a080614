"""A network cut at its marks, so that a repeated pass computes nothing before the encodings."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.marks import EncodingMark, active_marks
from tfmtl.models.graph import unwrapped

_parts: weakref.WeakKeyDictionary[keras.Model, tuple[keras.Model, list[str]]] = weakref.WeakKeyDictionary()


def run(network: keras.Model, features: Mapping[str, tf.Tensor], training: bool | None) -> Any:
    """Return the outputs of a network for encoded features; in a repeated pass, compute only its part after the marks.

    Args:
        network: functional network with a dict of inputs.
        features: encoded features, of which the network reads its inputs.
        training: as for any layer.
    """
    marks = active_marks()
    if marks is None or marks.given is None:
        return network({name: features[name] for name in network.input}, training=training)
    if network not in _parts:
        # Inside a training step Keras would connect layers as if in training; another thread is outside.
        with ThreadPoolExecutor(1) as outside:
            _parts[network] = outside.submit(_after_marks, network).result()
    part, layers = _parts[network]
    given = {_key(layer): marks.encode(layer, None) for layer in layers}
    return part({name: given[name] if name in given else features[name] for name in part.input}, training=training)


def _after_marks(network: keras.Model) -> tuple[keras.Model, list[str]]:
    """Return the part of a network from its marks to its outputs, and the names of the layers of the marks.

    The part also reads the features that reach an output past the marks. The layers are those of the network.
    """
    nodes, ends, left = {}, {}, [tensor.node for tensor in tf.nest.flatten(network.output)]
    while left:
        node = left.pop()
        if isinstance(unwrapped(node.layer), EncodingMark):
            ends[node.layer.name] = node.outputs  # a layer of a pruned network also has an output in another one
        elif id(node) not in nodes:
            nodes[id(node)] = node
            left += [tensor.node for tensor in node.keras_inputs]
    reached = {id(node.layer) for node in nodes.values()}
    inputs = {name: tensor for name, tensor in network.input.items() if id(tensor.node.layer) in reached}
    inputs |= {_key(layer): tensor for layer, tensor in ends.items()}
    with connections_kept(network):
        part = keras.Model(inputs, network.output, name=network.name)
    return part, list(ends)


def _key(layer: str) -> str:
    return f"encoding of {layer}"


@contextlib.contextmanager
def connections_kept(network: keras.Model) -> Iterator[None]:
    """Remove the connections that the block adds to layers: a layer with several has no `input` and `output`."""
    lists = [nodes for layer in network.layers for nodes in (layer.inbound_nodes, layer.outbound_nodes)]
    counts = [len(nodes) for nodes in lists]
    yield
    for nodes, count in zip(lists, counts, strict=True):
        del nodes[count:]
