"""Every argument of Keras' methods works or is refused in one sentence."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.data import (
    Batch,
    Categorical,
    IdSequence,
    Label,
    Preprocessor,
    Schema,
    from_frame,
    to_batch,
    to_columns,
    to_sequences,
)
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification

TABLE = small.table()
LABELS = "labels are columns of `x` that the schema names"
WEIGHTS = r"named in `Label\(task, sample_weight=column\)`"
GENERATORS = "it is an argument for Python generators"
TASKS = "tasks have losses and metrics"
OF_WORKERS = {"max_queue_size": (3, GENERATORS), "workers": (2, GENERATORS), "use_multiprocessing": (True, GENERATORS)}

REFUSED: dict[str, dict[str, tuple[Any, str]]] = {
    "fit": {
        "y": (TABLE["liked"], LABELS),
        "class_weight": ({0: 1.0, 1: 2.0}, WEIGHTS),
        "sample_weight": (np.ones(small.ROWS), WEIGHTS),
        **OF_WORKERS,
    },
    "evaluate": {"y": (TABLE["liked"], LABELS), "sample_weight": (np.ones(small.ROWS), WEIGHTS), **OF_WORKERS},
    "predict": OF_WORKERS,
    "train_on_batch": {
        "y": (TABLE["liked"], LABELS),
        "sample_weight": (np.ones(small.ROWS), WEIGHTS),
        "class_weight": ({0: 1.0}, WEIGHTS),
    },
    "test_on_batch": {"y": (TABLE["liked"], LABELS), "sample_weight": (np.ones(small.ROWS), WEIGHTS)},
    "predict_on_batch": {},
    "compile": {
        "loss": ("mse", TASKS),
        "metrics": (["mae"], r"give a task `extra_metrics=\[...\]`"),
        "weighted_metrics": (["mae"], r"give a task `extra_metrics=\[...\]`"),
        "loss_weights": ({"liked": 2.0}, r"give the model `balancer=FixedWeights\({...}\)`"),
        "pss_evaluation_shards": ("auto", "evaluation with parameter servers runs in the chief"),
    },
}
"""By method and argument, a value and the cure that its refusal names."""

TAKEN = {
    "fit": {
        "x", "batch_size", "epochs", "verbose", "callbacks", "validation_split", "validation_data", "shuffle",
        "initial_epoch", "steps_per_epoch", "validation_steps", "validation_batch_size", "validation_freq",
    },
    "evaluate": {"x", "batch_size", "verbose", "steps", "callbacks", "return_dict"},
    "predict": {"x", "batch_size", "verbose", "steps", "callbacks"},
    "train_on_batch": {"x", "reset_metrics", "return_dict"},
    "test_on_batch": {"x", "reset_metrics", "return_dict"},
    "predict_on_batch": {"x"},
    "compile": {"optimizer", "run_eagerly", "steps_per_execution", "jit_compile"},
}  # fmt: skip
"""Arguments that work; the tests of this file and of `test_fit.py` use them."""


@pytest.mark.parametrize("method", REFUSED)
def test_no_argument_of_keras_is_forgotten(method: str) -> None:
    def names(model: type) -> list[str]:
        parameters = inspect.signature(getattr(model, method)).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert names(MultiTaskModel) == names(keras.Model)  # in the same order, so that positional arguments fit
    assert {"self", *REFUSED[method], *TAKEN[method]} == set(names(keras.Model))


@pytest.mark.parametrize(("method", "argument"), [(m, a) for m, arguments in REFUSED.items() for a in arguments])
def test_an_argument_that_does_not_apply_is_refused(worker: MultiTaskModel, method: str, argument: str) -> None:
    value, cure = REFUSED[method][argument]
    first = "adam" if method == "compile" else TABLE
    with pytest.raises(ValueError, match=cure) as error:
        getattr(worker, method)(first, **{argument: value})
    assert f"`{method}` takes no `{argument}`: " in str(error.value)
    assert f"Received: {argument}=" in str(error.value)


def spied(monkeypatch: pytest.MonkeyPatch, model: MultiTaskModel, method: str) -> list[dict[str, Any]]:
    """Return a list to which calls of a method of Keras append their arguments, without running it."""
    calls: list[dict[str, Any]] = []

    def spy(self: Any, x: Any, **options: Any) -> None:
        calls.append({"x": x, **options})

    monkeypatch.setattr(keras.Model, method, spy)
    return calls


def ages(dataset: Any) -> list[list[float]]:
    """Return the encoded age of each row, by batch."""
    return [np.asarray(batch.features["age"])[:, 0].tolist() for batch in dataset]


def rows(batches: list[list[float]]) -> list[float]:
    return sorted(value for batch in batches for value in batch)


def test_shuffling_can_be_switched_off(worker: MultiTaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch, worker, "fit")
    for shuffle in (False, True):
        worker.fit(TABLE, batch_size=16, shuffle=shuffle)
    kept, mixed = (ages(call["x"]) for call in calls)
    assert kept == ages(from_frame(TABLE, small.preprocessor(), 16))
    assert kept != mixed
    assert rows(kept) == rows(mixed)
    with pytest.raises(ValueError, match=r"`shuffle` must be True or False\. Received: shuffle='batch'"):
        worker.fit(TABLE, shuffle="batch")


def test_the_batches_of_validation_do_not_follow_those_of_training() -> None:
    model = small.model("sgd")
    model.optimizer.learning_rate = 0.0
    losses = {}
    for size in (4, 50):
        history = model.fit(TABLE, batch_size=size, validation_data=TABLE, verbose=0).history
        losses[size] = history["val_loss"]
        assert history["val_seen_loss"] == pytest.approx(
            [float(model.compute_losses(to_batch(TABLE, small.preprocessor()), training=False)["seen"][0])]
        )
    assert losses[4] == losses[50] == [model.evaluate(TABLE, return_dict=True, verbose=0)["loss"]]
    history = model.fit(TABLE, batch_size=50, validation_data=TABLE, validation_batch_size=4, verbose=0).history
    assert history["val_loss"] == pytest.approx([model.evaluate(TABLE, batch_size=4, verbose=0)[0]])
    assert history["val_seen_loss"][0] < 0.7 * float(np.log(small.ROWS))  # 4 candidates instead of 50


def test_epochs_have_the_given_number_of_steps(worker: MultiTaskModel) -> None:
    before = int(worker.optimizer.iterations)
    worker.fit(TABLE, batch_size=16, steps_per_epoch=7, epochs=4, verbose=0)  # 28 steps, 4 read all rows
    assert int(worker.optimizer.iterations) == before + 28
    worker.fit(TABLE, batch_size=16, steps_per_epoch=2, epochs=5, initial_epoch=3, verbose=0)
    assert int(worker.optimizer.iterations) == before + 28 + 4


def test_given_steps_read_all_rows_equally_often(worker: MultiTaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch, worker, "fit")
    worker.fit(TABLE, batch_size=10, steps_per_epoch=3)
    passes = ages(calls[0]["x"].take(10))
    assert rows(passes[:5]) == rows(passes[5:]) == rows(ages([_whole()]))
    assert passes[:5] != passes[5:]


def _whole() -> Batch:
    return to_batch(TABLE, small.preprocessor())


def test_a_data_set_must_last_for_the_given_steps(worker: MultiTaskModel) -> None:
    dataset = from_frame(TABLE, small.preprocessor(), 10)
    with pytest.raises(ValueError, match=r"is 6, but the data set ends after 5 batches; call its `repeat\(\)`"):
        worker.fit(dataset, steps_per_epoch=3, epochs=2)
    before = int(worker.optimizer.iterations)
    worker.fit(dataset.repeat(), steps_per_epoch=3, epochs=2, verbose=0)
    assert int(worker.optimizer.iterations) == before + 6
    for name in ("batch_size", "validation_batch_size"):
        with pytest.raises(ValueError, match=f"`{name}` is for tables and files; .* Received: {name}=7"):
            worker.fit(dataset, validation_data=dataset, **{name: 7})


def test_a_table_can_be_split(worker: MultiTaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch, worker, "fit")
    for source in (TABLE, _whole()):
        worker.fit(source, validation_split=0.2)
        train, validation = (ages(calls[-1][name]) for name in ("x", "validation_data"))
        every = ages([_whole()])[0]
        assert validation == [every[40:]]
        assert sorted(train[0]) == sorted(every[:40])
    worker.fit(TABLE, validation_split=0.2, validation_data=TABLE)  # as in Keras, the data win
    assert len(ages(calls[-1]["x"])[0]) == small.ROWS
    with pytest.raises(ValueError, match="`validation_split` divides a table in memory; give `validation_data`"):
        worker.fit(from_frame(TABLE, small.preprocessor(), 10), validation_split=0.5)
    with pytest.raises(ValueError, match="leaves a part of the 50 rows empty"):
        worker.fit(TABLE, validation_split=0.999)


def test_validation_steps_and_frequency(worker: MultiTaskModel) -> None:
    history = worker.fit(
        TABLE,
        epochs=4,
        validation_data=TABLE,
        validation_batch_size=10,
        validation_steps=2,
        validation_freq=2,
        verbose=0,
    ).history
    assert len(history["loss"]) == 4
    assert len(history["val_loss"]) == 2
    expected = worker.evaluate(TABLE[:20], batch_size=10, return_dict=True, verbose=0)
    assert history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-5)
    assert worker.evaluate(TABLE, batch_size=10, steps=2, return_dict=True, verbose=0) == pytest.approx(expected)
    assert len(worker.predict(TABLE, batch_size=10, steps=2, verbose=0)["liked"]) == 20
    with pytest.raises(ValueError, match="`validation_freq` must be a positive integer"):
        worker.fit(TABLE, validation_data=TABLE, validation_freq=0)


def test_callbacks_in_every_form_of_keras(worker: MultiTaskModel) -> None:
    class Ends(keras.callbacks.Callback):
        count = 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.count += 1

    ends = Ends()
    handed = keras.callbacks.CallbackList([ends], add_history=True, model=worker)
    for callbacks in (ends, [ends], (ends,), handed, handed, None):
        worker.fit(TABLE, callbacks=callbacks, verbose=0)
    assert ends.count == 5
    assert [type(callback).__name__ for callback in handed.callbacks].count("_EndEpoch") == 1


def test_the_names_of_the_metrics_are_those_of_evaluate(worker: MultiTaskModel) -> None:
    by_name = worker.evaluate(TABLE, return_dict=True, verbose=0)
    assert worker.metrics_names == list(by_name)
    assert worker.evaluate(TABLE, verbose=0) == list(by_name.values())


def test_evaluation_and_prediction_keep_the_history(worker: MultiTaskModel) -> None:
    expected = worker.fit(TABLE, epochs=2, verbose=0).history
    worker.evaluate(TABLE, verbose=0)
    worker.predict(TABLE, verbose=0)
    assert worker.history.history is expected
    assert len(expected["loss"]) == 2


def test_the_progress_bar_prints_the_values_of_the_log(
    worker: MultiTaskModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras' own bar prints the mean over the batches of a running mean, except of names of metric objects."""
    found = worker.evaluate(TABLE, batch_size=10, return_dict=True, verbose=2)
    assert f"unweighted_loss: {found['unweighted_loss']:.4f}" in capsys.readouterr().out


