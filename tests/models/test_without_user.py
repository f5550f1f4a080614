"""A model of texts and numbers, without the id of a user."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
import pytest

import tfmtl
from tfmtl import tasks
from tfmtl._keras import tf
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Preprocessor, Schema, Text, to_sequences, with_histories
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model

TABLE = pd.DataFrame(
    {"title": ["red shoe", "blue shoe", "red hat", ""], "price": [1.0, 2.0, None, 4.0], "sold": [1.0, 0.0, 1.0, 0.0]}
)


def test_it_is_trained_measured_saved_and_exported(tmp_path: pathlib.Path) -> None:
    preprocessor = Preprocessor.fit(Schema([Text("title"), Numeric("price")], labels=[Label("sold")]), TABLE)
    heads = [tasks.BinaryClassification("sold")]
    network = build_network(preprocessor, heads, embedding_dim=2, tower_units=[3])
    model = MultiTaskModel(network, heads, preprocessor)
    model.compile("adam", run_eagerly=True)
    history = model.fit(TABLE, validation_data=TABLE, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    assert tfmtl.evaluate(model, TABLE).loc[("sold", "auc")] >= 0
    expected = model.predict(TABLE, verbose=0)["sold"]
    loaded = load_model(save_model(model, tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict(TABLE, verbose=0)["sold"], expected)
    served = tf.saved_model.load(str(tfmtl.export(model, tmp_path / "served")))
    raw = {"title": tf.constant(TABLE["title"].tolist()), "price": tf.constant(TABLE["price"].to_numpy(np.float32))}
    (answer,) = served.signatures["serving_default"](**raw).values()
    np.testing.assert_allclose(np.ravel(answer), expected, rtol=1e-5)


def test_operations_on_users_name_the_cure() -> None:
    schema = Schema([Numeric("price"), IdSequence("recent", of="item")], [Categorical("item")])
    table = pd.DataFrame({"price": [1.0], "item": ["a"], "recent": [["a"]], "time": [1]})
    with pytest.raises(ValueError, match="`with_histories` needs the user, and the schema has none"):
        with_histories(table, schema, "time")
    with pytest.raises(ValueError, match="`to_sequences` needs the user, and the schema has none"):
        to_sequences(table, Preprocessor.fit(schema, table), "time")
