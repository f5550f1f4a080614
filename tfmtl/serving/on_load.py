"""Tensors that a SavedModel does not store but computes when it is loaded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping

from tfmtl._keras import tf

Compute = Callable[[], Mapping[str, tf.Tensor]]


class ComputedOnLoad(tf.Module):
    """Holds what a function returns; every runtime that loads the SavedModel calls the function once.

    Args:
        compute: returns tensors by name, of static rank; may read variables and tensors that are saved with the model.
            Their first dimension may be another one in a version whose variables have changed.

    Example:
        >>> weights = tf.Variable([1.0, 2.0])
        >>> computed = ComputedOnLoad(lambda: {"doubled": 2.0 * weights})
        >>> computed.value("doubled").numpy().tolist()
        [2.0, 4.0]

    Cost: one call of the function when the model is loaded, nothing on disk.
    """

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self._slots = {name: Slot(value.shape, value.dtype) for name, value in compute().items()}
        self._filler = _Filler(compute, self._slots)

    def fill_before(self, slots: Iterable[Slot]) -> None:
        """Let slots be filled before the function is called, which reads them; runtimes fill slots in any order."""
        self._filler.before = [slot.fill for slot in slots]

    def value(self, name: str) -> tf.Tensor:
        """Return a tensor."""
        return self._slots[name].value()


class Slot(tf.saved_model.experimental.TrackableResource):
    """The place of one tensor, filled when the model is loaded.

    Args:
        shape, dtype: of the tensor; its first dimension may change.
    """

    def __init__(self, shape: tf.TensorShape, dtype: tf.DType) -> None:
        super().__init__()
        self._shape = tf.TensorShape([None, *shape[1:]])
        self._dtype = dtype
        self._name = f"computed_on_load_{uuid.uuid4().hex}"

    def value(self) -> tf.Tensor:
        """Return the tensor."""
        value = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=self._dtype)
        return tf.ensure_shape(value, self._shape)

    def assign(self, value: tf.Tensor) -> None:
        """Set the tensor."""
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=value)

    def _create_resource(self) -> tf.Tensor:
        # The name ties a graph's reads to its initialiser; a model loaded into this process has to compute its own.
        place = "here" if tf.executing_eagerly() else "loaded"
        return tf.raw_ops.VarHandleOp(shape=self._shape, dtype=self._dtype, shared_name=f"{self._name}_{place}")

    def fill(self) -> None:
        """Set the tensor, if this slot can do so by itself."""

    def _initialize(self) -> None:
        """Wait for the filler; initialisers run in no order, and all values come from one function."""

    def _destroy_resource(self) -> None:
        if tf.executing_eagerly():  # two models loaded from one path share theirs
            tf.raw_ops.DestroyResourceOp(resource=self.resource_handle, ignore_lookup_error=True)


class _Filler(Slot):
    """Fills the slots."""

    def __init__(self, compute: Compute, slots: Mapping[str, Slot]) -> None:
        super().__init__(tf.TensorShape([None]), tf.float32)
        self._compute = compute
        self._slots = dict(slots)
        self.before: list[Callable[[], None]] = []
        self._initialize()

    def _initialize(self) -> None:
        if not tf.executing_eagerly():
            for fill in self.before:
                fill()
        for name, value in self._compute().items():
            self._slots[name].assign(value)
