"""Smaller embedding tables instead of trained ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfmtl._checks import require, require_known
from tfmtl._keras import keras
from tfmtl.layers import CompressedEmbedding

Make = Callable[..., CompressedEmbedding]
"""(input_dim, output_dim, name=..., activity_regularizer=...) -> layer."""


def shrink_tables(network: keras.Model, tables: Mapping[str, Make]) -> keras.Model:
    """Return a copy of a network with smaller embedding tables that approximate the trained ones.

    Train or distil the copy afterwards to recover the accuracy that the approximation costs.

    Args:
        network: functional network, not changed.
        tables: by name of a `keras.layers.Embedding`, the class that replaces it, with its arguments bound. A
            `JoinedEmbedding` of many small vocabularies is small already and stays.

    Raises:
        ValueError: if a layer is unknown or no embedding table, or a class makes something else than a
            `CompressedEmbedding`.

    Example:
        >>> import functools
        >>> from tfmtl.layers import LowRankEmbedding
        >>> indices = keras.Input([], dtype="int32")
        >>> network = keras.Model(indices, keras.layers.Embedding(1000, 32, name="movie_id_embedding")(indices))
        >>> small = shrink_tables(network, {"movie_id_embedding": functools.partial(LowRankEmbedding, rank=4)})
        >>> network.count_params(), small.count_params()
        (32000, 4128)

    Cost: a singular value decomposition or a few passes over each table; no data.
    """
    known = {layer.name: layer for layer in network.layers if type(layer) is keras.layers.Embedding}
    require_known(tables, known, "layer", "`tables` (the embedding tables of the network)")
    require(bool(tables), "`tables` must name an embedding table.", tables=sorted(known))

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name not in tables:
            return type(layer).from_config(layer.get_config())
        around: dict[str, Any] = {"name": layer.name, "activity_regularizer": layer.activity_regularizer}
        made = tables[layer.name](layer.input_dim, layer.output_dim, **around)
        require(
            isinstance(made, CompressedEmbedding),
            f"`tables[{layer.name!r}]` must make a CompressedEmbedding.",
            type=type(made).__name__,
        )
        return made

    copy = keras.models.clone_model(network, clone_function=replace)
    for layer in network.layers:
        if layer.name in tables:
            copy.get_layer(layer.name).fit_to(layer.embeddings.numpy())
        else:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy
