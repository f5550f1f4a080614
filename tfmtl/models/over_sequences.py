"""A network over sequences with the layers of a network over single rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.data import IdSequence, Schema
from tfmtl.data.sequences import PLACES
from tfmtl.layers.poolings.prefixes import AtPositions


def over_sequences(network: keras.Model, schema: Schema) -> keras.Model:
    """Return a network that computes the output of every event of a sequence in one pass.

    An event has the same output as a row with the history before it. The poolings of histories compute the vectors of
    all prefixes of a sequence at once; all later layers see one row per event. All layers are those of `network`.

    Args:
        network: from `build_network`.
        schema: names the histories.

    Returns:
        A functional model from the inputs of `tfmtl.data.sequences.events_of`, histories [R, length], positions [n] and
        all other features [n, ...], to the outputs of `network` [n, ...].

    Raises:
        ValueError: if a layer other than a pooling with `prefixes` reads a history.
    """
    # Inside a training step Keras would connect layers as if in training and keep the losses of symbolic rows, such as
    # penalties on embeddings; another thread is outside.
    with ThreadPoolExecutor(1) as outside:
        return outside.submit(_connected, network, schema).result()


def _connected(network: keras.Model, schema: Schema) -> keras.Model:
    histories = [name for name, feature in schema.features.items() if isinstance(feature, IdSequence)]
    readers = [layer for layer in network.layers if hasattr(layer, "prefixes")]
    lists = {name: network.input[name] for name in histories}
    rest = {name: tensor for name, tensor in network.input.items() if name not in lists}
    rest = {name: tensor for name, tensor in rest.items() if tensor.node.layer.outbound_nodes}  # Keras refuses others
    cure = "reads a history in another way than by a pooling with `prefixes`; train it on single rows"
    try:
        before = keras.Model(lists, [layer.input for layer in readers], name="histories")
        behind = keras.Model([rest, [layer.output for layer in readers]], network.output, name="events")
    except ValueError as error:  # Keras found no path from these inputs
        raise ValueError(f"Sequences cannot train this network: part of it {cure}.") from error
    require(bool(readers), f"Sequences cannot train this network: all of it {cure}.")
    lists = {name: keras.Input(t.shape[1:], dtype=t.dtype, name=name) for name, t in lists.items()}
    rest = {name: keras.Input(t.shape[1:], dtype=t.dtype, name=name) for name, t in rest.items()}
    places = keras.Input([], dtype=tf.int32, name=PLACES)
    states = [
        AtPositions(layer, name=f"{layer.name}_at_places")((*read, places))
        for layer, read in zip(readers, before(lists), strict=True)
    ]
    return keras.Model({**lists, **rest, PLACES: places}, behind([rest, states]), name="network_over_sequences")
