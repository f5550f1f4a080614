"""A functional network read as a graph, and the state of the balancer and the tasks around it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, tf


def unwrapped(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return the layer inside a pruning wrapper; any other layer as it is.

    Use it before checking the class of a layer, because a network may be pruned.
    """
    return layer.layer if is_wrapped(layer) else layer


def is_wrapped(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a pruning wrapper of the model-optimization toolkit."""
    return hasattr(layer, "pruning_vars")


def keras_name(layer: keras.layers.Layer) -> str | None:
    """Return the name that Keras gives to layers of this class, without a number; None if the layer has another.

    Keras counts the layers of a process, so that the number differs between two equal networks.

    Example:
        >>> keras_name(keras.layers.Dense(2)), keras_name(keras.layers.Dense(2, name="hidden"))
        ('dense', None)
    """
    kind = type(unwrapped(layer)).__name__
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", kind)).lower()
    return snake if re.fullmatch(rf"_?{snake}(_\d+)?", unwrapped(layer).name) else None


def ancestors(network: keras.Model, tensors: Any) -> keras.Model:
    """Return the part of a network that computes some of its symbolic tensors.

    Its `layers` and `trainable_variables` are those that the tensors depend on.

    Args:
        network: functional network.
        tensors: a tensor, or a structure of tensors.

    Example:
        >>> inputs = keras.Input([3])
        >>> hidden = keras.layers.Dense(2, name="hidden")(inputs)
        >>> network = keras.Model(inputs, keras.layers.Dense(1, name="head")(hidden))
        >>> [layer.name for layer in ancestors(network, hidden).layers][1:]
        ['hidden']
    """
    return keras.Model(network.inputs, tf.nest.flatten(tensors))


def distinct_inputs(inputs: Mapping[str, Any], outputs: Any) -> None:
    """Rename inputs that have the name of another layer, such as the feature `user_unknown` beside `user`.

    Keras refuses two layers of one name. The keys of a network's dict of inputs do not change.

    Args:
        inputs: symbolic inputs by feature name.
        outputs: the structure of symbolic tensors that a network computes from them.
    """
    own = {id(tensor.node.layer): tensor.node.layer for tensor in inputs.values()}
    names = {layer.name for layer in _layers_before(tf.nest.flatten(outputs)) if id(layer) not in own}
    for layer in own.values():
        while layer.name in names:
            layer._name += "_input"
        names.add(layer.name)


def _layers_before(tensors: Sequence[Any]) -> list[keras.layers.Layer]:
    """Return the layers on which symbolic tensors depend."""
    nodes, left = {}, [tensor.node for tensor in tensors]
    while left:
        node = left.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            left += [tensor.node for tensor in node.keras_inputs]
    return [node.layer for node in nodes.values()]


def state_of(parts: Sequence[keras.layers.Layer]) -> list[tf.Variable]:
    """Return the variables of balancers and tasks, except those of their metrics."""
    of_metrics = {id(variable) for part in parts for metric in part.metrics for variable in metric.variables}
    return [v for part in parts for v in part.weights if id(v) not in of_metrics]


def adopt(state: Sequence[tf.Variable], other: Sequence[tf.Variable]) -> None:
    """Copy the values of another state into variables of the same shape; counts that grew keep their first values."""
    for own, theirs in zip(state, other, strict=True):
        if own.shape == theirs.shape:
            own.assign(theirs)
        elif own.name.split(":")[0].endswith("counts"):
            own.assign(tf.concat([theirs, own[theirs.shape[0] :]], axis=0))
