from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.data import Categorical, IdSequence, Label, NumericSequence, Preprocessor, Schema, to_batch, to_columns
from tfmtl.layers import HistoryMatch, SharedBottom
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.serving import InvertedFile, export, to_examples
from tfmtl.serving.recommender import Recommender
from tfmtl.tasks import BinaryClassification, Retrieval

ITEMS, LENGTH = 40, 6


def expected(candidate: int, history: Sequence[int]) -> list[float]:
    """Return the features of one pair by their definition; the indices 0 and 1 are missing and unknown."""
    events = [index for index in history if index != 0]
    at = [j for j, index in enumerate(events) if index == candidate and index >= 2]
    if not at:
        return [0.0] * 4
    return [1.0, math.log(1 + len(at)), len(at) / len(events), 1 / (1 + at[0])]


def test_golden() -> None:
    """Of 4 events the candidate 5 is the second and third: log 3, 2 of 4, 1 / (1 + 1); the gaps are no events."""
    found = HistoryMatch("recent")((tf.constant([5]), tf.constant([[0, 7, 5, 0, 5, 1, 0]])))
    np.testing.assert_allclose(found, [[1.0, 1.0986123, 0.5, 0.5]], rtol=1e-6)


_INDEX = st.one_of(st.integers(0, 4), st.sampled_from([2**31 - 1, 70_000]))


@hypothesis.given(st.integers(0, 6).flatmap(lambda n: st.lists(st.lists(_INDEX, min_size=n + 1, max_size=n + 1))))
@hypothesis.settings(deadline=None, max_examples=200)
def test_it_is_its_definition(rows: list[list[int]]) -> None:
    table = np.array(rows, np.int32).reshape(len(rows), -1 if rows else 3)
    found = HistoryMatch("recent")((tf.constant(table[:, 0]), tf.constant(table[:, 1:]))).numpy()
    assert found.shape == (len(rows), 4)
    wanted = [expected(row[0], row[1:]) for row in rows]
    np.testing.assert_allclose(found, np.reshape(wanted, [-1, 4]), rtol=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_ids_that_share_an_index_never_match(index: int) -> None:
    found = HistoryMatch("recent")((tf.constant([index]), tf.constant([[index, index, 2]])))
    np.testing.assert_array_equal(found, np.zeros([1, 4]))


AGES = np.array([[0.5, 0, 0.0, 1, 2.5, 0, 0], [0.0, 1, 1.5, 0, 2.0, 0, 0]], np.float32)


def test_golden_ages() -> None:
    """The first row's candidate 7 is last at position 1, without an age; 5 at position 2, with 2.5; 9 nowhere."""
    layer, history = HistoryMatch("recent", ages="days"), tf.constant([[3, 7, 5]])
    found = [layer((tf.constant([c]), history, AGES[:1])).numpy()[0].tolist() for c in (7, 5, 9)]
    assert [row[4:] for row in found] == [[0.0, 1.0], [2.5, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose([row[:4] for row in found], [expected(c, [3, 7, 5]) for c in (7, 5, 9)], rtol=1e-6)


def test_the_age_is_that_of_the_last_of_several_events() -> None:
    found = HistoryMatch("recent", ages="days")((tf.constant([5, 5]), tf.constant([[5, 5, 5], [3, 5, 5]]), AGES))
    np.testing.assert_array_equal(found.numpy()[:, 4:], [[0.5, 0.0], [1.5, 0.0]])


def test_it_compiles_with_xla_and_follows_the_policy() -> None:
    inputs = tf.constant([5, 3]), tf.constant([[7, 5, 5], [3, 3, 3]])
    plain = HistoryMatch("recent")(inputs)
    np.testing.assert_allclose(tf.function(HistoryMatch("recent"), jit_compile=True)(inputs), plain, rtol=1e-6)
    half = HistoryMatch("recent", dtype="mixed_float16")(inputs)
    assert half.dtype == tf.float16
    np.testing.assert_allclose(half, plain, rtol=1e-3)


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ("fans", "Unknown feature ['fans'] in the schema; known: ['user', 'age', 'recent',"),
        ("age", "Feature 'age' holds no ids of a candidate feature; name an `IdSequence` of one of ['item']."),
    ],
)
def test_a_feature_without_ids_of_candidates_is_named(history: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        small.network(interactions=[HistoryMatch(history)])


def test_ages_of_another_length_are_named() -> None:
    rule = "`ages` must name a `NumericSequence` of 'recent', with its length 2; feature 'age' is another one."
    with pytest.raises(ValueError, match=re.escape(rule)):
        small.network(interactions=[HistoryMatch("recent", ages="age")])


def test_a_bad_argument_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("`ages` must be the name of a feature, or None. Received: ages=''")):
        HistoryMatch("recent", ages="")
    with pytest.raises(ValueError, match=re.escape("`history` must be the name of a feature. Received: history=''.")):
        HistoryMatch("")


def table(rows: int, seed: int) -> pd.DataFrame:
    """Return pairs of a random history and a candidate that at least half of the histories hold; only these buy.

    The ages of the events are random too, and one in five is missing.
    """
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, ITEMS, rng.integers(1, LENGTH + 1)) for _ in range(rows)]
    item = [rng.choice(h) if k % 2 else rng.integers(0, ITEMS) for k, h in enumerate(histories)]
    return pd.DataFrame(
        {
            "user": [f"u{k % 7}" for k in range(rows)],
            "recent": [[f"i{i}" for i in history] for history in histories],
            "days": [np.where(rng.random(len(h)) < 0.2, np.nan, rng.exponential(9, len(h))) for h in histories],
            "item": [f"i{i}" for i in item],
            "seen": 1.0,
            "bought": [float(i in h) for i, h in zip(item, histories, strict=True)],
        }
    )


