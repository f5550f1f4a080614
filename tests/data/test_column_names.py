"""Columns of any name work in tables, files, raw data sets, histories, candidates and exports."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tfmtl
from tfmtl._keras import tf
from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    MultiValued,
    Numeric,
    Preprocessor,
    Schema,
    Text,
    open_files,
    to_batch,
    to_columns,
    with_histories,
    write_tfrecords,
)
from tfmtl.data.frames import encode_dataset
from tfmtl.evaluation import evaluate
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Retrieval

NAMES = {
    "user": "User ID",
    "year": "Year (A.D.)",
    "item": "item-id",
    "text": "Review Text",
    "tags": "tags;all",
    "seen": "Seen?",
    "liked": "Liked it",
}
SCHEMA = Schema(
    query=[
        Categorical("user", column="User ID"),
        Numeric("year", column="Year (A.D.)"),
        Categorical("period", dtype="int64", column="Year (A.D.)"),
    ],
    candidate=[
        Categorical("item", column="item-id"),
        Text("text", column="Review Text", min_count=1, max_length=3),
        MultiValued("tags", 2, separator="|", column="tags;all"),
    ],
    labels=[Label("seen", column="Seen?"), Label("liked", column="Liked it")],
)


def table(plain: bool = False) -> pd.DataFrame:
    row = np.arange(12)
    columns: dict[str, Any] = {
        "user": [f"u{k}" for k in row % 3],
        "year": 2000 + row % 4,
        "item": [f"i{k}" for k in row % 4],
        "text": [f"word{k} more" for k in row % 4],
        "tags": [f"a|b{k}" for k in row % 4],
        "seen": np.ones(12),
        "liked": row % 2 * 1.0,
    }
    return pd.DataFrame(columns).rename(columns={} if plain else NAMES)


@pytest.fixture(scope="module")
def fitted() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


@pytest.fixture(scope="module")
def expected(fitted: Preprocessor) -> dict[str, np.ndarray]:
    """Return the encoding by a schema of plain names."""
    roles = {"query": "user year period", "candidate": "item text tags"}
    features = SCHEMA.get_config()
    for role in roles:
        for feature in features[role]:
            feature["column"] = feature["name"]
    for label in features["labels"]:
        label["column"] = label["task"]
    plain = table(plain=True).assign(period=lambda frame: frame["year"])
    schema = Schema.from_config(features)
    batch = to_batch(plain, Preprocessor.fit(schema, plain))
    return {name: values.numpy() for name, values in batch.features.items()}


def assert_equal(found: Any, expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_table_is_read_by_columns(fitted: Preprocessor, expected: dict[str, np.ndarray]) -> None:
    assert list(SCHEMA.columns()) == [
        "User ID",
        "Year (A.D.)",
        "item-id",
        "Review Text",
        "tags;all",
        "Seen?",
        "Liked it",
    ]
    assert_equal(to_batch(table(), fitted).features, expected)
    assert_equal(to_batch(table().drop(columns=["Seen?", "Liked it"]), fitted, labels=False).features, expected)
    with pytest.raises(ValueError, match=r"The table lacks the columns \['Review Text'\] that the schema names"):
        to_batch(table().rename(columns={"Review Text": "text"}), fitted)


@pytest.mark.parametrize("suffix", ["tfrecord", "parquet", "csv"])
def test_files_are_read_by_columns(
    fitted: Preprocessor, expected: dict[str, np.ndarray], suffix: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "tfrecord":
        write_tfrecords(table(), SCHEMA, path)
    else:
        (table().to_parquet if suffix == "parquet" else table().to_csv)(path, index=False)
    read = pd.concat(open_files(path, SCHEMA).chunks())
    assert_equal(to_batch(read, Preprocessor.fit(SCHEMA, open_files(path, SCHEMA))).features, expected)


def test_raw_data_sets_have_columns_or_features(fitted: Preprocessor, expected: dict[str, np.ndarray]) -> None:
    columns = {name: tf.constant(column.tolist()) for name, column in table().items()}
    whole = tf.data.Dataset.from_tensors(columns)
    assert_equal(next(iter(encode_dataset(whole, fitted))).features, expected)
    raw = {name: tf.constant(values) for name, values in to_columns(table(), SCHEMA.features.values()).items()}
    labels = {task: tf.ones([12]) for task in SCHEMA.tasks}
    pairs = tf.data.Dataset.from_tensors((raw, labels))
    assert_equal(next(iter(encode_dataset(pairs, fitted))).features, expected)
    with pytest.raises(ValueError, match=r"The data set lacks the features \['Review Text'\]"):
        encode_dataset(tf.data.Dataset.from_tensors({n: v for n, v in columns.items() if n != "Review Text"}), fitted)


def test_histories_are_columns_too() -> None:
    schema = Schema(
        [Categorical("user", column="User ID"), IdSequence("recent", of="item", max_length=2, column="Recently seen")],
        [Categorical("item", column="item-id")],
    )
    frame = with_histories(table().assign(day=np.arange(12)), schema, "day")
    assert frame["Recently seen"].tolist()[9] == ["i2", "i3"]  # user 0 saw items 0, 3, 2 before
    found = to_batch(frame, Preprocessor.fit(schema, frame)).features
    np.testing.assert_array_equal(found["recent"][3], [found["item"][0], 0])


def test_a_model_serves_features_by_their_names(fitted: Preprocessor, tmp_path: pathlib.Path) -> None:
    tasks = [Retrieval("seen"), BinaryClassification("liked")]
    network = build_network(fitted, tasks, tfmtl.SharedBottom(units=[3]), embedding_dim=2, tower_units=[2])
    model = MultiTaskModel(network, tasks, fitted)
    assert sorted(model.candidates.ids.tolist()) == ["i0", "i1", "i2", "i3"]
    assert np.isfinite(evaluate(model, table(), ks=[2])).all()
    served = tf.saved_model.load(str(tfmtl.export(model, tmp_path / "served", max_k=2))).signatures["rank"]
    assert set(served.structured_input_signature[1]) == {"user", "year", "period", "item", "text", "tags"}
    raw = to_columns(table(), model.schema.features.values())
    answer = served(**{name: tf.constant(values) for name, values in raw.items()})["liked"]
    assert np.abs(answer - model.predict(table(), verbose=0)["liked"]).max() == 0.0


def test_the_name_is_an_identifier_and_the_column_a_string() -> None:
    assert Categorical("a") == Categorical("a", column="a")
    with pytest.raises(ValueError, match="choose such a name, and give the table's column as `column`"):
        Text("Review Text")
    with pytest.raises(ValueError, match=r"`column` of feature 'a' must be a string\. Received: column=3"):
        Text("a", column=3)  # type: ignore[arg-type]
