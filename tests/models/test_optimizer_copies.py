"""Copies of optimisers: settings are kept, the state is new, and classes of the user need no registration."""

from __future__ import annotations

from typing import Any

import tfmtl

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.training import ScaledRates


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """Half of another schedule; not registered."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __call__(self, step: Any) -> Any:
        return 0.5 * self.of(step)

    def get_config(self) -> dict[str, Any]:
        return {"of": keras.optimizers.schedules.serialize(self.of)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Halving:
        return cls(keras.optimizers.schedules.deserialize(config["of"]))


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    """1 / (1 + step); not registered."""

    def __call__(self, step: Any) -> Any:
        return 1 / (1 + tf.cast(step, tf.float32))

    def get_config(self) -> dict[str, Any]:
        return {}


class Reversed(keras.optimizers.SGD):
    """Climbs; not registered."""

    def update_step(self, gradient: Any, variable: Any) -> None:
        super().update_step(-gradient, variable)


OPTIMIZERS = {
    "schedule": lambda: keras.optimizers.SGD(Falling()),
    "legacy": lambda: keras.optimizers.legacy.SGD(Falling()),
    "lazy": lambda: tfmtl.LazyAdam(Falling()),
    "scaled": lambda: ScaledRates(keras.optimizers.SGD(Falling()), {"*": 0.5}),
    "scaled own class": lambda: ScaledRates(Reversed(Falling()), {"*": 0.5}),
    "mixed precision": lambda: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(Falling())),
    "schedule of a schedule": lambda: keras.optimizers.SGD(Halving(Falling())),
}


def _path(optimizer: Any) -> list[float]:
    """Return the values of x^2 / 2 after each of three steps from 1."""
    x, found = tf.Variable(1.0), []
    for _ in range(3):
        optimizer.apply_gradients([(tf.identity(x), x)])
        found.append(float(x))
    return found


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_copy_steps_like_a_new_optimizer_with_the_same_settings(kind: str) -> None:
    used = OPTIMIZERS[kind]()
    first = _path(used)
    assert np.ptp([1.0, *first]) > 0.3
    np.testing.assert_array_equal(_path(fresh_copy(used)), first)


def test_steps_by_hand() -> None:
    """The rates are 1/2, 1/4, 1/6: x = 1/2, 3/8, 5/16."""
    np.testing.assert_allclose(_path(fresh_copy(OPTIMIZERS["schedule of a schedule"]())), [0.5, 0.375, 0.3125])
