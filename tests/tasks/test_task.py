"""The hooks of `Task` that a class of the user inherits: values by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.tasks import HeadInputs, LossInputs, MultiClassClassification, Regression, Retrieval, Task, ValueLoss
from tfmtl.tasks.pools import MeanValue


class Absolute(Task):
    """A direct subclass of `Task`: the absolute error of one output."""

    def __init__(self, name: str, units: tuple[int, ...] = (), slope: float = 1.0) -> None:
        super().__init__(name)
        self.units, self.slope = units, slope

    def connect(self, encodings: HeadInputs) -> Any:
        return keras.layers.Dense(1)(encodings.pair[self.name])

    def compute_loss(self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs) -> Any:
        return tf.reduce_sum(sample_weight * abs(outputs[:, 0] - labels)), tf.reduce_sum(sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": list(self.units), "slope": self.slope}


def test_a_report_compares_numbers_and_leaves_out_several_numbers_per_row() -> None:
    labels, weights = np.array([1.0, 3.0]), np.array([1.0, 3.0])
    # errors 0 and 1 with weights 1 and 3
    for predictions in (np.array([1.0, 2.0]), np.array([[1.0], [2.0]])):
        assert Absolute("t").report(labels, predictions, weights)["mae"] == pytest.approx(0.75)
    assert Absolute("t").report(labels, np.ones((2, 2)), weights) == {}
    assert Absolute("t").report(labels, {"low": labels, "high": labels}, weights) == {}


def test_the_constant_is_the_weighted_mean_of_the_observed_labels() -> None:
    found = Absolute("t").constant_prediction(np.array([1.0, 5.0, np.nan]), np.array([3.0, 1.0, 0.0]), rows=2)
    assert found.tolist() == [2.0, 2.0]


def test_the_distillation_loss_is_the_mean_squared_difference_of_all_outputs() -> None:
    own = {"a": tf.constant([[1.0, 3.0], [0.0, 0.0]]), "b": tf.constant([[2.0], [9.0]])}
    other = {"a": tf.zeros([2, 2]), "b": tf.zeros([2, 1])}
    # first row: (1 + 9) / 2 + 4; the second has no weight
    loss = Absolute("t").distillation_loss(own, other, tf.constant([2.0, 0.0]), LossInputs({}), 3.0)
    assert float(loss) == pytest.approx(9.0)
    assert float(Absolute("t").distillation_loss(own, own, tf.ones([2]), LossInputs({}), 3.0)) == 0.0


def test_members_agree_on_every_argument_except_the_hidden_layers() -> None:
    assert Absolute("t", (3,), 2.0).output_arguments() == {"name": "t", "slope": 2.0}
    extra: dict[str, Any] = {
        "extra_losses": [ValueLoss(keras.losses.MeanAbsoluteError())],
        "extra_metrics": [keras.metrics.MeanSquaredError()],
    }
    assert Regression("t", **extra).output_arguments() == Regression("t", units=[3]).output_arguments()
    assert Retrieval("t", temperature=0.5).output_arguments() == {}


def test_a_task_is_of_the_pair_and_averages_its_members_unless_it_has_its_own_rule() -> None:
    own = Absolute("t")
    assert (own.query_only, own.retrieves, own.pool, own.stacker(1.0)) == (False, False, MeanValue, None)
    assert Regression("t", scope="query").query_only
    assert not Regression("t").query_only
    assert Retrieval("t").retrieves
    assert not MultiClassClassification("t", num_classes=2).retrieves
