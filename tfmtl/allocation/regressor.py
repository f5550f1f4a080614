"""A small network from standardised inputs to several numbers, some of which are missing in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._keras import keras, spawn, tf
from tfmtl.allocation.affinity import Floats

_ROWS = 8192  # of a pass: it bounds the memory
_SCALES = ("center", "scale", "mean", "deviation", "least", "most")


class Regressor:
    """Least squares by dense layers: f(x) = mean + deviation * net((x - center) / scale), within the range of targets.

    Args:
        scales: arrays by name: `center` and `scale` [d] of the inputs; `mean`, `deviation`, `least` and `most` [K] of
            the targets.
        units: widths of the hidden layers.
        seed: seed of the initial values; the last layer starts at 0, the mean of the targets.
    """

    def __init__(self, scales: Mapping[str, npt.NDArray[Any]], units: Sequence[int], seed: int = 0) -> None:
        self.scales = {name: np.asarray(scales[name], np.float64) for name in _SCALES}
        glorot = keras.initializers.GlorotUniform(seed)
        dense, float32 = keras.layers.Dense, {"dtype": "float32"}
        hidden = [dense(n, "relu", kernel_initializer=spawn(glorot, i), **float32) for i, n in enumerate(units)]
        last = dense(len(self.scales["mean"]), kernel_initializer="zeros", **float32)
        self.network = keras.Sequential([*hidden, last])
        self.network.build([None, len(self.scales["center"])])

    @classmethod
    def of(cls, inputs: npt.NDArray[Any], targets: Floats, units: Sequence[int], seed: int) -> Regressor:
        """Return an untrained regressor with the scales of inputs [N, d] and of targets [N, K], NaN where missing."""
        scales = {
            "center": inputs.mean(axis=0), "scale": _above_zero(inputs.std(axis=0)),
            "mean": np.nanmean(targets, axis=0), "deviation": _above_zero(np.nanstd(targets, axis=0)),
            "least": np.nanmin(targets, axis=0), "most": np.nanmax(targets, axis=0),
        }  # fmt: skip
        return cls(scales, units, seed)

    def fit(
        self, inputs: npt.NDArray[Any], targets: Floats, epochs: int, batch_size: int, learning_rate: float, seed: int
    ) -> None:
        """Train on inputs [N, d] and targets [N, K], NaN where missing, in an order that the seed draws."""
        scaled = self._scaled(inputs)
        goals = ((targets - self.scales["mean"]) / self.scales["deviation"]).astype(np.float32)
        self.network.compile(keras.optimizers.Adam(learning_rate), loss=_squared_error)
        rng = np.random.default_rng(seed)
        for _ in range(epochs):
            order = rng.permutation(len(scaled))
            self.network.fit(scaled[order], goals[order], batch_size=batch_size, shuffle=False, verbose=0)

    def predict(self, inputs: npt.NDArray[Any]) -> Floats:
        """Return the predictions [N, K] for inputs [N, d]."""
        scaled = self._scaled(inputs)
        pieces = [self.network(scaled[start : start + _ROWS]).numpy() for start in range(0, len(scaled), _ROWS)]
        values = self.scales["mean"] + self.scales["deviation"] * np.concatenate(pieces).astype(np.float64)
        return np.clip(values, self.scales["least"], self.scales["most"])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the values of the regressor by name, for `from_arrays`."""
        return self.scales | {f"value_{i}": value for i, value in enumerate(self.network.get_weights())}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], units: Sequence[int]) -> Regressor:
        """Return the regressor of arrays that `arrays` returned."""
        regressor = cls(arrays, units)
        regressor.network.set_weights([arrays[f"value_{i}"] for i in range(len(regressor.network.weights))])
        return regressor

    def _scaled(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return ((inputs - self.scales["center"]) / self.scales["scale"]).astype(np.float32)


@tf.autograph.experimental.do_not_convert
def _squared_error(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the squared errors [B, K], 0 where the target is missing."""
    return tf.square(tf.where(tf.math.is_nan(targets), 0.0, outputs - targets))


def _above_zero(deviations: Floats) -> Floats:
    return np.where(deviations > 0, deviations, 1.0)
