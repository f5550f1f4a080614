from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import adaptation, data, layers, models, recipes, serving, tasks
from tfmtl._keras import keras, tf

TABLE = pd.DataFrame(
    {
        "user": [f"u{i % 7}" for i in range(60)],
        "item": [f"i{i % 11}" for i in range(60)],
        "age": [float(i % 5) for i in range(60)],
        "click": [float(i % 3 == 0) for i in range(60)],
    }
)
SCHEMA = data.Schema(
    [data.Categorical("user"), data.Numeric("age")], [data.Categorical("item")], labels=[data.Label("click")]
)


def model_of(table: pd.DataFrame = TABLE) -> models.MultiTaskModel:
    preprocessor = data.Preprocessor.fit(SCHEMA, TABLE)
    heads = [tasks.BinaryClassification("click")]
    inputs = recipes.ranking_inputs(preprocessor, heads, table)
    network = models.build_network(preprocessor, heads, interactions=inputs, embedding_dim=4)
    recipes.fill_rates(network, preprocessor, heads, table)
    return models.MultiTaskModel(network, heads, preprocessor)


def read(model: models.MultiTaskModel, *, training: bool) -> Any:
    """Return the numbers of the rows of the table [rows, features * columns]."""
    layer = model.network.get_layer("rates")
    features = data.to_batch(TABLE, model.preprocessor).features
    probe = keras.Model(model.network.input, layer.output)
    return probe(features, training=training).numpy()


def test_a_row_reads_the_vector_of_its_fold_in_training_and_the_last_one_otherwise() -> None:
    layer = layers.CategoryRates({"x": 9, "y": 9}, ["rate", "count"], folds=3)
    indices = [tf.constant([3, 0]), tf.constant([4, 8])]
    folds = [(3 * 1_000_003 + 4) % 2_147_483_647 % 3, 8 % 3]
    assert layer.fold_of(indices).numpy().tolist() == folds == [1, 2]
    looked_up = np.arange(32, dtype=np.float32).reshape(2, 16)  # 2 features, 4 vectors, 2 columns
    expected = looked_up.reshape(2, 2, 4, 2)
    np.testing.assert_array_equal(layer((looked_up, indices), training=True), expected[[0, 1], :, folds].reshape(2, 4))
    np.testing.assert_array_equal(layer((looked_up, indices)), expected[:, :, 3].reshape(2, 4))


def test_in_training_no_number_of_a_row_contains_its_label() -> None:
    """Only the constant that all numbers are relative to, the log-odds of the mean, may change."""
    before = read(model_of(), training=True)
    for row in (0, 17):
        changed = TABLE.assign(click=np.where(TABLE.index == row, 1 - TABLE["click"], TABLE["click"]))
        after = read(model_of(changed), training=True)
        assert abs(after[row] - before[row]).max() < 0.05
        assert abs(read(model_of(changed), training=False)[row] - read(model_of(), training=False)[row]).max() > 0.1


def test_growth_and_a_saved_model_change_nothing(tmp_path: pathlib.Path) -> None:
    model = model_of()
    model.compile("adam")
    model.fit(TABLE, epochs=1, batch_size=16, verbose=0)
    later = pd.concat([TABLE.head(5), TABLE.head(5).assign(user="new", item="newer")], ignore_index=True)
    before = model.predict(later, verbose=0)["click"]
    grown = adaptation.extend_vocabularies(model, later)
    assert grown.preprocessor.statistics.size("user") == model.preprocessor.statistics.size("user") + 1
    np.testing.assert_array_equal(grown.predict(later, verbose=0)["click"], before)
    folder = serving.export(model, tmp_path / "export")
    served = tf.saved_model.load(str(folder)).signatures["rank"](
        **{
            name: tf.constant(later[name].to_numpy().astype("float32" if name == "age" else str))
            for name in ("user", "age", "item")
        }
    )
    np.testing.assert_allclose(np.ravel(served["click"]), before, rtol=1e-6)


def test_tables_are_not_trained() -> None:
    model = model_of()
    before = model.network.get_layer("rates_table").get_weights()[0]
    assert abs(before).max() > 0
    model.compile("adam")
    model.fit(TABLE, epochs=1, batch_size=16, verbose=0)
    np.testing.assert_array_equal(model.network.get_layer("rates_table").get_weights()[0], before)


def test_wrong_arguments_are_refused() -> None:
    for arguments, sentence in (
        (({}, ["rate"]), "`sizes` must name"),
        (({"x": 3}, "rate"), "`columns` must be several"),
        (({"x": 3}, ["rate"], 1), "`folds` must be at least 2"),
    ):
        with pytest.raises(ValueError, match=sentence):
            layers.CategoryRates(*arguments)
