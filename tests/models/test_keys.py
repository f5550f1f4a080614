"""A width of 0 leaves a feature out of the network: it only names its row."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.models import small
from tests.models.test_over_sequences import SCHEMA, gradients_of, model_of, sequences, table
from tfmtl import serving
from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Preprocessor, Schema, to_batch
from tfmtl.data.sequences import events_of
from tfmtl.evaluation import evaluate
from tfmtl.layers import DotInteraction, SelfAttentionHistory
from tfmtl.models import MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.models.encoders import FeatureEncoder
from tfmtl.tasks import Regression

WIDTHS = {"user": 0, "": 4}


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    made = model_of(
        {"recent": SelfAttentionHistory(relative=True)}, eager=False, embedding_dim=WIDTHS, tower_units=(4,)
    )
    made.fit(sequences(), batch_size=2, verbose=0)
    return made


def test_the_network_does_not_read_it(model: MultiTaskModel) -> None:
    assert not any(v.name.startswith("user") for v in model.network.weights)
    rows = table()
    others = rows.assign(user=rows["user"].to_numpy()[::-1])
    for task, value in model.predict(rows, verbose=0).items():
        np.testing.assert_array_equal(model.predict(others, verbose=0)[task], value)


def test_an_event_of_a_sequence_is_a_row(model: MultiTaskModel) -> None:
    of_rows, expected = gradients_of(model, to_batch(table(), model.preprocessor))
    of_events, found = gradients_of(model, events_of(sequences(), SCHEMA))
    for task, (loss, weight) in of_rows.items():
        np.testing.assert_allclose(of_events[task], (loss, weight), rtol=1e-5)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_it_is_saved_measured_and_served(model: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    rows = table()
    expected = model.predict(rows, verbose=0)["rating"]
    loaded = load_model(save_model(model, tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict(rows, verbose=0)["rating"], expected, rtol=1e-6)
    assert 0 <= evaluate(model, rows, ks=(1,))["seen", "recall@1"] <= 1
    corpus = model.candidates
    assert corpus is not None
    path = serving.RecommenderExporter(max_k=len(corpus)).export(model, tmp_path / "served")
    served = tf.saved_model.load(str(path)).signatures["retrieve"]
    lists = tf.ragged.constant(rows["recent"].tolist()).to_tensor(default_value="")
    raw = {"user": tf.constant(rows["user"].tolist()), "age": tf.constant(rows["age"], tf.float32)}
    answer = served(**raw, recent=lists)
    query = model.tower("query")
    features = {n: v for n, v in to_batch(rows, model.preprocessor).features.items() if n in query.input}
    scores = tf.matmul(query(features)["seen"], model.tower("candidate")(corpus.features)["seen"], transpose_b=True)
    best = np.argsort(-scores.numpy(), axis=1, kind="stable")
    assert corpus.ids[best].astype(bytes).tolist() == answer["ids"].numpy().tolist()


def test_a_part_that_needs_its_embedding_is_refused() -> None:
    dot = DotInteraction(["user", "item"], name="dot")
    with pytest.raises(ValueError, match="Feature 'user' has no embedding: its `embedding_dim` is 0"):
        small.network(embedding_dim={"user": 0, "": 3}, interactions=[dot])


def test_a_context_may_only_name_rows() -> None:
    rows = table().assign(session=[f"s{k}" for k in range(len(table()))])
    context = [Categorical("session")]
    fitted = Preprocessor.fit(Schema([Categorical("user")], [], context, [Label("rating")]), rows)
    tasks, dims = [Regression("rating")], {"session": 0, "": 4}
    built = MultiTaskModel(build_network(fitted, tasks, embedding_dim=dims, tower_units=[2]), tasks, fitted)
    expected = built.predict(rows, verbose=0)["rating"]
    np.testing.assert_array_equal(built.predict(rows.assign(session="s0"), verbose=0)["rating"], expected)
    encoder = FeatureEncoder(fitted, dims, Regularization(context_dropout=0.5), seed=0)
    read, given = encoder.indices("session")
    assert read is given  # the dropout of the context does not change keys


def test_a_role_of_keys_alone_is_refused() -> None:
    sentence = "The candidate needs a feature that is read: give one of these an `embedding_dim` above 0. Received: "
    with pytest.raises(ValueError, match=sentence):
        model_of(embedding_dim={"item": 0, "": 3})
