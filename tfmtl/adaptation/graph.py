"""The graph of a functional Keras network; no other module of this package reads Keras' private attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfmtl._keras import keras


def nodes_of(network: keras.Model) -> dict[str, Any]:
    """Return the node at which each layer is called, by the layer's name."""
    return {node.layer.name: node for nodes in network._nodes_by_depth.values() for node in nodes}


def layer_of(tensor: Any) -> keras.layers.Layer:
    """Return the layer that makes a symbolic tensor.

    Example:
        >>> layer_of(keras.layers.Dense(2, name="hidden")(keras.Input([3]))).name
        'hidden'
    """
    return tensor._keras_history.layer


def read_by(tensor: Any) -> list[Any]:
    """Return the symbolic tensors that the layer of `tensor` reads; empty for an input of the network."""
    history = tensor._keras_history
    inputs: list[Any] = history.layer._inbound_nodes[history.node_index].keras_inputs
    return inputs


def output_key(tensor: Any) -> Any:
    """Return the key of a symbolic tensor among the outputs of its layer, or its position in them."""
    history = tensor._keras_history
    outputs = history.layer.get_output_at(history.node_index)
    # Keras flattens a dict in the order of its keys.
    return sorted(outputs)[history.tensor_index] if isinstance(outputs, dict) else history.tensor_index


def inputs_before(tensor: Any) -> Iterator[str]:
    """Yield the names of the network's inputs that a symbolic tensor depends on."""
    layer = layer_of(tensor)
    if isinstance(layer, keras.layers.InputLayer):
        yield layer.name
    for read in read_by(tensor):
        yield from inputs_before(read)
