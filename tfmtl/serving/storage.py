"""Narrow storage: variables in the smallest types that hold their values, widened when the model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tfmtl._grid import exact_codes
from tfmtl._keras import tf
from tfmtl.serving.on_load import Slot

_SMALL = 256
"""Smaller variables are stored unchanged: the metadata of the narrower variables would need as many bytes."""


class NarrowVariable(Slot):
    """Replaces a float32 variable in a SavedModel; the file holds narrower arrays, and the variable is their product.

    Args:
        variable: the variable that traced functions read.
        parts: arrays of narrower types that broadcast to its shape.
    """

    def __init__(self, variable: tf.Variable, parts: Sequence[np.ndarray]) -> None:
        super().__init__(variable.shape, variable.dtype)
        self._resource_handle = variable.handle  # functions that captured the variable read this slot after loading
        self._parts = [
            tf.Variable(part, trainable=False, name=f"{variable.name.split(':')[0]}_narrow") for part in parts
        ]
        for i, part in enumerate(self._parts):
            self._track_trackable(part, f"part_{i}")  # the base class does not track its attributes

    def fill(self) -> None:
        """Set the loaded variable to the product of its parts."""
        product = tf.cast(self._parts[0], self._dtype)
        for part in self._parts[1:]:
            product *= tf.cast(part, self._dtype)
        self.assign(product)

    def _initialize(self) -> None:
        if not tf.executing_eagerly():  # the variable in memory has its value already
            self.fill()

    def _destroy_resource(self) -> None:
        if not tf.executing_eagerly():
            super()._destroy_resource()


def narrowed(variables: Iterable[tf.Variable]) -> tuple[list[NarrowVariable], list[tf.Variable]]:
    """Return narrow replacements of the variables that fit into a narrower type without loss, and the other variables.

    The narrower types are int8 codes with one bfloat16 step per row or column, as `compression.quantize` leaves them,
    and float16.

    Cost: a few passes over each weight.
    """
    narrow, rest = [], []
    for variable in variables:
        parts = _parts(variable)
        if parts:
            narrow.append(NarrowVariable(variable, parts))
        else:
            rest.append(variable)
    return narrow, rest


def _parts(variable: tf.Variable) -> Sequence[np.ndarray]:
    if variable.dtype != tf.float32 or (variable.shape.num_elements() or 0) < _SMALL:  # None: its size may change
        return ()
    values = variable.numpy()
    codes = exact_codes(values)
    if codes is not None:
        return codes
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return (half,) if np.array_equal(half.astype(np.float32), values) else ()
