from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfmtl._keras import tf
from tfmtl.data import Categorical, Numeric, Preprocessor, Schema
from tfmtl.data.lookup_tables import JointLookup, small_together

_RNG = np.random.default_rng(0)
_NAMES = ["colour", "mood", "size", "weight"]
STRINGS = {name: [f"v{i}" for i in _RNG.integers(0, 9, 60)] for name in _NAMES}
NUMBERS = {f"{name}_id": _RNG.integers(0, 9, 60) for name in _NAMES}
TABLE = pd.DataFrame({**STRINGS, **NUMBERS, "age": _RNG.normal(40, 9, 60), "wage": _RNG.lognormal(size=60)})
SCHEMA = Schema(
    query=[
        *map(Categorical, STRINGS),
        *(Categorical(name, dtype="int64", min_count=7) for name in NUMBERS),
        Numeric("age"),
        Numeric("wage", transform="log1p"),
    ]
)
HOSTILE = ["", "v0", "v8", "v9", "V0", "a\0b", "v" * 100, "\u00e9"]


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, TABLE)


@pytest.mark.parametrize(
    ("values", "names"),
    [(HOSTILE, list(STRINGS)), (np.int64([-1, 0, 8, 9, -2, 2**62, -(2**63)]), list(NUMBERS))],
)
def test_looked_up_together_or_alone_is_the_same(
    preprocessor: Preprocessor, values: list[str], names: list[str]
) -> None:
    tensor = tf.constant(values)
    alone = {name: preprocessor.look_up(name, tensor).numpy().tolist() for name in names}
    for some in (names, names[::-1], names[1:3], names[2:3]):
        found = preprocessor({name: tf.roll(tensor, i, 0) for i, name in enumerate(some)})
        for i, name in enumerate(some):
            assert found[name].dtype == tf.int32
            assert found[name].numpy().tolist() == np.roll(alone[name], i).tolist(), name
    assert len({tuple(indices) for indices in alone.values()}) > 1  # the vocabularies differ


def test_a_few_operations_look_everything_up(preprocessor: Preprocessor) -> None:
    specs = preprocessor.raw_signature(tuple(SCHEMA.features))
    graph = tf.function(lambda raw: preprocessor(raw)).get_concrete_function(specs).graph
    counts = [operation.type for operation in graph.get_operations()]
    assert counts.count("LookupTableFindV2") == 2
    assert counts.count("IsFinite") == 2  # of both numbers together, before and after the conversion to float32


def test_indices_by_hand() -> None:
    vocabularies = {"a": np.array(["x", "y"]), "b": np.array(["y", "z", "x"]), "c": np.array([], str)}
    lookup = JointLookup(vocabularies, "", missing=5, unknown=6, first=10)
    values = tf.constant(["x", "y", "z", "", "w"])
    found = lookup({"b": values, "c": values, "a": values})
    assert {name: indices.numpy().tolist() for name, indices in found.items()} == {
        "b": [12, 10, 11, 5, 6],
        "c": [6, 6, 6, 5, 6],
        "a": [10, 11, 6, 5, 6],
    }


def test_only_small_vocabularies_are_joined() -> None:
    assert small_together({"large": 10**6, "b": 5, "a": 3}) == ["a", "b"]
    assert small_together({"large": 10**6, "a": 3}) == []  # one alone gains nothing
    assert small_together({}) == []
    sizes = dict.fromkeys(map(str, range(1000)), 100)
    together = small_together(sizes)
    assert 1 < len(together) < 1000
    assert len(together) * (100 * len(together) + 2) <= 2**17


def test_vocabularies_are_joined_up_to_the_largest_matrix() -> None:
    """Features times values, among them the missing and the unknown one: 2 * (32767 + 32767 + 2) = 2**17."""
    assert small_together({"a": 32_767, "b": 32_767}) == ["a", "b"]
    assert small_together({"a": 32_767, "b": 32_768}) == []
    # 3 * (14563 + 14563 + 14562 + 2) = 131070, one value more gives 131073
    assert small_together({"a": 14_563, "b": 14_563, "c": 14_562}) == ["c", "a", "b"]
    assert small_together({"a": 14_563, "b": 14_563, "c": 14_563}) == ["a", "b"]


def test_numbers_together_are_as_each_alone(preprocessor: Preprocessor) -> None:
    values = tf.constant([0.0, -1.0, np.nan, np.inf, 1e38, 3.5])
    together = preprocessor({"wage": values, "age": values[::-1]})
    for name, given in (("wage", values), ("age", values[::-1])):
        np.testing.assert_array_equal(preprocessor({name: given})[name], together[name])
    moments = preprocessor.statistics.moments
    wage, age = (together[name].numpy() for name in ("wage", "age"))
    expected = (np.log1p(3.5) - moments["wage"].mean[0]) / moments["wage"].deviation[0]
    assert wage[5] == pytest.approx([expected, 0.0], rel=1e-5)
    assert wage[1, 0] == pytest.approx((-np.log(2) - moments["wage"].mean[0]) / moments["wage"].deviation[0], rel=1e-5)
    assert age[0] == pytest.approx([(3.5 - moments["age"].mean[0]) / moments["age"].deviation[0], 0.0], rel=1e-5)
    assert wage[2].tolist() == wage[3].tolist() == age[3].tolist() == [0.0, 1.0]
    assert age[1].tolist() == [1000.0, 0.0]