def model_of(*interactions: Any, **arguments: Any) -> MultiTaskModel:
    schema = Schema(
        [
            Categorical("user"),
            IdSequence("recent", of="item", max_length=LENGTH),
            NumericSequence("days", of="recent", max_length=LENGTH),
        ],
        [Categorical("item")],
        labels=[Label("seen"), Label("bought")],
    )
    preprocessor = Preprocessor.fit(schema, table(400, 0))
    heads = [Retrieval("seen"), BinaryClassification("bought")]
    given: dict[str, Any] = {"trunk": SharedBottom(units=[8]), "embedding_dim": 4, "tower_units": [4], **arguments}
    network = build_network(preprocessor, heads, interactions=interactions, **given)
    return MultiTaskModel(network, heads, preprocessor, candidates=Candidates.from_frame(table(400, 0), preprocessor))


def auc(model: MultiTaskModel) -> float:
    """Return the area under the ROC curve on new histories, after a training with a step for all rows."""
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(table(400, 0), batch_size=100, epochs=12, verbose=0)
    new = table(400, 1)
    scores, bought = model.predict(new, verbose=0)["bought"], new["bought"].to_numpy() > 0
    pairs = scores[bought][:, np.newaxis] - scores[~bought]
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def test_it_learns_to_buy_again_where_pooled_embeddings_cannot() -> None:
    """The task is the first feature, so that the order of scores is perfect; pooled lists do little better than 0.5."""
    assert auc(model_of(HistoryMatch("recent"))) > 0.99
    assert auc(model_of()) < 0.75


def test_training_noise_does_not_reach_it() -> None:
    noise = Regularization(unknown_rate=0.5, context_dropout=0.0)
    network = model_of(HistoryMatch("recent", name="again"), regularization=noise).network
    probe = keras.Model(network.input, network.get_layer("again").output)
    pairs = table(20, 2)
    features = to_batch(pairs, model_of().preprocessor).features
    found = probe({name: features[name] for name in network.input}, training=True).numpy()
    np.testing.assert_array_equal(found[:, 0], pairs["bought"])


@pytest.mark.parametrize("search", [None, InvertedFile(block=8, probes=99)])
def test_an_export_matches_the_history_of_the_request(tmp_path: pathlib.Path, search: Any) -> None:
    model = model_of(HistoryMatch("recent", ages="days", name="again"))
    rng = np.random.default_rng(3)
    for variable in model.network.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    model = load_model(save_model(model, tmp_path / "saved"))
    path = export(model, tmp_path / "served", max_k=ITEMS, search=search)
    served = tf.saved_model.load(str(path)).signatures["recommend"]
    raw = to_columns(table(9, 4), model.schema.query)
    found = served(**{name: tf.constant(values) for name, values in raw.items()})
    memory = Recommender(model, max_k=ITEMS, search=search)
    same = memory.recommend(**{name: tf.constant(values) for name, values in raw.items()})
    for name, values in same.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    ids = found["ids"].numpy().astype(str)
    pairs = pd.DataFrame({"user": np.repeat(raw["user"], ITEMS), "item": ids.ravel()})
    for name in ("recent", "days"):
        pairs[name] = [list(row) for row in np.repeat(raw[name], ITEMS, axis=0)]
    expected = model.predict(pairs, verbose=0)["bought"].reshape(ids.shape)
    np.testing.assert_allclose(found["bought"], expected, rtol=1e-5)
    examples = tf.saved_model.load(str(path)).signatures["recommend_examples"](examples=to_examples(raw))
    np.testing.assert_allclose(examples["bought"], found["bought"], rtol=1e-5)
    probe = keras.Model(model.network.input, model.network.get_layer("again").output)
    columns = probe(dict(to_batch(pairs, model.preprocessor, labels=False).features)).numpy()
    for row, recent, days, item in zip(columns, pairs["recent"], pairs["days"], pairs["item"], strict=True):
        at = recent.index(item) if item in recent else None
        age = np.nan if at is None else days[at]
        assert row[0] == (at is not None)
        np.testing.assert_allclose(row[4:], [0, 1] if np.isnan(age) else [np.log1p(age), 0], rtol=1e-5)
