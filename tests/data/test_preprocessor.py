from __future__ import annotations

import json
import math
import re
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies

from tests.data.every_kind import LARGE, SCHEMA, indices, numbers, table, vocabulary
from tfmtl._keras import keras, tf
from tfmtl.data.columns import to_columns
from tfmtl.data.features import Categorical, IdSequence, MultiValued, Numeric, Text
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Schema


def preprocessor_of(frame: pd.DataFrame, *query: Any, candidate: tuple[Any, ...] = ()) -> Preprocessor:
    schema = Schema(query, candidate)
    return Preprocessor.fit(schema, frame)


@pytest.fixture(scope="module")
def every_kind() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


def encoded(preprocessor: Preprocessor, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    columns = to_columns(frame, preprocessor.schema.features.values())
    return {
        name: value.numpy() for name, value in preprocessor({n: tf.constant(c) for n, c in columns.items()}).items()
    }


def test_every_kind_is_encoded_as_the_definition_says(every_kind: Preprocessor) -> None:
    frame = table()
    found = encoded(every_kind, frame)
    assert list(found) == list(SCHEMA.features)
    for name, feature in SCHEMA.features.items():
        assert tuple(found[name].shape) == (8, *feature.encoded_shape)
        assert found[name].dtype == feature.encoded_spec.dtype.as_numpy_dtype
        column = frame[name].tolist()
        if isinstance(feature, Numeric):
            np.testing.assert_allclose(found[name], numbers(feature, column), rtol=2e-5, atol=1e-6, err_msg=name)
        elif feature.vocabulary is not None:
            owner = SCHEMA.features[feature.vocabulary]
            values = vocabulary(owner, frame[owner.name].tolist())
            assert found[name].tolist() == [indices(feature, values, value) for value in column], name


def test_every_set_of_features_has_a_function_that_is_traced_once() -> None:
    """One function for all of them would be traced again for each, of which TensorFlow warns."""
    frame = pd.DataFrame({"user": ["ann", "bob"]})
    preprocessor = preprocessor_of(frame.assign(x=[1.0, 2.0]), Categorical("user"), Numeric("x"))
    given = {"user": tf.constant(["ann", "bob"]), "x": tf.constant([1.0, 2.0])}
    whole = preprocessor(given)
    for names in (["user"], ["x"], ["user", "x"], ["x", "user"]):
        found = preprocessor.compiled({name: given[name] for name in names})
        assert set(found) == set(names)
        assert all((found[name].numpy() == whole[name].numpy()).all() for name in names)
        assert preprocessor._traced(frozenset(names)).experimental_get_tracing_count() == 1


def test_golden_indices(every_kind: Preprocessor) -> None:
    # Written out, so that the reference above cannot err in the same way: vocabularies are ann bob Ünï | 7 8 LARGE |
    # x y | a b c; 0 is missing, 1 unknown.
    found = encoded(every_kind, table())
    assert found["user"].tolist() == [2, 3, 2, 0, 0, 4, 2, 3]
    assert found["item"].tolist() == [2, 4, 2, 0, 3, 2, 0, 3]
    assert found["recent"].tolist()[:5] == [
        [2, 4, 0],
        [0, 0, 0],
        [0, 0, 0],
        [3, 2, 1],
        [1, 0, 0],
    ]  # 9 and 99 are unknown
    assert found["city"].tolist() == [2, 3, 2, 1, 1, 3, 2, 1]
    assert found["genres"].tolist() == [[2, 3], [3, 2], [0, 0], [0, 0], [0, 0], [2, 0], [3, 2], [4, 0]]


def test_golden_vectors(every_kind: Preprocessor) -> None:
    # First position: 1 3 5 1 0 9 4 without missing rows (one with a NaN counts in the moments of its other positions).
    first, second = np.array([1, 3, 5, 1, 0, 9, 4]), np.array([2, 6, 2, 0, 9, 4])
    found = encoded(every_kind, table())["image"]
    expected = [(1 - first.mean()) / first.std(), (2 - second.mean()) / second.std(), 0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert found[1].tolist() == found[2].tolist() == [0, 0, 1]


def test_unseen_infinite_and_huge_values_at_serving(every_kind: Preprocessor) -> None:
    raw = {
        "user": tf.constant(["new"]),
        "item": tf.constant([12345], tf.int64),
        "age": tf.constant([math.inf]),
        "visits": tf.constant([-math.inf]),
        "constant": tf.constant([3.4e38]),
        "image": tf.constant([[math.inf, 1.0]]),
        "recent": tf.zeros([1, 0], tf.int64),
    }
    found = {name: value.numpy()[0].tolist() for name, value in every_kind(raw).items()}
    assert found["user"] == found["item"] == 1
    assert found["age"] == [0, 1]
    assert found["visits"] == [4, 0]  # the mean of 1 to 7
    assert found["constant"] == [1000, 0]
    assert found["image"] == [0, 0, 1]
    assert found["recent"] == [0, 0, 0]


@pytest.mark.parametrize(
    ("missing", "transform", "expected"),
    [
        ("learned", "standardize", [[-1, 0], [1, 0], [0, 1]]),
        ("mean", "standardize", [[-1, 0], [1, 0], [0, 0]]),
        ("learned", "none", [[2, 0], [4, 0], [0, 1]]),
        ("mean", "none", [[2, 0], [4, 0], [3, 0]]),
        ("learned", "log1p", [[-1, 0], [1, 0], [0, 1]]),  # two values are always one deviation from their mean
        ("mean", "log1p", [[-1, 0], [1, 0], [0, 0]]),
    ],
)
def test_modes_of_numbers(missing: Any, transform: Any, expected: list[list[float]]) -> None:
    frame = pd.DataFrame({"user": "u", "x": [2, 4, math.nan]})
    layer = preprocessor_of(frame, Categorical("user"), Numeric("x", missing, transform))
    np.testing.assert_allclose(encoded(layer, frame)["x"], expected, atol=1e-6)


def test_a_number_that_overflows_counts_as_missing() -> None:
    frame = pd.DataFrame({"user": "u", "x": [0.0, 1e-9]})  # a deviation of 5e-10
    layer = preprocessor_of(frame, Categorical("user"), Numeric("x"))
    assert layer({"x": tf.constant([3e38, -3e38])})["x"].numpy().tolist() == [[0, 1], [0, 1]]


def test_a_number_may_not_be_missing_if_the_feature_says_so() -> None:
    frame = pd.DataFrame({"user": "u", "x": [2.0, 4.0]})
    layer = preprocessor_of(frame, Categorical("user"), Numeric("x", missing="error"))
    np.testing.assert_allclose(encoded(layer, frame)["x"], [[-1, 0], [1, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="Column 'x' has 1 missing values, the first at position 0"):
        encoded(layer, pd.DataFrame({"user": ["u"], "x": [math.nan]}))


TEXT = strategies.text(alphabet="aB ß1-_|Ü字\n", max_size=8)


@hypothesis.settings(max_examples=25)
@hypothesis.given(strategies.lists(strategies.none() | TEXT, min_size=1, max_size=8))
def test_any_string_is_encoded_as_the_definition_says(values: list[str | None]) -> None:
    # Every character except letters and numbers separates words, on both sides and in every script.
    features = [
        Categorical("a"),
        Text("b", max_length=3, min_count=1, unspaced="words"),
        MultiValued("c", max_length=2, separator="|"),
    ]
    column = pd.Series(values, dtype=object)
    frame = pd.DataFrame({"a": column, "b": column, "c": column})
    found = encoded(preprocessor_of(frame, *features), frame)
    for feature in features:
        known = vocabulary(feature, values)
        assert found[feature.name].tolist() == [indices(feature, known, value) for value in values]


def test_a_sequence_shares_the_vocabulary_of_its_feature() -> None:
    frame = pd.DataFrame({"user": "u", "recent": [["y", "x"], ["x", "new"]], "item": ["x", "y"]})
    layer = preprocessor_of(
        frame, Categorical("user"), IdSequence("recent", of="item", max_length=2), candidate=(Categorical("item"),)
    )
    found = encoded(layer, frame)
    assert found["item"].tolist() == [2, 3]
    assert found["recent"].tolist() == [[3, 2], [2, 1]]


@pytest.mark.parametrize("dtype", ["string", "int64"])
def test_an_empty_vocabulary_knows_nothing(dtype: Any) -> None:
    value = tf.constant(["x", ""]) if dtype == "string" else tf.constant([5, -1])
    frame = pd.DataFrame({"a": pd.Series(value.numpy()[:1]).map(lambda v: v.decode() if dtype == "string" else v)})
    layer = preprocessor_of(frame, Categorical("a", dtype, min_count=2))
    assert layer({"a": value})["a"].numpy().tolist() == [1, 0]


def test_lists_of_any_width_get_the_width_of_the_feature(every_kind: Preprocessor) -> None:
    for width in (0, 1, 3, 5):
        raw = tf.constant(7, tf.int64, [2, width])
        assert every_kind({"recent": raw})["recent"].numpy().tolist() == [([2] * width + [0] * 3)[:3]] * 2


def test_config_survives_json_and_encodes_the_same(every_kind: Preprocessor) -> None:
    config = json.loads(json.dumps(every_kind.get_config()))
    again = Preprocessor.from_config(config)
    assert (again.name, again.dtype, again.trainable) == (every_kind.name, "float32", False)
    expected = encoded(every_kind, table())
    for name, value in encoded(again, table()).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_half_precision_does_not_touch_raw_numbers(every_kind: Preprocessor) -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        again = Preprocessor(every_kind.schema, every_kind.statistics)
        found = again({"raw": tf.constant([1e9 + 64])})["raw"]  # infinity in float16
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.float32
    assert found.numpy().tolist() == [[1e9 + 64, 0]]


def test_it_has_nothing_to_train(every_kind: Preprocessor) -> None:
    assert every_kind.weights == []
    assert every_kind.vocabulary("item").tolist() == [7, 8, LARGE]


def test_raw_specifications() -> None:
    specs = {name: feature.raw_spec for name, feature in SCHEMA.features.items()}
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()} == {
        "user": ("string", [None]),
        "age": ("float32", [None]),
        "spend": ("float32", [None]),
        "visits": ("float32", [None]),
        "raw": ("float32", [None]),
        "recent": ("int64", [None, None]),
        "days": ("float32", [None, None]),
        "city": ("string", [None]),
        "item": ("int64", [None]),
        "genres": ("string", [None]),
        "tags": ("int64", [None, None]),
        "title": ("string", [None]),
        "image": ("float32", [None, 2]),
        "constant": ("float32", [None]),
    }


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("usr", ["ann"], "Unknown features ['usr']; the schema has ['user',"),
        (
            "user",
            [1],
            "Feature 'user' must be a string tensor of shape (None,). Received: dtype='int32', shape=TensorShape([1]).",
        ),
        ("item", [1.5], "Feature 'item' must be a int64 tensor of shape (None,). Received: dtype='float32'"),
        ("item", ["7"], "Feature 'item' must be a int64 tensor of shape (None,). Received: dtype='string'"),
        ("age", [[7.0]], "Received: dtype='float32', shape=TensorShape([1, 1])."),
        ("recent", [7], "Feature 'recent' must be a int64 tensor of shape (None, None)."),
        ("image", [[7.0]], "Feature 'image' must be a float32 tensor of shape (None, 2)."),
        ("age", ["7"], "Feature 'age' must be a float32 tensor of shape (None,). Received: dtype='string'"),
    ],
)
def test_a_wrong_feature_is_named(every_kind: Preprocessor, name: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        every_kind({name: tf.constant(value)})


def test_values_far_from_the_mean_are_cut_to_a_thousand_deviations() -> None:
    frame = pd.DataFrame({"x": [0.0, 2.0]})  # mean 1, deviation 1
    schema = Schema(query=(Categorical("id"), Numeric("x"), Numeric("raw", transform="none")))
    layer = Preprocessor.fit(schema, frame.assign(raw=frame["x"], id="a"))
    found = layer({"x": tf.constant([3e38, -3e38, 900.0]), "raw": tf.constant([3e38, -3e38, 900.0])})
    np.testing.assert_allclose(found["x"][:, 0], [1000, -1000, 899], rtol=1e-6)
    np.testing.assert_allclose(found["raw"][:, 0], [3e38, -3e38, 900], rtol=1e-6)
    np.testing.assert_array_equal(found["x"][:, 1], [0, 0, 0])
