"""Labels that a loss cannot use are refused wherever they are read, although the training statistics were fine."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import data, evaluation
from tfmtl._keras import tf
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.models.label_checks import checked
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression

SCHEMA = data.Schema(
    [data.Categorical("user")],
    labels=[
        data.Label("buy", column="bought", sample_weight="trust"),
        data.Label("shelf", column="größe"),
        data.Label("spend"),
    ],
)
GOOD = pd.DataFrame(
    {
        "user": ["a", "b", "c", "d"] * 2,
        "bought": [0.0, 1.0, np.nan, 1.0] * 2,
        "trust": 1.0,
        "größe": [0.0, 1.0, 2.0, np.nan] * 2,
        "spend": [1.0, 2.0, 3.0, 4.0] * 2,
    }
)
CURE = "correct these labels, or make them missing."
BUY = "Task 'buy' needs labels that are 0 or 1; column 'bought' holds others"
SHELF = "Task 'shelf' needs labels that are integers from 0 to 2 (see `Label.classes` for others); column 'größe' holds"
SPEND = "Task 'spend' needs labels that are above -1, because of transform='log1p'; column 'spend' holds others"


def wrong(column: str, value: float, row: int = 5) -> pd.DataFrame:
    frame = GOOD.copy()
    frame.loc[row, column] = value
    return frame


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    preprocessor = data.Preprocessor.fit(SCHEMA, GOOD)
    tasks = [
        BinaryClassification("buy"),
        MultiClassClassification("shelf", 3),
        Regression.from_statistics("spend", preprocessor.statistics, transform="log1p"),
    ]
    network = build_network(preprocessor, tasks, embedding_dim=2, tower_units=(2,))
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile()
    return model


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("bought", 7, f"{BUY} in 1 rows; {CURE} Received: label=7.0, row=5."),
        ("bought", 0.5, f"{BUY} in 1 rows; {CURE} Received: label=0.5, row=5."),
        ("größe", 2.5, f"{SHELF} others in 1 rows; {CURE} Received: label=2.5, row=5."),
        ("größe", 9, f"{SHELF} others in 1 rows; {CURE} Received: label=9.0, row=5."),
        ("größe", -1, f"{SHELF} others in 1 rows; {CURE} Received: label=-1.0, row=5."),
        ("spend", -1, f"{SPEND} in 1 rows; {CURE} Received: label=-1.0, row=5."),
    ],
)
def test_a_wrong_label_of_a_table_is_named_before_the_first_step(
    model: MultiTaskModel, column: str, value: float, sentence: str
) -> None:
    frame = wrong(column, value)
    before = [weight.numpy() for weight in model.weights]
    for use in (
        lambda: model.fit(frame, verbose=0),
        lambda: model.fit(data.to_batch(frame, model.preprocessor), verbose=0),
        lambda: model.evaluate(frame, verbose=0),
        lambda: evaluation.evaluate(model, frame),
        lambda: evaluation.trivial_baseline(model, GOOD, frame),
        lambda: evaluation.trivial_baseline(model, frame, GOOD),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            use()
    for weight, value_before in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value_before)


def test_validation_labels_are_checked_as_well(model: MultiTaskModel) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{BUY} in 1 rows; {CURE} Received: label=2.0, row=0.")):
        model.fit(GOOD, validation_data=wrong("bought", 2, row=0), verbose=0)


def test_a_label_without_weight_is_no_label(model: MultiTaskModel) -> None:
    frame = wrong("bought", -1).assign(trust=[1, 1, 1, 1, 1, 0, 1, 1])
    missing = wrong("bought", np.nan)
    pairs = [model.evaluate(table, verbose=0, return_dict=True) for table in (frame, missing)]
    assert pairs[0] == pytest.approx(pairs[1])


def streams(frame: pd.DataFrame, folder: pathlib.Path, preprocessor: data.Preprocessor) -> dict[str, Any]:
    frame.to_csv(folder / "rows.csv", index=False)
    files = data.open_files(folder / "rows.csv", SCHEMA)
    raw = tf.data.Dataset.from_tensor_slices({name: column.to_numpy() for name, column in frame.items()}).batch(4)
    return {"dataset": raw, "files": files, "cache": data.cache(frame, preprocessor, folder / "rows.cache")}


@pytest.mark.parametrize("form", ["dataset", "files", "cache"])
def test_a_wrong_label_of_a_stream_ends_with_the_same_sentence(
    model: MultiTaskModel, tmp_path: pathlib.Path, form: str
) -> None:
    stream = streams(wrong("größe", 9, row=2), tmp_path, model.preprocessor)[form]
    sentence = f"{SHELF} others in a batch; {CURE} Received: label=9.0, row of the batch=2."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        model.evaluate(stream, verbose=0)
    with pytest.raises(ValueError, match=re.escape(f"{SHELF} others in a batch; {CURE} Received: label=9.0, row")):
        model.fit(stream, batch_size=None if form == "dataset" else 4, memory_bytes=0, verbose=0)


def test_another_fault_of_a_step_stays_as_it_is(model: MultiTaskModel) -> None:
    def broken(batch: data.Batch) -> data.Batch:
        fault = tf.debugging.Assert(tf.size(batch.labels["buy"]) < 0, ["Another fault."])
        with tf.control_dependencies([fault]):
            return batch._replace(labels={**batch.labels, "spend": tf.identity(batch.labels["spend"])})

    stream = tf.data.Dataset.from_tensors(data.to_batch(GOOD, model.preprocessor)).map(broken)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Another fault"):
        model.evaluate(stream, verbose=0)


def test_a_batch_without_rows_has_no_wrong_label() -> None:
    """Replicas of a distribution strategy may get no row of a last batch."""
    nothing = tf.zeros([0])
    assert checked(BinaryClassification("buy"), SCHEMA, nothing, nothing).shape == [0]