def test_one_batch_in_every_form() -> None:
    one, other = small.model(), small.model()
    columns: dict[str, Any] = dict(to_columns(TABLE, small.SCHEMA.features.values()))
    columns |= {name: TABLE[name].to_numpy(np.float32) for name in ("seen", "rating", "trust", "liked")}
    columns["mood"] = TABLE["mood"].fillna("").to_numpy(object)
    expected = one.fit(TABLE, batch_size=small.ROWS, shuffle=False, verbose=0).history
    found = other.train_on_batch(TABLE, return_dict=True)
    assert found == pytest.approx({name: values[0] for name, values in expected.items()}, rel=1e-4)
    tested = one.evaluate(TABLE, return_dict=True, verbose=0)
    assert list(other.test_on_batch(TABLE)) == pytest.approx(list(tested.values()), rel=1e-4)
    predicted = one.predict(TABLE, verbose=0)
    for form in (TABLE, columns, _whole()):
        assert other.test_on_batch(form, return_dict=True) == pytest.approx(tested, rel=1e-4)
        served = other.predict_on_batch(form)
        for name, values in predicted.items():
            np.testing.assert_allclose(served[name], values, rtol=1e-4, atol=1e-5)
    kept = other.test_on_batch(TABLE[:10], reset_metrics=False, return_dict=True)
    assert kept["rating_loss"] != pytest.approx(other.test_on_batch(TABLE[:10], return_dict=True)["rating_loss"])
    assert len(other.train_on_batch(TABLE)) == len(found)
    events = to_sequences(TABLE.assign(moment=range(small.ROWS)), small.preprocessor(), "moment")
    assert np.isfinite(other.train_on_batch(events)).all()
    with pytest.raises(ValueError, match="One batch is a pandas table with rows"):
        other.train_on_batch(from_frame(TABLE, small.preprocessor(), 10))


