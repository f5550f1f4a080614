"""Tensors that a SavedModel does not store but computes when it is loaded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping

from tfmtl._keras import tf

Compute = Callable[[], Mapping[str, tf.Tensor]]


class ComputedOnLoad(tf.Module):
    """Tensors that every runtime computes once when it loads the SavedModel, so that the file need not store them.

    Args:
        compute: returns tensors of static rank by name; may read variables and tensors that are saved with the model.
            The first dimension of its results may differ in a version with other values of these variables.

    Example:
        >>> weights = tf.Variable([1.0, 2.0])
        >>> computed = ComputedOnLoad(lambda: {"doubled": 2.0 * weights})
        >>> computed.value("doubled").numpy().tolist()
        [2.0, 4.0]

    Cost: one call of the function when the model is loaded, and no bytes on disk.
    """

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self._slots = {name: Slot(value.shape, value.dtype) for name, value in compute().items()}
        self._filler = _Filler(compute, self._slots)

    def fill_before(self, slots: Iterable[Slot]) -> None:
        """Fill the slots that the function reads before it is called; runtimes initialize resources in any order."""
        self._filler.before = [slot.fill for slot in slots]

    def value(self, name: str) -> tf.Tensor:
        """Return the tensor of one name."""
        return self._slots[name].value()


class Slot(tf.saved_model.experimental.TrackableResource):
    """A resource that holds one tensor, which is set when the model is loaded.

    Args:
        shape: shape of the tensor; the first dimension may change.
        dtype: type of the tensor.
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
        # The name ties a graph's reads to its initializer; a model loaded into this process must compute its own value.
        owner = "here" if tf.executing_eagerly() else "loaded"
        return tf.raw_ops.VarHandleOp(shape=self._shape, dtype=self._dtype, shared_name=f"{self._name}_{owner}")

    def fill(self) -> None:
        """Set the tensor, if this slot needs no filler."""

    def _initialize(self) -> None:
        """Do nothing: one function computes the values of all slots, and the filler assigns them."""

    def _destroy_resource(self) -> None:
        if tf.executing_eagerly():  # two models loaded from one path share the resource
            tf.raw_ops.DestroyResourceOp(resource=self.resource_handle, ignore_lookup_error=True)


class _Filler(Slot):
    """A slot without a tensor of interest; its initializer computes and sets the other slots."""

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
