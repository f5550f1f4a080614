"""Marks: the tensors of a forward pass at which a gradient balancer compares the tasks.

Layers and models mark tensors while they compute, and the training step collects the marks of a pass with `marking`.
Without a collector, marking does nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence

from tfmtl._keras import keras, register, tf
from tfmtl.types import Column


@dataclasses.dataclass(frozen=True)
class GatedRepresentation:
    """A shared representation f_e of which every task k reads its own gated sum, h_k = sum_e gates_k,e f_e.

    The inner products of the tasks' gradients with respect to all f_e follow from those with respect to the h_k alone:
    <g_i, g_j> = sum_b (gates_b,i . gates_b,j) (dL_i/dh_b,i . dL_j/dh_b,j).

    Attributes:
        outputs: h_k [B, units] by task name, each read by that task only.
        gates: [B, tasks, experts] in the order of `outputs`, or None if every task reads the representation unweighted.
    """

    outputs: Mapping[str, tf.Tensor]
    gates: tf.Tensor | None = None

    def of(self, names: Sequence[str]) -> tuple[list[tf.Tensor], tf.Tensor | None]:
        """Return the outputs and gates of some tasks, in the order of `names`."""
        indices = [list(self.outputs).index(name) for name in names]
        gates = self.gates if self.gates is None else tf.gather(self.gates, indices, axis=1)
        return [self.outputs[name] for name in names], gates


@dataclasses.dataclass
class Marks:
    """The marks of one forward pass.

    Attributes:
        encodings: encoded query, candidate and context features [B, d], which every task reads.
        trunk: the last tensors that the tasks of a trunk share, before the layers that belong to one task.
        gated: the same for trunks where each task reads a gated sum of the shared tensors; comparing the tasks is
            much cheaper there.
        outputs: by task, all tensors of the network that its loss reads.
    """

    encodings: list[tf.Tensor] = dataclasses.field(default_factory=list)
    trunk: list[tf.Tensor] = dataclasses.field(default_factory=list)
    gated: list[GatedRepresentation] = dataclasses.field(default_factory=list)
    outputs: dict[str, list[tf.Tensor]] = dataclasses.field(default_factory=dict)


_active = threading.local()  # each replica of a distribution strategy runs in its own thread


def active_marks() -> Marks | None:
    """Return the marks that the innermost `marking` of this thread collects, or None outside of `marking`."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


@contextlib.contextmanager
def marking() -> Iterator[Marks]:
    """Collect the marks of the forward passes inside the `with` block.

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
def without_gated() -> Iterator[None]:
    """Drop the gated representations marked inside the `with` block, since tasks then read each other's outputs.

    The marks of shared tensors stay: the tasks are still compared there.
    """
    marks = active_marks()
    before = len(marks.gated) if marks else 0
    yield
    if marks:
        del marks.gated[before:]


def mark_outputs(task: str, outputs: object) -> None:
    """Mark a tensor or a structure of tensors as read by a task's loss."""
    marks = active_marks()
    if marks is not None:
        marks.outputs.setdefault(task, []).extend(tf.nest.flatten(outputs))


@register
class EncodingMark(keras.layers.Layer):
    """Identity layer that marks its input as an encoding that every task reads.

    Call arguments:
        inputs: [B, d].

    Returns:
        The same tensor.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        tensor = tf.identity(inputs)
        marks = active_marks()
        if marks is not None:
            marks.encodings.append(tensor)
        return tensor

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the input; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]
