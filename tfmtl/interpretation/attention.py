"""The attention weights of a trained model on single rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require_known, require_type
from tfmtl._keras import keras
from tfmtl.data.source import as_source
from tfmtl.models import MultiTaskModel
from tfmtl.models.keras_arguments import batch_size_of


def attention_weights(model: MultiTaskModel, x: Any, layer_name: str, batch_size: int | None = None) -> np.ndarray:
    """Return the weight that an attention layer gives each entry of a list, for every row.

    Args:
        model: a model with such a layer in its network.
        x: pandas table (labels not needed), encoded table or data set, as in `MultiTaskModel.predict`.
        layer_name: a `TargetAttention`'s own name, or `"<feature>_pooling"` for the pooling of a feature.
        batch_size: rows per batch of a table; by default `model.evaluation_batch_size`.

    Returns:
        [rows, length], or [rows, K, length] of a `MultiInterestPooling`; 0 in padding, entries in the order of the
        list. They sum to 1, except in a `TargetAttention` without softmax, to the strength of the evidence of the
        history for the candidate, and in gated blocks, which may have negative weights.

    Raises:
        ValueError: if the network has no such layer; the message names those it has.
    """
    return _of_layer(model, x, layer_name, "attention_weights", batch_size)


def modality_weights(
    model: MultiTaskModel, x: Any, layer_name: str, batch_size: int | None = None
) -> dict[str, np.ndarray]:
    """Return the weight that a fusion gives each modality, for every row.

    Args:
        model: a model with such a layer in its network.
        x: pandas table (labels not needed), encoded table or data set, as in `MultiTaskModel.predict`.
        layer_name: `"query_fusion"`, `"candidate_fusion"` or `"context_fusion"`.
        batch_size: rows per batch of a table; by default `model.evaluation_batch_size`.

    Returns:
        {modality: [rows]}, 0 where the modality is missing, sum 1 over the modalities.

    Raises:
        ValueError: if the network has no such layer, or one without weights; the message names those it has.
    """
    weights = _of_layer(model, x, layer_name, "modality_weights", batch_size)
    return dict(zip(model.network.get_layer(layer_name).modalities, weights.T, strict=True))


def _of_layer(model: MultiTaskModel, x: Any, layer_name: str, method: str, batch_size: int | None) -> np.ndarray:
    """Run the network up to the layer's input, and a method of the layer on that."""
    require_type(model, MultiTaskModel, "model")
    able = [layer.name for layer in model.network.layers if hasattr(layer, method)]
    require_known([layer_name], able, f"layer with {method}", "the network")
    layer = model.network.get_layer(layer_name)
    before = keras.Model(model.network.input, layer.input)
    source = as_source(x)
    rows = batch_size_of(source, "batch_size", batch_size, model.evaluation_batch_size)
    batches = source.batches(model.preprocessor, rows, labels=False)
    features = [getattr(batch, "features", batch) for batch in batches]
    read = [{name: batch[name] for name in model.network.input} for batch in features]
    return np.concatenate([getattr(layer, method)(before(batch, training=False)).numpy() for batch in read])
