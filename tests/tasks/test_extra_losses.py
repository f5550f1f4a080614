"""Several losses at one head."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest

import tfmtl
from tests.models import small
from tests.tasks.losses import NAN
from tfmtl._keras import keras, tf
from tfmtl.balancing import Uncertainty
from tfmtl.compression import distil
from tfmtl.data import to_batch
from tfmtl.layers.noise.mixup import MixupPairs
from tfmtl.models import MultiTaskModel, load_model, save_model
from tfmtl.models.mixup import mixup_loss
from tfmtl.tasks import (
    BinaryClassification,
    EntireSpaceConversion,
    GroupLoss,
    LossInputs,
    MultiClassClassification,
    OrdinalRegression,
    Regression,
    Task,
    ValueLoss,
)
from tfmtl.tasks import task as tasks
from tfmtl.tasks.batch_loss import batch_loss
from tfmtl.tasks.extra_losses import ExtraLoss

MAE = keras.losses.MeanAbsoluteError(name="mae_loss")


def rating(losses: list[ExtraLoss]) -> Regression:
    return Regression.from_statistics("rating", small.statistics(), clip=None, extra_losses=losses)


def model(losses: list[ExtraLoss]) -> MultiTaskModel:
    heads: list[Task] = [
        rating(losses),
        BinaryClassification(
            "liked", focal_gamma=2.0, extra_losses=[GroupLoss("logistic", "user", 0.5), ValueLoss(MAE)]
        ),
        MultiClassClassification("mood", num_classes=2, scope="query"),
    ]
    return small.model(heads=heads, balancer=Uncertainty())


def test_golden_loss_of_two_further_losses() -> None:
    """Errors 1/2 and 1/4 of rows with the weights 1 and 3; the only pair has the scores 5/2 and 9/4: 1 - 1/4."""
    losses: list[ExtraLoss] = [ValueLoss(MAE, 0.5), GroupLoss("hinge", "user", 4.0, temperature=1.0)]
    task = Regression("t", extra_losses=losses)
    labels, outputs = tf.constant([3.0, NAN, 2.0]), tf.constant([[2.5], [9.0], [2.25]])
    weights, inputs = tf.constant([1.0, 0.0, 3.0]), LossInputs({}, keys={"user": tf.constant([4, 4, 4], tf.int64)})
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss, total = batch_loss(task, labels, outputs, weights, inputs)
    own, errors, pair = (1 / 4 + 3 / 16) / 4, (1 / 2 + 3 / 4) / 4, 3 / 4
    assert float(loss) == pytest.approx(own + 0.5 * errors + 4 * pair)
    assert float(total) == 4
    gradient = tape.gradient(loss, outputs).numpy()[:, 0]
    np.testing.assert_allclose(gradient, [(-1 - 0.5) / 4 - 4, 0, 3 * (0.5 + 0.5) / 4 + 4], rtol=1e-6)
    found = task.further_losses(labels, outputs, weights, inputs)
    assert {name: float(value) for name, value in found.items()} == {"mae_loss": errors, "hinge_by_user": pair}


def test_without_a_label_the_loss_is_zero() -> None:
    task = Regression("t", extra_losses=[ValueLoss(keras.losses.MeanAbsolutePercentageError())])
    loss, total = batch_loss(task, tf.constant([NAN]), tf.constant([[2.0]]), tf.zeros([1]), LossInputs({}))
    assert (float(loss), float(total)) == (0, 0)


def test_a_loss_of_served_values_reads_probabilities_levels_and_classes() -> None:
    inputs, ones = LossInputs({}), tf.ones([1])
    brier = ValueLoss(keras.losses.MeanSquaredError())
    binary = BinaryClassification("t", extra_losses=[brier])
    found = binary.further_losses(tf.constant([1.0]), tf.zeros([1, 1]), ones, inputs)
    assert float(found["mean_squared_error"]) == pytest.approx(0.25)
    stars = OrdinalRegression("t", [1, 2], extra_losses=[brier])
    found = stars.further_losses(tf.constant([2.0]), tf.zeros([1, 1]), ones, inputs)
    assert float(found["mean_squared_error"]) == pytest.approx(0.25)  # the served value is 1.5
    classes = MultiClassClassification("t", 4, extra_losses=[ValueLoss(keras.losses.SparseCategoricalCrossentropy())])
    found = classes.further_losses(tf.constant([3.0]), tf.zeros([1, 4]), ones, inputs)
    assert float(found["sparse_categorical_crossentropy"]) == pytest.approx(np.log(4), rel=1e-5)


def test_a_conditional_value_has_the_rows_of_its_condition() -> None:
    task = EntireSpaceConversion("buy", after="click", serve="conditional", extra_losses=[ValueLoss(MAE)])
    inputs = LossInputs({}, labels={"click": tf.constant([1.0, 0.0])})
    found = task.further_losses(tf.constant([1.0, 0.0]), tf.zeros([2, 2]), tf.ones([2]), inputs)
    assert float(found["mae_loss"]) == pytest.approx(0.5)


def test_the_logged_mean_is_that_of_the_rows_of_the_condition() -> None:
    """Errors 1/2 and 1/4 of the rows after a click: one in the first batch and three in the second."""
    task = EntireSpaceConversion("buy", after="click", serve="conditional", extra_losses=[ValueLoss(MAE)])
    for clicks, logit in (([1.0, 0.0, 0.0], 0.0), ([1.0, 1.0, 1.0], float(np.log(3)))):
        inputs = LossInputs({}, labels={"click": tf.constant(clicks)})
        task.update_extra_metrics(tf.constant(clicks), tf.fill([3, 2], logit), tf.ones([3]), inputs)
    assert float(task.metric_results()["buy_mae_loss"]) == pytest.approx((1 / 2 + 3 * 1 / 4) / 4)


def test_the_logged_mean_is_that_of_the_rows_of_all_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas with one and three rows divide their sums by two rows each."""
    monkeypatch.setattr(tasks, "mean_over_replicas", lambda own: tf.constant(2.0))
    task = Regression("t", extra_losses=[ValueLoss(MAE)])
    for errors in ([8.0], [1.0, 2.0, 1.0]):
        outputs = tf.constant(errors)[:, tf.newaxis]
        task.update_extra_metrics(tf.zeros([len(errors)]), outputs, tf.ones([len(errors)]), LossInputs({}))
    assert float(task.metric_results()["t_mae_loss"]) == pytest.approx((8 + 1 + 2 + 1) / 4)


