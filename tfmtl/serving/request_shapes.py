"""The check of a request's shapes, at the start of every signature."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfmtl._keras import tf

MAX_LIST = 65_536
"""The largest number of values of a list in a request, such as the ids of `exclude_ids`."""


def checked(inputs: Mapping[str, tf.Tensor], specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Return the inputs of a request after a check of their shapes in the graph.

    A server passes tensors of any shape to a graph. Without the check, an input with one row would be repeated for all
    queries, and others would fail in an operation, with a message that lacks the name of the input.

    Args:
        inputs: tensors [B, ...] by name.
        specs: their specifications, in which every first dimension is the batch.

    Raises:
        InvalidArgumentError: when the graph runs, with the name, the expected and the received shape of every input, if
            the number of rows or a shape differs, or a list has more than `MAX_LIST` values.

    Example:
        >>> specs = {"age": tf.TensorSpec([None]), "vector": tf.TensorSpec([None, 2])}
        >>> list(checked({"age": tf.zeros([3]), "vector": tf.zeros([3, 2])}, specs))
        ['age', 'vector']

    Cost: three operations per input.
    """
    names = list(inputs)
    # The graph optimizer would replace shapes that the signature fixes by constants, and with them the check.
    received = {name: tf.raw_ops.PlaceholderWithDefault(input=inputs[name], shape=None) for name in names}
    shapes = {name: tf.shape(value) for name, value in received.items()}
    dims = [(-2 if i == 0 else -1 if size is None else size) for n in names for i, size in enumerate(specs[n].shape)]
    wanted = np.asarray(dims, np.int32)  # -2: the batch, -1: any size
    sizes = tf.concat([*shapes.values(), np.zeros(len(wanted), np.int32)], axis=0)[: len(wanted)]
    ranks = [tf.equal(tf.rank(received[name]), len(specs[name].shape)) for name in names]
    alike = tf.equal(sizes, tf.where(wanted == -2, sizes[0], wanted)) | ((wanted == -1) & (sizes <= MAX_LIST))

    def refuse() -> tf.Tensor:
        with tf.control_dependencies([tf.raw_ops.Assert(condition=False, data=[_message(shapes, specs)], summarize=1)]):
            return tf.constant(False)

    right = tf.cond(tf.reduce_all(ranks) & tf.reduce_all(alike), lambda: tf.constant(True), refuse)
    with tf.control_dependencies([right]):
        return {name: tf.identity(value) for name, value in inputs.items()}


def _message(shapes: Mapping[str, tf.Tensor], specs: Mapping[str, tf.TensorSpec]) -> tf.Tensor:
    rule = f"Every input must have its shape, with the same number of rows B and at most {MAX_LIST:,} values in a list"
    texts: list[str | tf.Tensor] = [f"{rule}. Received: "]
    for name, spec in specs.items():
        size = tf.strings.reduce_join(tf.as_string(shapes[name]), separator=", ")
        texts += [f"{name} {_form(spec)} as [", size, "], "]
    return tf.strings.join([*texts[:-1], "]."])


def _form(spec: tf.TensorSpec) -> str:
    return f"[{', '.join(['B', *('n' if size is None else str(size) for size in spec.shape[1:])])}]"
