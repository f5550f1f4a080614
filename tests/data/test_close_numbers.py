"""Numbers that differ by less than float32 resolves keep their digits from the table to the exported model."""

from __future__ import annotations

import math
import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tfmtl
from tfmtl._keras import tf
from tfmtl.data import (
    Categorical,
    Feature,
    Label,
    Numeric,
    Preprocessor,
    Schema,
    Vector,
    encode,
    open_files,
    to_columns,
)
from tfmtl.data import write_tfrecords as write
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Regression

SECONDS = 1.7e9 + 30.0 * np.arange(120)
DEVIATION = 30 * math.sqrt((120**2 - 1) / 12)
EXPECTED = (np.arange(120) - 59.5) * 30 / DEVIATION


def encoded(feature: Feature, values: Any, dtype: Any = None) -> np.ndarray:
    frame = pd.DataFrame({"user": "u", feature.name: pd.Series(values, dtype=dtype)})
    preprocessor = Preprocessor.fit(Schema([Categorical("user"), feature]), frame)
    return encode(preprocessor, to_columns(frame, preprocessor.schema.features.values()))[feature.name].numpy()


@pytest.mark.parametrize("dtype", ["float64", "int64", "Int64", "int64[pyarrow]", object])
def test_unix_seconds_of_an_hour_keep_their_order(dtype: Any) -> None:
    found = encoded(Numeric("ts"), SECONDS, dtype)
    np.testing.assert_allclose(found, np.stack([EXPECTED, np.zeros(120)], axis=1), atol=1e-6)
    assert len(np.unique(found[:, 0])) == 120


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        (1e15 + np.arange(9), np.arange(9)),
        (-1e15 - np.arange(9), -np.arange(9)),
        (1e-12 * np.arange(9), np.arange(9)),
        (1e-12 + 1e-19 * np.arange(9), np.arange(9)),
        (1e-30 * np.arange(9), np.arange(9)),
        (2**53 - 8 + np.arange(9), np.arange(9)),
        (1e30 * np.arange(9), np.arange(9)),
        (np.array([1.7e9, np.nan, 1.7e9 + 2]), np.array([0.0, np.nan, 2.0])),
    ],
    ids=str,
)
def test_numbers_of_every_scale(values: np.ndarray, steps: np.ndarray) -> None:
    scaled = (steps - np.nanmean(steps)) / np.nanstd(steps)
    missing = np.isnan(scaled)
    np.testing.assert_allclose(
        encoded(Numeric("a"), values), np.stack([np.where(missing, 0, scaled), missing], 1), atol=2e-3
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1.7e9, -1e15, 2.0**53])
def test_constants_are_zero(value: float) -> None:
    np.testing.assert_array_equal(encoded(Numeric("a"), [value] * 5), [[0, 0]] * 5)


def test_numbers_below_float32_are_a_constant() -> None:
    np.testing.assert_allclose(encoded(Numeric("a"), [0.0, 1e-45, 1e-40]), [[0, 0]] * 3, atol=1e-39)


def test_logarithms_that_are_close_together() -> None:
    logs = np.log1p(SECONDS)
    expected = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(encoded(Numeric("a", transform="log1p"), SECONDS)[:, 0], expected, atol=1e-5)


def test_vectors_with_a_close_position() -> None:
    rows = np.stack([np.arange(120.0), SECONDS], axis=1)
    for values in (list(rows), pd.Series(rows.tolist())):
        found = encoded(Vector("a", size=2), values, object)
        np.testing.assert_allclose(found, np.stack([EXPECTED, EXPECTED, np.zeros(120)], axis=1), atol=1e-6)


SCHEMA = Schema(
    query=[Categorical("user"), Numeric("ts"), Numeric("age")],
    candidate=[Categorical("item"), Numeric("added"), Vector("image", size=2)],
    labels=[Label("liked")],
)


def table() -> pd.DataFrame:
    row = np.arange(120)
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in row % 3],
            "ts": np.where(row == 7, np.nan, SECONDS),
            "age": 20.0 + row % 5,
            "item": [f"i{k}" for k in row],
            "added": SECONDS + 0.25,
            "image": [[k / 7, 1.0 + 1e-6 * k] for k in row],
            "liked": row % 2 * 1.0,
        }
    )


@pytest.fixture(scope="module")
def fitted() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


