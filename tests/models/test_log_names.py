"""Every value of the log has a name of its own."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tfmtl import evaluation
from tfmtl._keras import keras
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import (
    BinaryClassification,
    MultiClassClassification,
    QuantileRegression,
    Regression,
    Task,
    ValueLoss,
)


def model(*heads: Task) -> MultiTaskModel:
    labels = [Label(task.name, column="y") for task in heads]
    preprocessor = Preprocessor.fit(
        Schema([Categorical("user")], labels=labels), pd.DataFrame({"user": ["a", "b"], "y": [0.0, 1.0]})
    )
    network = build_network(preprocessor, list(heads), embedding_dim=2, tower_units=[2])
    return MultiTaskModel(network, list(heads), preprocessor)


@pytest.mark.parametrize(
    ("heads", "name"),
    [
        (lambda: [BinaryClassification("liked", extra_metrics=[evaluation.AUC()])], "liked_auc"),
        (lambda: [Regression("y", extra_metrics=[keras.metrics.MeanAbsoluteError("loss")])], "y_loss"),
        (lambda: [Regression("y", extra_metrics=[keras.metrics.MeanAbsoluteError("weight")])], "y_weight"),
        (lambda: [Regression("regularization")], "regularization_loss"),
        (lambda: [Regression("unweighted")], "unweighted_loss"),
        (lambda: [Regression("val")], "val_loss"),
        (lambda: [Regression("x"), Regression("val_x")], "val_x_loss"),
        (lambda: [Regression("a", extra_metrics=[keras.metrics.MeanSquaredError("b_rmse")]), Regression("a_b")],
         "a_b_rmse"),
        (lambda: [Regression("y", extra_losses=[ValueLoss(keras.losses.Huber(name="loss"))])], "y_loss"),
        (lambda: [Regression("y", extra_metrics=[evaluation.R2("s"), evaluation.R2("s")])], "y_s"),
    ],
)  # fmt: skip
def test_two_values_of_one_name_are_refused(heads: Any, name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"The log would have two values named \[.*'{name}'.*rename a task.*`extra_losses`"
    ):
        model(*heads())


def test_one_metric_object_for_two_tasks_is_refused() -> None:
    shared = keras.metrics.MeanSquaredError()
    with pytest.raises(ValueError, match=r"The tasks 'a' and 'b' have one metric object .* make one for each"):
        model(Regression("a", extra_metrics=[shared]), Regression("b", extra_metrics=[shared]))


def test_a_metric_that_does_not_fit_is_refused_with_the_model() -> None:
    with pytest.raises(ValueError, match=r"Task 'liked' serves a probability, which `keras.metrics.Accuracy` does not"):
        model(BinaryClassification("liked", extra_metrics=[keras.metrics.Accuracy()]))


def test_a_loss_that_does_not_fit_is_refused_with_the_model() -> None:
    logits = ValueLoss(keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"Task 'y' serves a probability, no logits; leave `from_logits` out of"):
        model(BinaryClassification("y", extra_losses=[logits]))
    sparse = keras.losses.SparseCategoricalCrossentropy
    classes = "Task 'y' serves class probabilities, which `keras.losses.MeanSquaredError` does not compare .* take `Spa"
    with pytest.raises(ValueError, match=classes):
        model(MultiClassClassification("y", 2, extra_losses=[ValueLoss(keras.losses.MeanSquaredError())]))
    with pytest.raises(ValueError, match=r"Task 'y' serves a number, which .* take another loss than `Sparse"):
        model(Regression("y", extra_losses=[ValueLoss(sparse())]))
    with pytest.raises(ValueError, match="Task 'y' serves class probabilities, no logits"):
        model(MultiClassClassification("y", 2, extra_losses=[ValueLoss(sparse(from_logits=True))]))
    model(
        MultiClassClassification("y", 2, extra_losses=[ValueLoss(sparse())]),
        BinaryClassification("liked", extra_losses=[ValueLoss(keras.losses.BinaryCrossentropy())]),
        QuantileRegression("stars", extra_losses=[ValueLoss(keras.losses.MeanAbsoluteError())]),
    )


def test_the_group_of_a_metric_is_an_id_of_the_schema() -> None:
    with pytest.raises(ValueError, match=r"Unknown feature \['usr'\] in `group` of a metric; .* Did you mean 'user'"):
        model(BinaryClassification("liked", extra_metrics=[evaluation.GroupedAUC("usr")]))


def test_other_names_are_those_of_the_log() -> None:
    made = model(
        BinaryClassification("loss", extra_metrics=[evaluation.AUC("exact")]), Regression("balancer"), Regression("y")
    )
    made.compile("adam", run_eagerly=True)
    table = pd.DataFrame({"user": ["a", "b"], "y": [0.0, 1.0]})
    logs = made.fit(table, validation_data=table, verbose=0).history
    assert {"loss_loss", "balancer_loss", "val_loss_exact", "val_loss_auc", "val_y_rmse"} <= set(logs)
    assert {name.removeprefix("val_") for name in logs if name.startswith("val_")} == set(made.metrics_names)
