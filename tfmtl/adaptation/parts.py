"""The parts of a network by name: embeddings, towers, trunk, heads, the head of a task, or layers by pattern."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from tfmtl._checks import require, require_known
from tfmtl._keras import keras, tf
from tfmtl.layers import Adapter, CompressedEmbedding, Interaction, MultiTaskLayer
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.models.graph import ancestors, unwrapped

PARTS = ("embeddings", "encoders", "towers", "trunk", "adapters", "heads")
"""Every layer with weights is in exactly one; `encoders` are the poolings and fusions before the towers."""

TABLES = (keras.layers.Embedding, JoinedEmbedding, CompressedEmbedding)
"""Layers that embed indices."""

_TOWER = re.compile(r"(\w+_)?(query|candidate)_tower_\d+")


def layers_of(network: keras.Model, parts: str | Sequence[str] = "all") -> list[keras.layers.Layer]:
    """Return the layers with weights in parts of a network, in the network's order.

    Args:
        network: from `build_network`.
        parts: one or more of `"embeddings"`, `"encoders"`, `"towers"`, `"trunk"`, `"adapters"`, `"heads"`, `"all"`; the
            name of a task for its head; or a pattern of layer names such as `"query_tower_*"`.

    Raises:
        ValueError: if a name is neither a part nor a task and matches no layer.

    Example:
        >>> inputs = keras.Input([3])
        >>> hidden = keras.layers.Dense(2, name="query_tower_0")(inputs)
        >>> network = keras.Model(inputs, {"t": keras.layers.Dense(1, name="t_output")(hidden)})
        >>> [layer.name for layer in layers_of(network, ["towers", "t"])]
        ['query_tower_0', 't_output']
    """
    wanted = [parts] if isinstance(parts, str) else list(parts)
    part_of = _part_of(network)
    chosen = {name for part in wanted for name in _named(network, part, part_of)}
    return [layer for layer in network.layers if layer.name in chosen]


def variables_of(layers: Sequence[keras.layers.Layer]) -> list[tf.Variable]:
    """Return the variables of layers that are trained unless a layer is frozen, each once."""
    return list({id(v): v for layer in layers for v in layer.weights if v.trainable}.values())


def _named(network: keras.Model, part: str, part_of: dict[str, str]) -> list[str]:
    if part == "all":
        return list(part_of)
    if part in PARTS:
        return [name for name, own in part_of.items() if own == part]
    if part in network.output:
        return _own_head(network, part, part_of)
    found = fnmatch.filter(part_of, part)
    if not found:
        require_known([part], [*PARTS, "all", *network.output, *part_of], "part", "the network")
    return found


def _part_of(network: keras.Model) -> dict[str, str]:
    """Return the part of each layer that has weights, by layer name."""
    layers = [(layer, unwrapped(layer)) for layer in network.layers if any(v.trainable for v in layer.weights)]
    middle = [layer for layer, own in layers if _is_tower(own) or isinstance(own, MultiTaskLayer | Interaction)]
    before_trunk = (
        {id(layer) for layer in ancestors(network, [layer.input for layer in middle]).layers} if middle else set()
    )
    return {layer.name: _kind(own, id(layer) in before_trunk) for layer, own in layers}


def _kind(layer: keras.layers.Layer, before_trunk: bool) -> str:
    if isinstance(layer, TABLES):
        return "embeddings"
    if isinstance(layer, Adapter):
        return "adapters"
    if isinstance(layer, MultiTaskLayer | Interaction):
        return "trunk"
    if _is_tower(layer):
        return "towers"
    return "encoders" if before_trunk else "heads"


def _is_tower(layer: keras.layers.Layer) -> bool:
    return _TOWER.fullmatch(layer.name) is not None


def _own_head(network: keras.Model, task: str, part_of: dict[str, str]) -> list[str]:
    """Return the layers of a task's head without those of the tasks that it depends on."""
    heads = {
        name: {layer.name for layer in ancestors(network, output).layers if part_of.get(layer.name) == "heads"}
        for name, output in network.output.items()
    }
    own = heads[task]
    before = {layer for name, layers in heads.items() if name != task and layers < own for layer in layers}
    found = [name for name in part_of if name in own - before]
    require(bool(found), f"Task {task!r} has no weights of its own.", heads=sorted(own))
    return found
