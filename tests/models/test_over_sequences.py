"""Training on sequences equals training on their events as single rows, at the cost of one pass per sequence."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import serving
from tfmtl._keras import keras, tf
from tfmtl.balancing import PCGrad
from tfmtl.compression import DistilledModel
from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    Numeric,
    Preprocessor,
    Schema,
    Sequences,
    to_batch,
    to_sequences,
    with_histories,
)
from tfmtl.data.sequences import events_of
from tfmtl.evaluation import evaluate
from tfmtl.layers import (
    Adversarial,
    AdversarialTraining,
    AttentionPooling,
    ContrastivePooling,
    FreeAdversarial,
    SelfAttentionHistory,
    SharedBottom,
    TargetAttention,
    VirtualAdversarial,
)
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network
from tfmtl.tasks import Regression, Retrieval

LENGTH, USERS, ITEMS = 6, 4, 9
SCHEMA = Schema(
    query=[Categorical("user"), Numeric("age"), IdSequence("recent", of="item", max_length=LENGTH)],
    candidate=[Categorical("item")],
    labels=[Label("rating")],
)
POOLINGS = {
    "mean": {},
    "attention": {"recent": AttentionPooling()},
    "self-attention": {"recent": SelfAttentionHistory(num_heads=2, relative=True)},
}


@functools.cache
def table() -> pd.DataFrame:
    """Users with 6, 5, 4 and 3 events: each fits in one sequence, so that no history is cut."""
    rng = np.random.default_rng(0)
    user = rng.permutation(np.repeat(np.arange(USERS), [6, 5, 4, 3]))
    item = rng.integers(0, ITEMS, len(user))
    rating = np.where(rng.random(len(user)) < 0.3, np.nan, 1.0 + (user + item) % 5)
    columns = {"user": [f"u{k}" for k in user], "age": 20.0 + user, "item": [f"i{k}" for k in item], "rating": rating}
    return with_histories(pd.DataFrame({**columns, "time": np.arange(len(user))}), SCHEMA, "time")


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


def model_of(
    poolings: Any = None, regularization: Any = None, balancer: Any = None, eager: bool = True, **network: Any
) -> MultiTaskModel:
    heads = [Retrieval("seen", full_softmax=True), Regression("rating", offset=3.0)]
    built = build_network(
        preprocessor(), heads, SharedBottom(units=(4,)),
        regularization=regularization or Regularization(unknown_rate=0.0), poolings=poolings,
        **{"embedding_dim": 4, "tower_units": (5, 4), **network},
    )  # fmt: skip
    model = MultiTaskModel(built, heads, preprocessor(), balancer, Candidates.from_frame(table(), preprocessor()))
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=eager)
    return model


@functools.cache
def sequences() -> Sequences:
    return to_sequences(table(), preprocessor(), "time")


def gradients_of(model: MultiTaskModel, data: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    with tf.GradientTape() as tape:
        losses = model.compute_losses(data, training=True)
        total = tf.add_n([loss for loss, _ in losses.values()] + model.losses)
    gradients = tape.gradient(total, model.network.trainable_variables)
    return losses, [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_losses_and_gradients_are_those_of_the_events_as_rows(name: str) -> None:
    model = model_of(POOLINGS[name], Regularization(unknown_rate=0.0, embedding_l2=0.1))
    of_rows, expected = gradients_of(model, to_batch(table(), preprocessor()))
    of_events, found = gradients_of(model, events_of(sequences(), SCHEMA))
    for task, (loss, weight) in of_rows.items():
        np.testing.assert_allclose(of_events[task], (loss, weight), rtol=1e-5)
    tables = [v.name for v in model.network.trainable_variables if "embedding" in v.name]
    assert tables
    for variable, left, right in zip(model.network.trainable_variables, found, expected, strict=True):
        if not (variable.name.startswith("item_embedding")):  # the penalty includes padding, and sequences have less
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-6, err_msg=variable.name)


@pytest.mark.parametrize("chosen", ["seen", "rating"])
def test_a_step_of_one_task_is_that_of_the_rows(chosen: str) -> None:
    trained = []
    for data in (events_of(sequences(), SCHEMA), to_batch(table(), preprocessor())):
        model = model_of(POOLINGS["self-attention"])
        before = model.network.get_weights()
        model.build_optimizer()
        model.make_step(data, [chosen])
        trained.append(model.network.get_weights())
    for left, right in zip(*trained, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    moved = [not np.array_equal(one, other) for one, other in zip(before, trained[0], strict=True)]
    assert any(moved)
    assert not all(moved)  # the layers of the other task stay


@pytest.mark.parametrize("method", [Adversarial(0.5, steps=2), FreeAdversarial(0.5, replays=2)])
def test_an_attacked_step_is_that_of_the_rows(method: AdversarialTraining) -> None:
    trained = []
    for data in (events_of(sequences(), SCHEMA), to_batch(table(), preprocessor())):
        model = model_of(POOLINGS["attention"], Regularization(unknown_rate=0.0, adversarial=method))
        model.build_optimizer()
        model.make_step(data)
        trained.append(model.network.get_weights())
    for left, right in zip(*trained, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_sequences_need_no_labels_under_virtual_training() -> None:
    model = model_of(POOLINGS["attention"], Regularization(unknown_rate=0.0, adversarial=VirtualAdversarial(0.5)))
    rows = events_of(sequences(), SCHEMA)
    absent = rows._replace(weights={**rows.weights, "rating": tf.zeros_like(rows.weights["rating"])})
    loss, weight = model.balanced_gradients(absent)[2].tasks["rating"]
    assert float(loss) > 0
    assert float(weight) == len(table())


def test_a_step_of_a_gradient_balancer_is_that_of_the_rows() -> None:
    trained = []
    for data in (sequences(), to_batch(table(), preprocessor())):
        model = model_of(POOLINGS["self-attention"], balancer=PCGrad())
        history = model.fit(data, batch_size=64, epochs=2, verbose=0).history
        trained.append((model.network.get_weights(), history["loss"]))
    (left, left_loss), (right, right_loss) = trained
    np.testing.assert_allclose(left_loss, right_loss, rtol=1e-4)
    for own, expected in zip(left, right, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-5)


def test_validation_and_predictions_are_those_of_the_rows() -> None:
    model = model_of(POOLINGS["self-attention"])
    found = model.fit(sequences(), batch_size=2, validation_data=sequences(), verbose=0).history
    expected = model.evaluate(table(), return_dict=True, verbose=0)
    for name in ("seen_loss", "rating_loss", "rating_rmse"):
        assert found[f"val_{name}"][0] == pytest.approx(expected[name], rel=1e-4), name
    order = table().iloc[np.lexsort((table()["time"], pd.factorize(table()["user"])[0]))]
    values = model.predict(sequences(), verbose=0)
    for task, value in model.predict(order, verbose=0).items():
        np.testing.assert_allclose(values[task], value, rtol=1e-4, atol=1e-5)


def test_a_model_of_sequences_is_served_row_by_row(tmp_path: Any) -> None:
    model = model_of(POOLINGS["self-attention"], eager=False)
    model.fit(sequences(), batch_size=2, epochs=3, verbose=0)
    last = table().drop_duplicates("user", keep="last")
    corpus = model.candidates
    assert corpus is not None
    assert 0 <= evaluate(model, last, ks=(1,))["seen", "recall@1"] <= 1
    path = serving.RecommenderExporter(max_k=len(corpus)).export(model, tmp_path)
    served = tf.saved_model.load(str(path)).signatures["retrieve"]
    rows = {"user": tf.constant(last["user"].tolist()), "age": tf.constant(last["age"], tf.float32)}
    lists = tf.ragged.constant(last["recent"].tolist()).to_tensor(default_value="")
    answer = served(**rows, recent=lists)
    sides = model.tower("query"), model.tower("candidate")
    query = sides[0]({n: v for n, v in to_batch(last, preprocessor()).features.items() if n in sides[0].input})["seen"]
    scores = tf.matmul(query, sides[1](corpus.features)["seen"], transpose_b=True).numpy()
    best = np.argsort(-scores, axis=1)
    assert corpus.ids[best].astype(bytes).tolist() == answer["ids"].numpy().tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"interactions": [TargetAttention("recent")]}, "Sequences cannot train this network: part of it"),
        (
            {"poolings": {"recent": SelfAttentionHistory()}},
            "Layer 'recent_pooling' gives the state after each item only with relative=True",
        ),
    ],
)  # fmt: skip
def test_an_error_names_layers_that_read_histories_otherwise(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        model_of(**arguments).fit(sequences(), verbose=0)


def test_a_teacher_is_asked_about_rows() -> None:
    student = DistilledModel.of(model_of(), model_of())
    student.compile()
    with pytest.raises(ValueError, match="A teacher predicts single rows, not sequences; give it a table"):
        student.fit(sequences(), verbose=0)


def test_the_corpus_must_be_there() -> None:
    model = model_of()
    unfitted = Preprocessor(model.schema, model.preprocessor.statistics)
    arguments = {**model.arguments(), "candidates": None, "preprocessor": unfitted}
    with pytest.raises(ValueError, match=r"The retrieval tasks \['seen'\] need the corpus"):
        MultiTaskModel(model.network, **arguments)


@pytest.mark.parametrize("eager", [True, False])
def test_losses_of_layers_are_those_of_the_rows_of_a_step(eager: bool) -> None:
    inner = SelfAttentionHistory(relative=True)
    penalized = Regularization(unknown_rate=0.0, embedding_l2=0.1)
    models = [model_of({"recent": inner}, penalized, eager=eager)]
    models += [model_of({"recent": ContrastivePooling(inner, w, seed=1)}, penalized, eager=eager) for w in (0.0, 0.5)]
    alone, idle, around = (m.fit(sequences(), epochs=1, batch_size=USERS, verbose=0).history for m in models)
    assert alone["regularization_loss"][0] > 1e-4
    assert idle["regularization_loss"] == alone["regularization_loss"]
    assert around["regularization_loss"][0] > alone["regularization_loss"][0] + 0.2
    for name in ("seen_loss", "rating_loss"):  # a wrapped pooling starts as it would alone
        np.testing.assert_allclose(around[name], alone[name], rtol=1e-5)
    assert models[2].evaluate(table(), verbose=0, return_dict=True)["regularization_loss"] < 0.1
