"""Tables of other libraries, and ragged and sparse tensors, mean the same as a pandas table."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.data import every_kind
from tfmtl._keras import tf
from tfmtl.data import Categorical, Numeric, Preprocessor, Schema, cache, temporal_split, to_batch
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


def test_a_function_of_pandas_names_the_conversion() -> None:
    with pytest.raises(TypeError, match=r"Convert it, such as by `table.to_pandas\(\)`"):
        temporal_split(arrow(FLAT), "age")


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
