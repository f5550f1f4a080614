"""Marks on the tensors of a forward pass that a gradient balancer looks at.

Layers and models mark tensors while they compute; whoever differentiates collects the marks of a pass with `marking`.
Without a collector a mark costs and changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, register, tf


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A shared representation of which every task reads a mixture of its own, h_k = sum_e gates_k,e f_e.

    The inner products of the tasks' gradients with respect to all f_e follow from those with respect to the h_k alone:
    <g_i, g_j> = sum_b (gates_b,i . gates_b,j) (dL_i/dh_b,i . dL_j/dh_b,j).

    Attributes:
        outputs: h_k [B, units] by task name, each read by that task only.
        gates: [B, tasks, experts] in the order of `outputs`, or None if every task reads the representation as it is.
    """

    outputs: Mapping[str, tf.Tensor]
    gates: tf.Tensor | None = None

    def of(self, names: Sequence[str]) -> tuple[list[tf.Tensor], tf.Tensor | None]:
        """Return outputs and gates in the order of some of the tasks."""
        places = [list(self.outputs).index(name) for name in names]
        gates = self.gates if self.gates is None else tf.gather(self.gates, places, axis=1)
        return [self.outputs[name] for name in names], gates


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the rows of a batch were mixed in pairs; see `tfmtl.layers.noise.mixup.MixupPartners`.

    Attributes:
        partners: the row [B] that each row was mixed with.
        kept: share [B] of its own that each row kept, lambda.
    """

    partners: tf.Tensor
    kept: tf.Tensor

    def partners_of(self, rows: Any) -> Any:
        """Return a structure of tensors [B, ...] with each row's partner in its place."""
        return tf.nest.map_structure(lambda column: tf.gather(column, self.partners), rows)


@dataclasses.dataclass
class Marks:
    """What one forward pass marked.

    Attributes:
        encodings: encoded query, candidate and context features [B, d], which every task reads.
        trunk: the last tensors that the tasks of a trunk share, in front of what belongs to one task.
        mixtures: the same for trunks whose tasks read mixtures of what they share; much cheaper to compare there.
        outputs: by task, everything of the network that its loss reads.
        mixing: how rows were mixed in front of the trunk, or None.
    """

    encodings: list[tf.Tensor] = dataclasses.field(default_factory=list)
    trunk: list[tf.Tensor] = dataclasses.field(default_factory=list)
    mixtures: list[Mixture] = dataclasses.field(default_factory=list)
    outputs: dict[str, list[tf.Tensor]] = dataclasses.field(default_factory=dict)
    mixing: Mixing | None = None


_active = threading.local()  # each replica of a distribution strategy runs in a thread of its own


def active_marks() -> Marks | None:
    """Return what the innermost `marking` of this thread collects, or None."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


@contextlib.contextmanager
def marking() -> Iterator[Marks]:
    """Collect the marks of the forward passes inside.

    Example:
        >>> layer = EncodingMark()
        >>> with marking() as marks:
        ...     _ = layer(tf.ones([2, 3]))
        >>> [tensor.shape for tensor in marks.encodings]
        [TensorShape([2, 3])]
    """
    stack = _active.__dict__.setdefault("stack", [])
    stack.append(Marks())
    try:
        yield stack[-1]
    finally:
        stack.pop()


@contextlib.contextmanager
def joined_marking() -> Iterator[Marks]:
    """Collect the marks of the forward passes inside, where a `marking` around this one collects them already, there.

    Example:
        >>> with marking() as outer, joined_marking() as inner:
        ...     inner is outer
        True
    """
    marks = active_marks()
    with contextlib.nullcontext(marks) if marks is not None else marking() as found:
        yield found


@contextlib.contextmanager
def without_mixtures() -> Iterator[None]:
    """Forget the mixtures marked inside: for a layer whose tasks go on to read each other's outputs.

    What was marked as shared stays: the tasks still meet there, whatever their ways from there on.
    """
    marks = active_marks()
    before = len(marks.mixtures) if marks else 0
    yield
    if marks:
        del marks.mixtures[before:]


def mark_outputs(task: str, outputs: object) -> None:
    """Mark a tensor or a structure of tensors as read by a task's loss."""
    marks = active_marks()
    if marks is not None:
        marks.outputs.setdefault(task, []).extend(tf.nest.flatten(outputs))


@register
class EncodingMark(keras.layers.Layer):
    """Returns its input and marks it as an encoding that every task reads.

    Call arguments:
        inputs: [B, d].

    Returns:
        The same tensor.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Mark and return the tensor."""
        tensor = tf.identity(inputs)
        marks = active_marks()
        if marks is not None:
            marks.encodings.append(tensor)
        return tensor