def test_the_schema_of_the_preprocessor_holds_the_types(fitted: Preprocessor) -> None:
    types = {name: feature.raw_spec.dtype for name, feature in fitted.schema.features.items()}
    assert {name for name, dtype in types.items() if dtype == tf.float64} == {"ts", "added", "image"}
    rebuilt = Preprocessor.from_config(fitted.get_config())
    assert rebuilt.schema == fitted.schema
    assert rebuilt.encodes_like(fitted)
    assert Preprocessor.fit(SCHEMA, table().assign(ts=1.0, added=2.0, image=[[1, 2]] * 120)).schema == SCHEMA


def test_a_declared_type_stays(fitted: Preprocessor) -> None:
    schema = Schema([Categorical("user"), Numeric("age", dtype="float64")])
    assert Preprocessor.fit(schema, table()).raw_signature(("age",))["age"].dtype == tf.float64
    with pytest.raises(ValueError, match=re.escape("`dtype` of feature 'a' must be 'float32' or 'float64'.")):
        Numeric("a", dtype="int64")  # type: ignore[arg-type]


def test_rounded_numbers_are_refused(fitted: Preprocessor) -> None:
    with pytest.raises(ValueError, match="Feature 'ts' must be a float64 tensor"):
        fitted({"ts": tf.constant(SECONDS, tf.float32)})
    whole = fitted({"ts": tf.constant(SECONDS, tf.int64)})["ts"]
    np.testing.assert_array_equal(whole, fitted({"ts": tf.constant(SECONDS, tf.float64)})["ts"])


def test_candidates_keep_their_digits(fitted: Preprocessor) -> None:
    assert fitted.fitted_candidates is not None
    columns = fitted.fitted_candidates.columns()
    np.testing.assert_array_equal(columns["added"], SECONDS + 0.25)
    assert len(np.unique(encode(fitted, columns)["added"][:, 0])) == 120


@pytest.mark.parametrize("shift", [0.0, -1.7e9 - 1])
def test_tfrecords_hold_close_whole_numbers(shift: float, tmp_path: pathlib.Path) -> None:
    schema = Schema([Categorical("user"), Numeric("ts")])
    frame = table().assign(ts=np.append(np.where(SECONDS[7] == SECONDS, np.nan, SECONDS)[:-1], 1.7e9) + shift)
    write(frame, schema, tmp_path / "a.tfrecord")
    found = pd.concat(open_files(tmp_path, schema).chunks())["ts"]
    np.testing.assert_array_equal(found, frame["ts"])


def test_tfrecords_refuse_numbers_that_they_would_round(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"Column 'added' holds numbers that float32 rounds by .* as Parquet\."):
        write(table(), SCHEMA, tmp_path / "a.tfrecord")
    assert list(tmp_path.iterdir()) == []


def test_labels_are_measured_before_they_are_rounded() -> None:
    schema = Schema([Categorical("user")], labels=[Label("until")])
    statistics = Preprocessor.fit(schema, table().assign(until=SECONDS)).statistics
    assert statistics.labels["until"].deviation == pytest.approx(DEVIATION)
    assert statistics.labels["until"].mean == 1.7e9 + 30 * 59.5
    task = Regression.from_statistics("until", statistics)
    assert task.scale == pytest.approx(DEVIATION)
    with pytest.raises(
        ValueError, match=r"task 'until' are float32, which rounds them by up to 64, .* such as 1700000000 "
    ):
        task.check_labels(statistics.labels["until"])
    days = Preprocessor.fit(schema, table().assign(until=1.7e9 + 86400.0 * np.arange(120))).statistics
    task.check_labels(days.labels["until"])


def test_the_exported_model_answers_alike(fitted: Preprocessor, tmp_path: pathlib.Path) -> None:
    tasks = [BinaryClassification("liked")]
    network = build_network(fitted, tasks, tfmtl.SharedBottom(units=[4]), embedding_dim=2)
    model = MultiTaskModel(network, tasks, fitted)
    signatures = tf.saved_model.load(str(tfmtl.export(model, tmp_path / "served"))).signatures
    raw = to_columns(table(), model.schema.features.values())
    predicted = model.predict(table(), verbose=0)["liked"]
    assert np.ptp(predicted) > 0
    answer = signatures["rank"](**{name: tf.constant(values) for name, values in raw.items()})["liked"]
    assert np.abs(answer - predicted).max() == 0.0
    exact = {name: raw[name] for name in ("added", "image")}
    written: dict[str, Any] = {name: np.vectorize(lambda x: f"{x:.17g}")(values) for name, values in exact.items()}
    whole = np.where(np.isnan(raw["ts"]), -1, raw["ts"]).astype(np.int64)
    examples = tfmtl.serving.to_examples({**raw, **written, "ts": whole})
    answer = signatures["rank_examples"](examples=examples)["liked"]
    assert np.abs(answer - predicted).max() == 0.0
