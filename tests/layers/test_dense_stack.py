"""The base of stacks of dense layers: checks, layers, config and search space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras
from tfmtl.layers.dense_stack import DenseStack, search_dropout, search_units


class Recorder:
    """Hyperparameters that record every call and return the largest value."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def Choice(self, name: str, values: list[int], default: int) -> int:  # noqa: N802 - keras-tuner's spelling
        self.calls.append((name, values, default))
        return values[-1]

    def Int(self, name: str, low: int, high: int, default: int) -> int:  # noqa: N802
        self.calls.append((name, low, high, default))
        return high

    def Float(self, name: str, low: float, high: float, step: float, default: float) -> float:  # noqa: N802
        self.calls.append((name, low, high, step, default))
        return high


def test_a_stack_has_the_widths_activation_and_kernels_in_order() -> None:
    stack = DenseStack([3, 2], activation="tanh", kernel_regularizer=keras.regularizers.L2(0.25), seed=5)
    layers = stack.dense_layers("part", first=7)
    assert [layer.name for layer in layers] == ["part_0", "part_1"]
    assert [layer.units for layer in layers] == [3, 2]
    assert {layer.activation for layer in layers} == {keras.activations.tanh}
    for i, layer in enumerate(layers):
        layer.build([None, 4])
        np.testing.assert_array_equal(layer.kernel, stack.initializer(7 + i)(layer.kernel.shape))


def test_the_config_holds_the_arguments() -> None:
    config = DenseStack((3, 2), activation="tanh", dropout=0.25, seed=5).get_config()
    assert {name: config[name] for name in ("units", "activation", "dropout", "seed")} == {
        "units": [3, 2], "activation": "tanh", "dropout": 0.25, "seed": 5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": []}, "`units` must name at least one width."),
        ({"units": [3, 0]}, "`units` must be a positive integer. Received: units=0."),
        ({"units": [3], "dropout": 1.0}, "`dropout` must be a number in"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseStack(**arguments)


def test_the_search_space_of_a_stack() -> None:
    hp = Recorder()
    assert search_units(hp, "trunk", 32, depth=2) == (64, 64, 64)
    assert search_units(hp, "other", 64) == (128,)
    assert search_dropout(hp, "trunk") == 0.4
    assert hp.calls == [
        ("trunk_units", [16, 32, 64], 32),
        ("trunk_depth", 1, 3, 2),
        ("other_units", [32, 64, 128], 64),
        ("trunk_dropout", 0.0, 0.4, 0.1, 0.0),
    ]
