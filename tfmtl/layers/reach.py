"""Reach: the outputs that depend on each variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.layers.marks import marking


def readers_of(
    call: Callable[[Any], Mapping[str, Any]], inputs: Any, variables: Sequence[tf.Variable]
) -> list[set[str]]:
    """Return for each variable the names of the outputs that have a gradient with respect to it.

    Use it to find the variables that several tasks share. A variable that holds parts of several tasks, such as the
    kernel of all gates, counts for each of them. A gradient that is always 0 counts; one behind `tf.stop_gradient` does
    not.

    Args:
        call: function from the inputs to outputs by name, each a tensor or a structure of tensors.
        inputs: structure of tensors, real or symbolic; only their shapes and types are used.
        variables: variables that `call` reads.

    Example:
        >>> left, right = tf.Variable(1.0), tf.Variable(1.0)
        >>> found = readers_of(lambda x: {"a": left * x, "b": right * left * x}, tf.constant(1.0), [left, right])
        >>> [sorted(names) for names in found]
        [['a', 'b'], ['b']]

    Cost: one forward pass and one backward pass per output are traced; nothing is computed.
    """
    found: list[set[str]] = [set() for _ in variables]
    strategy = tf.distribute.get_strategy()
    ones = [
        strategy.experimental_local_results(variable)[0] for variable in variables
    ]  # the first copy of a mirrored one

    def trace(values: Any) -> None:
        with tf.GradientTape(persistent=True) as tape:
            outputs = call(values)
        for name, output in outputs.items():
            for names, gradient in zip(found, tape.gradient(tf.nest.flatten(output), ones), strict=True):
                if gradient is not None:
                    names.add(name)

    specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), inputs)
    with marking():  # discards the marks of this pass
        tf.function(trace, autograph=False).get_concrete_function(specs)
    return found