def test_a_call_with_raw_features_names_the_cure(worker: MultiTaskModel) -> None:
    encoded = _whole().features
    raw = dict(to_columns(TABLE, small.SCHEMA.features.values()))
    cure = r"encode raw columns with `model.preprocessor\(columns\)`, or call `model.predict\(table\)`"
    for given in (TABLE, raw, {**encoded, "user": tf.zeros([50], tf.int64)}, {**encoded, "age": tf.zeros([50])}):
        with pytest.raises(TypeError, match=cure):
            worker(given)
    with pytest.raises(ValueError, match=r"lacks the features \['user'\]; encode raw columns"):
        worker({name: value for name, value in encoded.items() if name != "user"})
    np.testing.assert_allclose(worker(encoded)["liked"], worker(worker.preprocessor(raw))["liked"])


def test_a_model_that_is_not_compiled(worker: MultiTaskModel) -> None:
    model = worker.with_network(worker.network)
    for method in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        with pytest.raises(RuntimeError, match=f"`{method}` needs a compiled model; call `model.compile"):
            getattr(model, method)(TABLE)


@pytest.mark.parametrize("x", [iter([1]), [TABLE, TABLE], (TABLE, TABLE["liked"]), None, np.ones([3, 3])])
def test_other_forms_of_data_are_refused(worker: MultiTaskModel, x: Any) -> None:
    with pytest.raises(ValueError, match=r"Training data must be .* with the labels among its columns"):
        worker.fit(x)
    with pytest.raises(ValueError, match="Training data must be"):
        worker.evaluate(x)


