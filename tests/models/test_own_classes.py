"""A user-defined task, trunk, balancer and model, each as short as the README promises."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import Balancer
from tfmtl.data import Batch, to_batch
from tfmtl.layers import MultiTaskLayer
from tfmtl.models import MultiTaskModel
from tfmtl.models.step_model import TaskLosses
from tfmtl.tasks import HeadInputs, LossInputs, Task
from tfmtl.tasks.task import head, mean_over_observed


class Median(Task):
    """A regression with the absolute error."""

    def connect(self, encodings: HeadInputs) -> Any:
        return head(encodings.pair[self.name], (), 1, self.name, encodings.seed)

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        known = tf.where(tf.math.is_nan(labels), outputs[:, 0], labels)
        return mean_over_observed(tf.abs(known - outputs[:, 0]), sample_weight)

    def predict(self, outputs: Any) -> tf.Tensor:
        return outputs[:, 0]


class Separate(MultiTaskLayer):
    """A dense layer for each task, which share nothing."""

    def __init__(self, task_names: Sequence[str], units: int = 4, **kwargs: Any) -> None:
        super().__init__(task_names, **kwargs)
        self.units = units
        self._dense = {name: keras.layers.Dense(units, "relu", name=name) for name in self.task_names}

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        return {name: self._dense[name](inputs) for name in self.task_names}

    @property
    def shared_variables(self) -> list[tf.Variable]:
        return []

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class LossScale(Balancer):
    """Divides every loss by its running mean."""

    def build_state(self) -> None:
        self.means = self.add_weight("means", [len(self.task_names)], initializer="ones", trainable=False)

    def call(self, losses: tf.Tensor, observed: tf.Tensor | None = None, **extra: Any) -> tf.Tensor:
        self.means.assign(0.9 * self.means + 0.1 * tf.stop_gradient(losses))
        return tf.reduce_sum(losses * self.current_weights())

    def current_weights(self) -> tf.Tensor:
        return 1 / self.means


class Clipped(MultiTaskModel):
    """Limits the loss of every task."""

    limit = 1.0

    def losses_of(self, data: Batch, outputs: Any, training: bool) -> TaskLosses:
        losses = super().losses_of(data, outputs, training)
        return {name: (tf.minimum(loss, self.limit), weight) for name, (loss, weight) in losses.items()}


@pytest.mark.parametrize("kind", [Median, Separate, LossScale, Clipped])
def test_a_class_of_ones_own_takes_thirty_lines(kind: type) -> None:
    assert len(inspect.getsource(kind).splitlines()) <= 30


@pytest.fixture(scope="module")
def trained() -> tuple[MultiTaskModel, dict[str, list[float]]]:
    heads = [Median("rating"), *small.tasks()[2:]]
    model = small.model(heads=heads, kind=Clipped, trunk=Separate(small.ON_PAIRS), balancer=LossScale())
    return model, model.fit(small.table(), batch_size=25, epochs=4, verbose=0).history


def test_they_train_together(trained: tuple[MultiTaskModel, dict[str, list[float]]]) -> None:
    model, log = trained
    assert log["rating_loss"] == [1.0] * 4  # at the limit, so that no gradient changes it
    assert log["liked_loss"][-1] < log["liked_loss"][0] < 0.8
    assert log["liked_weight"][-1] == pytest.approx(float(1 / model.balancer.means[1]), rel=0.05)
    assert log["liked_weight"][-1] > log["liked_weight"][0] > 1
    predicted = model.predict(small.table(), verbose=0)["rating"]
    batch = to_batch(small.table(), small.preprocessor())
    np.testing.assert_allclose(predicted, model.network(batch.features)["rating"][:, 0], rtol=1e-5, atol=1e-6)


def test_a_copy_keeps_class_and_state(trained: tuple[MultiTaskModel, dict[str, list[float]]]) -> None:
    model, _ = trained
    network = keras.models.clone_model(model.network)
    copy = model.with_network(network)
    assert [type(part) for part in (copy, copy.balancer, copy.tasks[0])] == [Clipped, LossScale, Median]
    np.testing.assert_array_equal(copy.balancer.means, model.balancer.means)