@keras.utils.register_keras_serializable("test_extra_losses")
class ByColumn(keras.losses.Loss):
    """Returns the error of each row as a column [B, 1], or a scalar."""

    def __init__(self, scalar: bool = False, name: str = "by_column") -> None:
        super().__init__(name=name)
        self.scalar = scalar

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(y_pred) if self.scalar else tf.abs(y_true - y_pred)


def test_a_loss_of_the_user_may_return_a_column() -> None:
    labels, values, weights = tf.constant([1.0, 0.0]), tf.constant([3.0, 9.0]), tf.constant([1.0, 0.0])
    assert float(ValueLoss(ByColumn()).of_rows(labels, values, weights)) == 2
    assert float(ValueLoss(ByColumn()).of_rows(labels, values, tf.constant([1.0, 3.0]))) == (2 + 3 * 9) / 4
    with pytest.raises(ValueError, match="The loss 'by_column' must return one number per row"):
        ValueLoss(ByColumn(scalar=True)).of_rows(labels, values, weights)


def test_evaluate_logs_each_loss_and_the_loss_is_their_sum() -> None:
    plain, both = model([]), model([ValueLoss(MAE, 0.5), GroupLoss("list_mle", "user", 2.0)])
    for part in (plain, both):
        part.compile()
    options: dict[str, Any] = {"batch_size": 50, "verbose": 0, "return_dict": True}
    before, found = plain.evaluate(small.table(), **options), both.evaluate(small.table(), **options)
    further = 0.5 * found["rating_mae_loss"] + 2 * found["rating_list_mle_by_user"]
    assert found["rating_loss"] == pytest.approx(before["rating_loss"] + further, rel=1e-5)
    assert found["rating_mae_loss"] == pytest.approx(found["rating_mae"], rel=1e-5)
    assert {"liked_logistic_by_user", "liked_mae_loss"} <= set(found)


def test_a_model_trains_is_saved_distilled_and_exported_without_them(tmp_path: pathlib.Path) -> None:
    both = model([ValueLoss(MAE, 0.5), GroupLoss("list_mle", "user", 2.0)])
    log = both.fit(small.table(), batch_size=25, epochs=8, validation_data=small.table(), verbose=0).history
    assert log["rating_loss"][-1] < log["rating_loss"][0]
    assert log["val_liked_logistic_by_user"][-1] < log["val_liked_logistic_by_user"][0]
    again = load_model(save_model(both, tmp_path / "model"))
    assert [task.get_config() for task in again.tasks] == [task.get_config() for task in both.tasks]
    expected = both.evaluate(small.table(), verbose=0, return_dict=True)
    assert again.evaluate(small.table(), verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    student = distil(both, model([ValueLoss(MAE)]), small.table(), batch_size=25, epochs=1, verbose=0)
    assert "rating_mae_loss" in student.evaluate(small.table(), verbose=0, return_dict=True)
    assert tf.saved_model.load(str(tfmtl.export(both, tmp_path / "served"))).signatures


def test_mixup_has_the_labels_of_both_rows() -> None:
    built = model([ValueLoss(MAE, 0.5)])
    batch = to_batch(small.table().head(10), built.preprocessor)
    task, output = built.tasks[0], tf.constant(np.random.default_rng(0).normal(size=[10, 1]), tf.float32)
    pairs = MixupPairs(tf.range(10)[::-1], tf.fill([10], 0.25))
    plain = rating([])
    found, own = (float(mixup_loss(built.loss_arguments, t, batch, output, pairs)[0]) for t in (task, plain))
    labels, trust = (small.table()[name].head(10).to_numpy() for name in ("rating", "trust"))
    served = task.predict(output).numpy()
    sums = trust * abs(labels - served) * 0.25 + (trust * 0.75)[::-1] * abs(labels[::-1] - served)
    assert found - own == pytest.approx(0.5 * sums.sum() / trust.sum(), rel=1e-4)


def test_bad_losses_are_named() -> None:
    with pytest.raises(TypeError, match=re.escape("`loss` must be Loss.")):
        ValueLoss("mse")  # type: ignore[arg-type]
    for weight in (0, -1.0, NAN, True):
        with pytest.raises(ValueError, match="`weight` of a `ValueLoss` must be a finite number above 0"):
            ValueLoss(MAE, weight)
    with pytest.raises(TypeError, match=re.escape("`extra_losses[...]` must be GroupLoss or ValueLoss.")):
        rating([MAE])
    with pytest.raises(TypeError, match="`extra_losses` must be Sequence"):
        rating(ValueLoss(MAE))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`extra_losses` of task 'rating' must have distinct names"):
        rating([ValueLoss(MAE), ValueLoss(MAE, 2.0)])
