"""Towers without layers: `tower_units=()` is matrix factorisation."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, to_batch, to_columns
from tfmtl.evaluation import evaluate
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.serving import export
from tfmtl.serving.recommender import Recommender
from tfmtl.tasks import BinaryClassification, Retrieval

SCHEMA = Schema([Categorical("user")], [Categorical("item")], labels=[Label("seen"), Label("liked")])
TABLE = small.table()[["user", "item", "seen", "liked"]]


def model_of(*others: Any, **retrieval: Any) -> MultiTaskModel:
    preprocessor = Preprocessor.fit(SCHEMA, TABLE)
    heads = [Retrieval("seen", **retrieval), *others]
    network = build_network(preprocessor, heads, embedding_dim=3, tower_units=(), regularization=small.NO_NOISE)
    model = MultiTaskModel(network, heads, preprocessor)
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=True)
    return model


def rows(model: MultiTaskModel, name: str) -> np.ndarray:
    """Return the embedding of each row's value of a feature."""
    table = next(w for w in model.network.weights if w.shape[0] == model.preprocessor.statistics.size(name))
    found: np.ndarray = table.numpy()[to_batch(TABLE, model.preprocessor).features[name]]
    return found


@pytest.mark.parametrize("others", [[], [BinaryClassification("liked")]])
def test_a_score_is_the_dot_product_of_two_embeddings(others: list[Any]) -> None:
    model = model_of(*others)
    user, item = rows(model, "user"), rows(model, "item")
    np.testing.assert_allclose(model.predict(TABLE, verbose=0)["seen"], (user * item).sum(1), rtol=1e-5)
    if not others:
        assert {tuple(weight.shape) for weight in model.network.weights} == {(8, 3), (11, 3)}


def test_it_is_trained_measured_saved_and_exported_with_normalized_embeddings(tmp_path: pathlib.Path) -> None:
    model = model_of(BinaryClassification("liked"), normalize=True, temperature=0.1)
    log = model.fit(TABLE, epochs=5, verbose=0).history
    assert log["seen_loss"][-1] < log["seen_loss"][0] - 0.1
    user, item = (rows(model, name) for name in ("user", "item"))
    cosine = (user * item).sum(1) / np.linalg.norm(user, axis=1) / np.linalg.norm(item, axis=1)
    np.testing.assert_allclose(model.predict(TABLE, verbose=0)["seen"], 10 * cosine, rtol=1e-4, atol=1e-4)
    assert 0 < evaluate(model, TABLE, ks=(3,))["seen", "recall@3"] <= 1
    loaded = load_model(save_model(model, tmp_path / "saved"))
    for name, values in model.predict(TABLE, verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(TABLE, verbose=0)[name], values)
    served = tf.saved_model.load(str(export(model, tmp_path / "served", max_k=4))).signatures
    query = {name: tf.constant(column) for name, column in to_columns(TABLE, SCHEMA.query).items()}
    memory = Recommender(model, max_k=4)
    for signature in ("retrieve", "recommend"):
        found = served[signature](**query)
        for name, values in getattr(memory, signature)(**query).items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_retrieval_with_its_own_layers_and_ranking_alone_allow_different_widths() -> None:
    schema = Schema(
        [Categorical("user"), Numeric("age")], [Categorical("item")], labels=[Label("seen"), Label("liked")]
    )
    table: pd.DataFrame = TABLE.assign(age=small.table()["age"])
    for head in (Retrieval("seen", units=[2]), BinaryClassification("liked")):
        network = build_network(Preprocessor.fit(schema, table), [head], embedding_dim=3, tower_units=())
        assert "interaction" not in [layer.name for layer in network.layers]
        assert set(network.output) == {head.name}
