from __future__ import annotations

import types
from typing import Any

import pytest

from tfmtl._keras import keras, tf
from tfmtl.models.graph import adopt, ancestors, is_wrapped, state_of, unwrapped


def variables(*values: Any, name: str) -> tf.Variable:
    return tf.Variable(values, name=name, dtype=tf.float32)


def test_state_is_copied_and_grown_counts_keep_their_own_end() -> None:
    own = [variables(1, 2, name="rate"), variables(1, 2, 3, name="seen/counts"), variables(7, 8, 9, name="offset")]
    theirs = [variables(5, 6, name="rate"), variables(5, 6, name="seen/counts"), variables(5, 6, name="offset")]
    adopt(own, theirs)
    # 5 6: the former counts; 3: the count of a candidate that is new. Other shapes that differ are left alone.
    assert [variable.numpy().tolist() for variable in own] == [[5, 6], [5, 6, 3], [7, 8, 9]]
    with pytest.raises(ValueError, match="zip"):
        adopt(own, theirs[:2])


def test_state_is_without_metrics() -> None:
    part = keras.layers.Layer()
    offset, counts = part.add_weight("offset", [2]), part.add_weight("counts", [3], trainable=False)
    part.kept = [keras.metrics.Mean()]
    assert {id(variable) for variable in state_of([part])} == {id(offset), id(counts)}
    assert len(state_of([part, part])) == 4


def test_a_pruning_wrapper_is_taken_off() -> None:
    layer = keras.layers.Dense(2)
    wrapper = types.SimpleNamespace(layer=layer, pruning_vars=[])
    assert (is_wrapped(layer), is_wrapped(wrapper)) == (False, True)
    assert unwrapped(layer) is layer
    assert unwrapped(wrapper) is layer


def test_ancestors_are_the_layers_that_tensors_depend_on() -> None:
    inputs = keras.Input([3])
    hidden = keras.layers.Dense(2, name="hidden")(inputs)
    other = keras.layers.Dense(2, name="other")(inputs)
    network = keras.Model(inputs, keras.layers.Add(name="sum")([hidden, other]))
    found = ancestors(network, {"a": hidden, "b": [other]})
    assert [layer.name for layer in found.layers[1:]] == ["hidden", "other"]
