"""Marks: the tensors of a pass at which a gradient balancer compares the tasks and adversarial training starts.

Layers and models mark tensors while they compute, and the training step collects the marks of a pass with `marking`.
Without a collector, marking does nothing. `repeated` makes a further pass of the same rows from the encodings on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl._passes import Pass, current, within
from tfmtl.types import Column, Features


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
class Marks(Pass):
    """The marks of one forward pass.

    Attributes:
        encodings: encoded query, candidate and context features [B, d], which every task reads.
        trunk: the last tensors that the tasks of a trunk share, before the layers that belong to one task.
        gated: the same for trunks where each task reads a gated sum of the shared tensors; comparing the tasks is
            much cheaper there.
        outputs: by task, all tensors of the network that its loss reads.
        watch: called with each encoding, for a tape that would not record it otherwise; or None.
        layers: names of the layers that marked the encodings.
        row_losses: by layer, a function from the encoded features of the rows to a penalty of the training step.
        shifts: added to the encodings that other layers read, in the order of `encodings`; or empty.
    """

    encodings: list[tf.Tensor] = dataclasses.field(default_factory=list)
    trunk: list[tf.Tensor] = dataclasses.field(default_factory=list)
    gated: list[GatedRepresentation] = dataclasses.field(default_factory=list)
    outputs: dict[str, list[tf.Tensor]] = dataclasses.field(default_factory=dict)
    watch: Callable[[tf.Tensor], None] | None = None
    layers: list[str] = dataclasses.field(default_factory=list)
    row_losses: dict[str, Callable[[Features], tf.Tensor]] = dataclasses.field(default_factory=dict)
    shifts: Sequence[tf.Tensor] = ()

    def encode(self, layer: str, inputs: tf.Tensor | None) -> tf.Tensor:
        """Return the encoding that a layer marks, plus its shift: its inputs, or in a repeated pass the given one."""
        encoding = tf.identity(self.once(_encoding_of(layer), lambda: inputs))
        if self.watch is not None:
            self.watch(encoding)
        self.encodings.append(encoding)
        self.layers.append(layer)
        if not self.shifts:
            return encoding
        return encoding + tf.cast(self.shifts[len(self.layers) - 1], encoding.dtype)

    def again(self, encodings: Sequence[tf.Tensor]) -> Marks:
        """Return empty marks of a pass that repeats this one from other encodings, in the order of `encodings`."""
        given: dict[str, list[Any]] = {**self.made, **{_encoding_of(layer): [] for layer in self.layers}}
        for layer, encoding in zip(self.layers, encodings, strict=True):
            given[_encoding_of(layer)].append(encoding)
        return Marks(given=given)

    def extend(self, other: Marks) -> None:
        """Add the marks of a further pass of the step, except its encodings, which are functions of these."""
        self.trunk += other.trunk
        self.gated += other.gated
        for task, outputs in other.outputs.items():
            self.outputs.setdefault(task, []).extend(outputs)


def active_marks() -> Marks | None:
    """Return the marks that the innermost `marking` of this thread collects, or None outside of `marking`."""
    marks = current()
    return marks if isinstance(marks, Marks) else None


def _encoding_of(layer: str) -> str:
    return f"encoding of {layer}"


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
    with within(Marks()) as marks:
        yield marks


@contextlib.contextmanager
def repeated(first: Marks, encodings: Sequence[tf.Tensor]) -> Iterator[Marks]:
    """Repeat a pass inside the `with` block from other encodings on, with the random draws of the first pass.

    The marked encodings are the given tensors, so that the pass depends on nothing before them. State that counts the
    rows of steps does not change; see `tfmtl._passes`.

    Args:
        first: the marks of the first pass.
        encodings: the encodings of the second pass, in the order of `first.encodings`.

    Example:
        >>> layer = EncodingMark(name="query_mark")
        >>> with marking() as first:
        ...     _ = layer(tf.ones([1, 3]))
        >>> with repeated(first, [2 * first.encodings[0]]):
        ...     layer(tf.ones([1, 3])).numpy().tolist()
        [[2.0, 2.0, 2.0]]
    """
    with within(first.again(encodings)) as marks:
        yield marks


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
        marks = active_marks()
        return tf.identity(inputs) if marks is None else marks.encode(self.name, inputs)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the input; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]
