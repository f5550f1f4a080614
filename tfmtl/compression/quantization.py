"""Weights in 8 bits or half precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require, require_type
from tfmtl._grid import nearest_codes
from tfmtl._keras import keras, tf
from tfmtl.compression.distillation import fresh_optimizer
from tfmtl.compression.sparsity import Select
from tfmtl.models import MultiTaskModel
from tfmtl.models.graph import is_wrapped

_HALF = 16


def quantize(network: keras.Model, bits: int = 8, *, select: Select = lambda layer: True) -> keras.Model:
    """Return a copy of a network with weight matrices rounded to few bits.

    Use it before export to make the saved model smaller.

    With 2 to 8 bits, w -> s round(w / s), s = max |w| / (2^(bits - 1) - 1) rounded to bfloat16: one step s per
    row or per column of each matrix, the choice with the smaller error. Zero stays zero. With 16 bits, w is rounded to
    half precision.

    The copy is a plain float32 network of the same layers: it can be evaluated, trained (quantise it
    again afterwards), pruned or exported. `serving.export` stores each variable in the smallest type that holds its
    values exactly, int8 or float16 here, and every runtime widens it once when it loads the model. Requests are
    answered in float32: the file gets smaller, while memory and latency stay the same.

    Args:
        network: functional network, not changed.
        bits: 2 to 8, or 16.
        select: layers to round; all by default. Vectors, such as biases, stay as they are.

    Raises:
        ValueError: if the bits are none of these, no matrix is selected, the network is being pruned, or a weight is
            not finite or too large for half precision.

    Example:
        >>> inputs = keras.Input([8])
        >>> network = keras.Model(inputs, keras.layers.Dense(4, name="head")(inputs))
        >>> len(np.unique(quantize(network, bits=2).get_layer("head").kernel)) <= 3 * 4
        True

    Cost: a few passes over the weights; no data.
    """
    require(bits in (*range(2, 9), _HALF), "`bits` must be 2 to 8, or 16 for half precision.", bits=bits)
    pruned = [layer.name for layer in network.layers if is_wrapped(layer)]
    require(not pruned, f"The layers {pruned} are being pruned; `strip` the network first.")
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    matrices = [v for layer in copy.layers if select(layer) for v in layer.trainable_weights if v.shape.rank > 1]
    require(bool(matrices), "No matrix of the network is selected for quantisation.")
    rounded = {id(v): _rounded(v, bits) for v in matrices}
    for variable in {id(v): v for v in matrices}.values():
        variable.assign(rounded[id(variable)])
    return copy


def quantize_model(model: MultiTaskModel, bits: int = 8, *, select: Select = lambda layer: True) -> MultiTaskModel:
    """Return a compiled model of the same kind around the quantised network; arguments as in `quantize`."""
    require_type(model, MultiTaskModel, "model")
    result = model.with_network(quantize(model.network, bits, select=select))
    result.compile(fresh_optimizer(model))
    return result


def _rounded(variable: tf.Variable, bits: int) -> Any:
    values = variable.numpy().astype(np.float32)
    require(bool(np.all(np.isfinite(values))), f"Weight {variable.name!r} holds NaN or infinity.")
    if bits != _HALF:
        return nearest_codes(values, bits).values()
    largest = float(np.max(np.abs(values), initial=0.0))
    require(
        largest <= float(np.finfo(np.float16).max),
        f"Weight {variable.name!r} is too large for half precision; use `bits=8`.",
        largest=largest,
    )
    return values.astype(np.float16).astype(np.float32)
