"""Tables of other libraries, and ragged and sparse tensors, mean the same as a pandas table."""

from __future__ import annotations

import pathlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.data import every_kind
from tfmtl import LabelGraph
from tfmtl._keras import tf
from tfmtl.data import (
    Categorical,
    IdSequence,
    Numeric,
    Preprocessor,
    Schema,
    Split,
    cache,
    grouped_kfold,
    leave_last_split,
    mask_immature,
    mask_unreached,
    random_kfold,
    random_split,
    rolling_origin,
    temporal_split,
    to_batch,
    to_sequences,
    with_histories,
    write_tfrecords,
)
from tfmtl.data.interchange import as_frame
from tfmtl.data.source import as_source

TABLE = every_kind.table()
FLAT = pd.DataFrame({"user": ["a", "b", None], "age": [1.0, None, 3.0]})


class Streamed:
    """A table that offers Arrow's stream protocol alone, as Polars does."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class Interchanged:
    """A table that offers the dataframe interchange protocol alone."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:
        with warnings.catch_warnings(category=Warning, action="ignore"):  # pandas deprecates the protocol
            return self.table.__dataframe__(nan_as_null, allow_copy)


def arrow(table: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(table, preserve_index=False)


@pytest.mark.parametrize("form", [arrow, lambda t: Streamed(arrow(t)), lambda t: arrow(t).to_batches()[0]])
def test_a_table_of_another_library_is_encoded_alike(form: Any) -> None:
    preprocessor = Preprocessor.fit(every_kind.SCHEMA, TABLE)
    other = form(TABLE)
    assert Preprocessor.fit(every_kind.SCHEMA, other).encodes_like(preprocessor)
    expected = tf.nest.flatten(to_batch(TABLE, preprocessor))
    for found in (to_batch(other, preprocessor), cache(other, preprocessor), as_source(other).in_memory(preprocessor)):
        for one, two in zip(tf.nest.flatten(found), expected, strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_interchange_protocol_is_read() -> None:
    pd.testing.assert_frame_equal(as_frame(Interchanged(FLAT)), FLAT, check_dtype=False)
    assert as_source(Interchanged(FLAT)).rows == 3
    categories = FLAT.assign(user=FLAT["user"].astype("category"))
    assert as_frame(Interchanged(categories))["user"].tolist()[:2] == ["a", "b"]


def test_dictionaries_and_views_of_arrow_are_strings() -> None:
    table = pa.table({"a": pa.array(["x", None]).dictionary_encode(), "b": pa.array(["y", None], pa.string_view())})
    frame = as_frame(table)
    assert [frame[name].iloc[0] for name in "ab"] == ["x", "y"]
    assert frame.iloc[1].isna().all()


def test_ragged_and_sparse_ids_are_lists() -> None:
    preprocessor = Preprocessor.fit(every_kind.SCHEMA, TABLE)
    ragged = tf.ragged.constant([[7, 8], [], [every_kind.LARGE]], dtype=tf.int64)
    dense = preprocessor({"recent": ragged.to_tensor(-1)})["recent"]
    for given in (ragged, ragged.to_sparse()):
        np.testing.assert_array_equal(preprocessor({"recent": given})["recent"], dense)
    batches = tf.data.Dataset.from_tensors({"recent": ragged}).map(lambda x: preprocessor(x)["recent"])
    np.testing.assert_array_equal(next(iter(batches)), dense)


def test_sparse_numbers_are_refused() -> None:
    schema = Schema([Categorical("user"), Numeric("age")])
    preprocessor = Preprocessor.fit(schema, FLAT)
    with pytest.raises(ValueError, match="Numbers of feature 'age' must be dense, since an absent one may be 0"):
        preprocessor({"age": tf.sparse.from_dense([1.0, 0.0])})


EVENTS = pd.DataFrame({"user": ["u", "u", "v", "u", "v"], "item": ["a", "b", "a", "c", "b"], "day": [1, 2, 3, 4, 5]})
EVENTS = EVENTS.assign(click=[1.0, 1.0, 0.0, 1.0, 1.0], buy=[1.0, 0.0, 0.0, 0.0, 1.0])
HISTORY = Schema([Categorical("user"), IdSequence("recent", of="item", max_length=2)], [Categorical("item")])


def _both(split: Split) -> list[Any]:
    return [split.train.to_dict("list"), split.test.to_dict("list")]


@pytest.mark.parametrize(
    "function",
    [
        lambda table: _both(temporal_split(table, "day", test_fraction=0.4)),
        lambda table: _both(leave_last_split(table, "user", "day")),
        lambda table: _both(random_split(table, test_fraction=0.4, seed=0)),
        lambda table: [_both(split) for split in random_kfold(table, folds=2, seed=0)],
        lambda table: [_both(split) for split in grouped_kfold(table, "user", folds=2, seed=0)],
        lambda table: [_both(split) for split in rolling_origin(table, "day", folds=1, horizon=2)],
        lambda table: mask_unreached(table, LabelGraph.chain("click", "buy")).fillna(-1).to_dict("list"),
        lambda table: mask_immature(table, "buy", "day", observed_until=5, window=2).fillna(-1).to_dict("list"),
        lambda table: with_histories(table, HISTORY, "day", past=table)["recent"].tolist(),
        lambda table: to_sequences(table, Preprocessor.fit(HISTORY, EVENTS), "day").features["item"].numpy().tolist(),
    ],
)
def test_splits_masks_and_histories_take_tables_of_other_libraries(function: Any) -> None:
    expected = function(EVENTS)
    assert function(arrow(EVENTS)) == expected
    assert function(Streamed(arrow(EVENTS))) == expected


def test_tfrecords_are_written_from_tables_of_other_libraries(tmp_path: pathlib.Path) -> None:
    for name, table in (("a", FLAT), ("b", arrow(FLAT))):
        write_tfrecords(table, Schema([Categorical("user"), Numeric("age")]), tmp_path / f"{name}.tfrecord")
    assert (tmp_path / "a.tfrecord").read_bytes() == (tmp_path / "b.tfrecord").read_bytes()


@pytest.mark.parametrize("table", [{"user": ["a"], "day": [1]}, [("a", 1)], None])
def test_objects_that_are_no_tables_are_named(table: Any) -> None:
    with pytest.raises(TypeError, match="`frame` must be DataFrame"):
        temporal_split(table, "day", test_fraction=0.5)
    with pytest.raises(TypeError, match="`past` must be DataFrame"):
        with_histories(EVENTS, HISTORY, "day", past={"day": [1]})
