"""`fit`, `evaluate` and `predict` as users call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import tf
from tfmtl.balancing import TrainingStep
from tfmtl.data import from_frame, to_batch, to_columns
from tfmtl.models import MultiTaskModel, Regularization
from tfmtl.training import LazyAdam

TABLE = small.table()


def raw(frame: pd.DataFrame) -> dict[str, Any]:
    """Return features, labels and weights in the form of a client's data set."""
    columns: dict[str, Any] = dict(to_columns(frame, small.SCHEMA.features.values()))
    for name in ("seen", "rating", "trust", "liked"):
        columns[name] = frame[name].to_numpy(np.float32)
    columns["mood"] = frame["mood"].fillna("").to_numpy(object)
    return columns


def predictions(model: MultiTaskModel, x: Any, **arguments: Any) -> dict[str, np.ndarray]:
    return model.predict(x, verbose=0, **arguments)


def check_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_predictions_are_in_the_units_of_the_labels(worker: MultiTaskModel) -> None:
    found = predictions(worker, TABLE)
    assert {name: value.shape for name, value in found.items()} == {
        "seen": (50,), "rating": (50,), "liked": (50,), "mood": (50, 2),
    }  # fmt: skip
    outputs = worker.network(to_batch(TABLE, small.preprocessor()).features)
    for task in worker.tasks:
        np.testing.assert_allclose(found[task.name], task.predict(outputs[task.name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "source",
    [
        lambda: to_batch(TABLE, small.preprocessor()),
        lambda: from_frame(TABLE, small.preprocessor(), 50),
        lambda: tf.data.Dataset.from_tensor_slices(raw(TABLE)).batch(20),
        lambda: tf.data.Dataset.from_tensor_slices(raw(TABLE)).repeat(1).filter(lambda row: True).batch(20),
    ],
    ids=["encoded", "batches", "raw", "of unknown length"],
)
def test_a_data_set_is_worth_its_table(worker: MultiTaskModel, source: Callable[[], Any]) -> None:
    check_equal(predictions(worker, source()), predictions(worker, TABLE))
    found = worker.evaluate(source(), return_dict=True, verbose=0)
    expected = worker.evaluate(TABLE, return_dict=True, verbose=0)
    for name in ("rating_loss", "rating_rmse", "liked_auc", "mood_accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name


def test_prediction_needs_no_label(worker: MultiTaskModel) -> None:
    features = TABLE[list(small.SCHEMA.features)]
    expected = predictions(worker, TABLE)
    check_equal(predictions(worker, features), expected)
    columns = dict(to_columns(features, small.SCHEMA.features.values()))
    check_equal(predictions(worker, tf.data.Dataset.from_tensor_slices(columns).batch(50)), expected)


def test_evaluation_is_the_mean_over_rows_and_not_over_batches(worker: MultiTaskModel) -> None:
    whole = worker.compute_losses(to_batch(TABLE, small.preprocessor()), training=False)
    found = worker.evaluate(TABLE, batch_size=16, return_dict=True, verbose=0)  # the last batch has two rows
    for task in ("rating", "liked", "mood"):
        assert found[f"{task}_loss"] == pytest.approx(float(whole[task][0]), rel=1e-5)
    predicted = predictions(worker, TABLE)["rating"]
    assert found["rating_rmse"] == pytest.approx(
        np.sqrt(np.average((predicted - TABLE["rating"]) ** 2, weights=TABLE["trust"])), rel=1e-4
    )
    weighted = [
        float(worker.compute_loss(batch)) * len(batch.labels["seen"])
        for batch in from_frame(TABLE, small.preprocessor(), 16)
    ]
    assert found["loss"] == pytest.approx(sum(weighted) / small.ROWS, rel=1e-5)


def test_missing_labels_of_one_task_leave_the_metrics_of_others_alone(worker: MultiTaskModel) -> None:
    expected = worker.evaluate(TABLE, return_dict=True, verbose=0)
    found = worker.evaluate(TABLE.assign(liked=np.nan), return_dict=True, verbose=0)
    assert found["liked_loss"] == found["liked_auc"] == 0
    for name in expected:
        if name not in ("loss", "unweighted_loss") and not name.startswith("liked"):
            assert found[name] == expected[name], name


def test_the_log_of_an_epoch_is_the_mean_over_its_rows(worker: MultiTaskModel) -> None:
    rate = float(worker.optimizer.learning_rate)
    worker.optimizer.learning_rate.assign(0.0)  # no weight changes, so that the means can be computed afterwards
    before = int(worker.optimizer.iterations)
    history = worker.fit(TABLE, batch_size=16, epochs=2, validation_data=TABLE, verbose=0).history
    worker.optimizer.learning_rate.assign(rate)
    whole = worker.compute_losses(to_batch(TABLE, small.preprocessor()), training=False)
    for task in ("rating", "liked", "mood"):
        assert history[f"{task}_loss"] == pytest.approx([float(whole[task][0])] * 2, rel=1e-5)
        assert history[f"{task}_weight"] == [1.0, 1.0]
    assert history["val_loss"][1] == pytest.approx(
        float(worker.compute_loss(to_batch(TABLE, small.preprocessor()))), rel=1e-5
    )
    assert worker.optimizer.iterations == before + 2 * 4


def test_a_table_may_change_its_length_between_calls(worker: MultiTaskModel) -> None:
    # Keras has one number of steps per call for all functions of a model, with which these calls once lost outputs.
    before = int(worker.optimizer.iterations)
    steps = 0
    for rows, size in ((50, 1), (3, 3), (50, 10), (40, 7)):
        worker.fit(TABLE[:rows], batch_size=size, epochs=2, validation_data=TABLE[:11], verbose=0)
        steps += 2 * -(-rows // size)
        assert int(worker.optimizer.iterations) == before + steps
        assert int(worker.steps_per_execution) == min(32, -(-rows // size))
        for length in (33, 1):
            assert len(predictions(worker, TABLE[:length], batch_size=4)["rating"]) == length
            found = worker.evaluate(TABLE[:length], batch_size=4, return_dict=True, verbose=0)
            errors = predictions(worker, TABLE[:length])["rating"] - TABLE["rating"][:length]
            assert found["rating_rmse"] == pytest.approx(
                np.sqrt(np.average(errors**2, weights=TABLE["trust"][:length])), rel=1e-4
            )


def test_a_data_set_of_unknown_length_is_read_to_its_end(worker: MultiTaskModel) -> None:
    dataset = from_frame(TABLE, small.preprocessor(), 10).filter(lambda batch: True)
    before = int(worker.optimizer.iterations)
    worker.fit(dataset, epochs=2, verbose=0)
    assert int(worker.optimizer.iterations) == before + 2 * 5
    assert int(worker.steps_per_execution) == 1


def test_training_learns_and_repeats_itself_whatever_the_steps_per_execution() -> None:
    histories = []
    for steps in (None, 3):
        model = small.model(negatives=4, regularization=Regularization(dropout=0.1))
        model.compile(LazyAdam(0.02), steps_per_execution=steps)
        histories.append(model.fit(TABLE, batch_size=10, epochs=8, verbose=0).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-4, err_msg=name)
    for task in ("rating", "liked", "mood"):
        losses = histories[0][f"{task}_loss"]
        assert losses[-1] < 0.8 * losses[0], task


def test_a_model_can_predict_before_it_is_compiled() -> None:
    heads = small.tasks()
    model = MultiTaskModel(small.network(heads), heads, small.preprocessor())
    assert predictions(model, TABLE[:3])["liked"].shape == (3,)


def test_a_traced_step_has_one_edge_for_each_column_of_the_batch() -> None:
    model = small.model()
    batch = to_batch(small.table(), small.preprocessor())
    graph = model._traced_train_on.get_concrete_function(batch).graph
    columns = {tensor.op.name for tensor in graph.inputs}
    waits = [sum(edge.name in columns for edge in operation.control_inputs) for operation in graph.get_operations()]
    # One operation waits for all columns and the rest for this operation. If each waited for every column, the graph
    # would grow with the square of the number of tasks.
    assert max(waits) == len(tf.nest.flatten(batch))
    assert sorted(waits)[-2] <= 1


def test_an_observer_is_called_once_in_a_trace_and_kept_traces_are_used_again() -> None:
    model, calls = small.model(), {"first": 0, "second": 0}

    def observer(name: str) -> Any:
        def observe(step: TrainingStep) -> None:
            calls[name] += 1
            assert len(step.losses) == len(model.tasks)

        return observe

    first, second = observer("first"), observer("second")
    for observe in (first, None, first, None, second, None):
        model.observe_steps(observe)
        model.fit(small.table(), batch_size=10, epochs=2, verbose=0)
    assert calls == {"first": 1, "second": 1}
    assert model._traced_train_on.experimental_get_tracing_count() == 1
