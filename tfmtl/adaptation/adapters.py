"""Adapters: small trainable layers in a trained network with all other layers frozen."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, seed_of
from tfmtl.adaptation.parts import layers_of
from tfmtl.layers import Adapter
from tfmtl.models.graph import is_wrapped


def with_adapters(network: keras.Model, bottleneck: int = 8, *, seed: int = 0) -> keras.Model:
    """Return a copy of a trained network with an adapter after each layer of the towers and each output of the trunk.

    Use it to specialize a large model to a market or a tenant with few weights per copy. Only the adapters and the
    heads of the copy are trainable. Until it is trained its outputs equal those of the network, and
    `model.with_network(with_adapters(model.network))` makes a model that trains, prunes and exports.

    Args:
        network: functional network from `build_network`, not wrapped for pruning; not changed.
        bottleneck: width of the adapters.
        seed: seed of their initial values.

    Raises:
        ValueError: if the network has neither towers nor a trunk, or has adapters already.

    Example:
        >>> inputs = keras.Input([3], name="x")
        >>> hidden = keras.layers.Dense(4, name="query_tower_0")(inputs)
        >>> network = keras.Model({"x": inputs}, {"t": keras.layers.Dense(1, name="t_output")(hidden)})
        >>> adapted = with_adapters(network, 2)
        >>> [layer.name for layer in adapted.layers if layer.trainable_weights]
        ['query_tower_0_adapter_0', 't_output']

    Reference:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, https://arxiv.org/abs/1902.00751.

    Cost: 2 d bottleneck + d + bottleneck weights per adapter of width d.
    """
    require_positive_int(bottleneck=bottleneck)
    wrapped = [layer.name for layer in network.layers if is_wrapped(layer)]
    require(not wrapped, f"The layers {wrapped} are wrapped for pruning; `strip` the network first.")
    require(not any(isinstance(layer, Adapter) for layer in network.layers), "The network has adapters already.")
    targets = [layer for part in ("towers", "trunk") for layer in layers_of(network, part)]
    require(
        bool(targets), "The network has neither towers nor a trunk to adapt.", layers=[v.name for v in network.layers]
    )
    config = _inserted(network.get_config(), {layer.name for layer in targets}, bottleneck, seed)
    adapted = keras.Model.from_config(config)
    for layer in network.layers:
        adapted.get_layer(layer.name).set_weights(layer.get_weights())
    kept = {layer.name for part in ("adapters", "heads") for layer in layers_of(adapted, part)}
    for layer in adapted.layers:
        layer.trainable = layer.name in kept
    return adapted


def _inserted(config: dict[str, Any], adapted: set[str], bottleneck: int, seed: int) -> dict[str, Any]:
    """Return the configuration of a functional network with adapters after the layers named in `adapted`."""
    made: dict[tuple[str, int, int], dict[str, Any]] = {}

    def redirect(value: Any) -> Any:
        if _is_reference(value) and value[0] in adapted:
            layer, node, tensor = value[:3]
            name = f"{layer}_adapter_{tensor}"
            adapter = Adapter(bottleneck, seed=seed_of(name, seed), name=name)
            made[layer, node, tensor] = {
                "module": Adapter.__module__, "class_name": "Adapter", "config": adapter.get_config(),
                "registered_name": "tfmtl>Adapter", "name": name, "inbound_nodes": [[[layer, node, tensor, {}]]],
            }  # fmt: skip
            return [name, 0, 0, *map(redirect, value[3:])]
        if isinstance(value, dict):
            return {key: redirect(part) for key, part in value.items()}
        return type(value)(map(redirect, value)) if isinstance(value, list | tuple) else value

    layers = [{**layer, "inbound_nodes": redirect(layer["inbound_nodes"])} for layer in config["layers"]]
    outputs = redirect(config["output_layers"])
    return {**config, "layers": [*layers, *made.values()], "output_layers": outputs}


def _is_reference(value: Any) -> bool:
    """Return whether a part of a configuration refers to a tensor by layer, node and output."""
    named = isinstance(value, list | tuple) and len(value) >= 3 and isinstance(value[0], str)
    return bool(named and isinstance(value[1], int) and isinstance(value[2], int))