@pytest.mark.parametrize("options", [{"steps_per_execution": "auto"}, {"metrics": []}])
def test_other_arguments_of_compile_change_no_loss(options: dict[str, Any]) -> None:
    model = small.model()
    model.compile(keras.optimizers.SGD(0.0), **options)
    history = model.fit(TABLE, batch_size=25, shuffle=False, validation_data=TABLE, verbose=0).history
    assert history["val_loss"] == pytest.approx([float(model.compute_loss(_whole()))], rel=1e-4)
    assert int(model.steps_per_execution) == 2


def test_xla_with_retrieval_and_steps_below_one_are_refused() -> None:
    """On this table XLA gave the loss 5.014 for 4.677."""
    model = small.model()
    with pytest.raises(ValueError, match=r"takes no `jit_compile` with the tasks \['seen'\]: XLA pads the positives"):
        model.compile("adam", jit_compile=True)
    with pytest.raises(ValueError, match="`steps_per_execution` must be a positive integer"):
        model.compile("adam", steps_per_execution=0)


class _Sizes(keras.callbacks.Callback):
    """The rows of each batch of prediction."""

    def on_predict_begin(self, logs: Any = None) -> None:
        self.sizes: list[int] = []

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.sizes.append(len(logs["outputs"]["liked"]))


def test_evaluation_and_prediction_read_fewer_rows_where_lists_are_long() -> None:
    """2^18 positions: a list of 2^13 leaves 32 rows, one of 64 the usual 4096."""
    assert small.model().evaluation_batch_size == 4096
    schema = Schema(
        query=[Categorical("user"), IdSequence("recent", of="item", max_length=2**13)], candidate=[Categorical("item")],
        labels=[Label("liked")],
    )  # fmt: skip
    preprocessor = Preprocessor.fit(schema, TABLE)
    heads = [BinaryClassification("liked")]
    model = MultiTaskModel(build_network(preprocessor, heads, None, embedding_dim=2, seed=0), heads, preprocessor)
    model.compile()
    seen = _Sizes()
    found = model.predict(TABLE, callbacks=[seen], verbose=0)["liked"]
    assert seen.sizes == [32, small.ROWS - 32]
    np.testing.assert_allclose(found, model.predict(TABLE, batch_size=small.ROWS, verbose=0)["liked"], atol=1e-6)
    assert model.evaluate(TABLE, return_dict=True, verbose=0).keys() >= {"loss", "liked_loss"}
