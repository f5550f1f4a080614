"""One class of each kind, written outside of the package against its public names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl import keras
from tfmtl.balancing import Balancer, GradientBalancer, GramianBalancer
from tfmtl.evaluation import KeptRows
from tfmtl.layers import Fusion, Interaction, MultiTaskLayer
from tfmtl.tasks import HeadInputs, LossInputs, Pool, Task, mean_over_observed

register = keras.saving.register_keras_serializable("extending")


@register
class MeanRate(Pool):
    """The logarithm of the mean rate: log sum_m s_m exp(z_m)."""

    @staticmethod
    def pool(outputs: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
        return tf.math.log(tf.tensordot(shares, tf.exp(tf.stack(outputs)), axes=1))


@register
class Poisson(Task):
    """A count with rate exp(z): l = exp(z) - y z."""

    pool = MeanRate

    def __init__(self, name: str, max_rate: float = 100.0, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.max_rate = max_rate

    def connect(self, encodings: HeadInputs) -> Any:
        return keras.layers.Dense(1, name=f"{self.name}_output")(encodings.pair[self.name])

    def compute_loss(self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs) -> Any:
        z, counts = outputs[:, 0], tf.where(tf.math.is_nan(labels), 0.0, labels)
        return mean_over_observed(tf.exp(z) - counts * z, sample_weight)

    def predict(self, outputs: Any) -> tf.Tensor:
        return tf.minimum(tf.exp(outputs[:, 0]), self.max_rate)

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        return {"deviance": deviance(labels, predictions, weights)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_rate": self.max_rate}


def deviance(labels: np.ndarray, rates: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean Poisson deviance 2 (y log(y / rate) - y + rate)."""
    logs = np.where(labels > 0, labels * np.log(np.where(labels > 0, labels, 1.0) / rates), 0.0)
    return float(np.average(2 * (logs - labels + rates), weights=weights))


@register
class Absolute(Task):
    """A number by its absolute error; every other hook is inherited."""

    def connect(self, encodings: HeadInputs) -> Any:
        return keras.layers.Dense(1, name=f"{self.name}_output")(encodings.pair[self.name])

    def compute_loss(self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs) -> Any:
        value = outputs[:, 0]
        return mean_over_observed(tf.abs(tf.where(tf.math.is_nan(labels), value, labels) - value), sample_weight)

    def predict(self, outputs: Any) -> tf.Tensor:
        return outputs[:, 0]


@register
class CrossedBottom(MultiTaskLayer):
    """A trunk: the product of two dense layers, shared by all tasks."""

    def __init__(self, task_names: Sequence[str] | None = None, units: int = 4, **kwargs: Any) -> None:
        super().__init__(task_names, **kwargs)
        self.units = units
        self._left, self._right = keras.layers.Dense(units, name="left"), keras.layers.Dense(units, name="right")

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        crossed = self.mark_shared(self._left(inputs) * self._right(inputs))
        return dict.fromkeys(self.task_names, crossed)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        return self.trainable_weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@register
class LossScale(Balancer):
    """A weighting of losses: divides every loss by its running mean."""

    def __init__(self, decay: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decay = decay

    def build_state(self) -> None:
        self.means = self.add_state("means", [len(self.task_names)], 1.0)

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        if training:
            self.means.assign(self.decay * self.means + (1 - self.decay) * tf.stop_gradient(losses))
        return tf.reduce_sum(losses * self.current_weights())

    def current_weights(self) -> tf.Tensor:
        return 1 / tf.convert_to_tensor(self.means)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay}


@register
class UnitGradients(GramianBalancer):
    """A weighting by inner products of gradients: every task's gradient has length 1."""

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        return tf.where(observed, tf.math.rsqrt(tf.linalg.diag_part(gramian) + 1e-12), 0.0)


@register
class SummedGradients(GradientBalancer):
    """A rule on the gradients themselves: the sum of the tasks."""

    def mix(self, gradients: Any, losses: tf.Tensor, observed: tf.Tensor) -> list[Any]:
        return [None if g is None else g.weighted(tf.ones_like(losses)) for g in gradients]


@register
class MaskedMax(keras.layers.Layer):
    """A pooling: the largest of each coordinate over the real entries; 0 for an empty list."""

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        embeddings, indices = inputs
        real = (indices > 0)[..., tf.newaxis]
        largest = tf.reduce_max(tf.where(real, embeddings, embeddings.dtype.min), axis=1)
        return tf.where(tf.reduce_any(real, axis=1), largest, 0.0)


@register
class SumFusion(Fusion):
    """A fusion: the sum of linear projections."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self._linear = self.projections(self.units)

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        return tf.add_n([layer(vector) for layer, vector in zip(self._linear, vectors, strict=True)])


@register
class Gate(Interaction):
    """An interaction: the encoding of the pair times sigmoid(scale)."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight("scale", [int(input_shape[-1])], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * tf.sigmoid(self.scale)

    def connect(self, pair: Any, features: Any) -> Any:
        return self(pair)


@register
class Bias(KeptRows):
    """A metric: the weighted mean of prediction - label."""

    def __init__(self, name: str = "bias", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def of_rows(self, labels: Any, predictions: Any, weights: Any, groups: Any) -> float:
        return float(np.average(predictions - labels, weights=weights))
