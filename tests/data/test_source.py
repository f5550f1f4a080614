"""Every form of data as one `Source`."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl._keras import keras, tf
from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    Preprocessor,
    Schema,
    cache,
    distribute,
    fit_statistics,
    open_files,
    to_batch,
    to_sequences,
)
from tfmtl.data.sharded import SharedTable
from tfmtl.data.source import Source, as_source, encoded_source

SCHEMA = Schema(query=[Categorical("user")], labels=[Label("seen")])
TABLE = pd.DataFrame({"user": list("abcab"), "seen": [1.0, 0.0, 1.0, 1.0, 0.0]})
BYTES = 4 * 5 * 5  # user, label and weight of five rows, and the key of the user in two words
FORMS = ["frame", "batch", "parquet", "csv", "cache", "distributed", "raw", "batches"]


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return Preprocessor(SCHEMA, fit_statistics(SCHEMA, TABLE))


@pytest.fixture(scope="module")
def forms(preprocessor: Preprocessor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: pathlib.Path = tmp_path_factory.mktemp("forms")
    TABLE.to_parquet(folder / "a.parquet")
    TABLE.to_csv(folder / "a.csv", index=False)
    parquet, csv = (open_files(folder / f"a.{suffix}", SCHEMA) for suffix in ("parquet", "csv"))
    columns = {name: TABLE[name].to_numpy() for name in TABLE}
    return {
        "frame": TABLE,
        "batch": to_batch(TABLE, preprocessor),
        "parquet": parquet,
        "csv": csv,
        "cache": cache(TABLE, preprocessor, folder / "a.cache"),
        "distributed": distribute(parquet, preprocessor, 2),
        "raw": tf.data.Dataset.from_tensor_slices(columns).batch(2),
        "batches": as_source(TABLE).batches(preprocessor, 2),
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows_in_order(form: str, forms: dict[str, Any], preprocessor: Preprocessor) -> None:
    batches = list(as_source(forms[form]).batches(preprocessor, 2))
    users = [batch.features["user"].numpy().tolist() for batch in batches]
    labels = np.concatenate([batch.labels["seen"] for batch in batches])
    assert users == [[2, 3], [4, 2], [3]]  # a and b come twice, c once; ties by name
    np.testing.assert_array_equal(labels, TABLE["seen"])


@pytest.mark.parametrize("form", FORMS)
def test_steps_and_rows(form: str, forms: dict[str, Any]) -> None:
    source = as_source(forms[form])
    assert source.steps(2) == 3
    assert source.rows == (None if form in ("distributed", "raw", "batches") else 5)
    assert as_source(source) is source


def test_steps_of_a_data_set_of_unknown_length(forms: dict[str, Any]) -> None:
    for dataset in (forms["raw"].filter(lambda row: True), forms["raw"].repeat()):
        assert as_source(dataset).steps(2) is None


def test_one_seed_gives_one_order_to_a_table_in_every_form(forms: dict[str, Any], preprocessor: Preprocessor) -> None:
    orders = {
        form: [
            batch.labels["seen"].numpy().tolist()
            for batch in as_source(forms[form]).batches(preprocessor, 2, shuffle_seed=3, clock=tf.Variable(7))
        ]
        for form in ("frame", "batch")
    }
    assert orders["frame"] == orders["batch"]
    assert orders["frame"] != [[1.0, 0.0], [1.0, 1.0], [0.0]]


def test_batches_without_labels(forms: dict[str, Any], preprocessor: Preprocessor) -> None:
    for form in ("frame", "parquet", "raw"):
        batch = next(iter(as_source(forms[form]).batches(preprocessor, 5, labels=False)))
        assert (batch.labels, batch.weights) == ({}, {})


@pytest.mark.parametrize(("budget", "kept"), [(BYTES, True), (BYTES - 1, False), (0, False)])
def test_the_budget_decides_whether_files_are_kept_in_memory(
    budget: int, kept: bool, forms: dict[str, Any], preprocessor: Preprocessor
) -> None:
    source = as_source(forms["csv"]).kept(preprocessor, budget)
    assert (source.in_memory(preprocessor) is not None) == kept


def test_only_tables_and_files_are_encoded_to_be_kept(forms: dict[str, Any], preprocessor: Preprocessor) -> None:
    for form in FORMS:
        source = as_source(forms[form])
        assert (source.kept(preprocessor, 1 << 30) is source) == (form not in ("frame", "parquet", "csv"))


def test_tables_are_sent_to_parameter_servers_and_files_are_not(
    forms: dict[str, Any], preprocessor: Preprocessor
) -> None:
    for form in ("frame", "batch"):
        shared = as_source(forms[form]).for_servers(preprocessor, 2, 3)
        assert isinstance(shared, SharedTable)
        assert (shared.steps(), shared.batch_size, shared.shuffle_seed) == (3, 2, 3)
    for form in ("parquet", "csv", "cache"):
        with pytest.raises(ValueError, match="Workers of servers take a table that fits in memory; raise `memory"):
            as_source(forms[form]).for_servers(preprocessor, 2, 3)
    assert as_source(forms["distributed"]).for_servers(preprocessor, 2, 3) is forms["distributed"]
    assert as_source(forms["raw"]).for_servers(preprocessor, 2, 3) is None


def test_sequences_count_their_rows() -> None:
    schema = Schema([Categorical("user"), IdSequence("recent", of="item", max_length=2)], [Categorical("item")])
    table = pd.DataFrame({"user": list("aaab"), "item": list("xyzx"), "day": range(4)})
    found = to_sequences(table, Preprocessor(schema, fit_statistics(schema, table)), "day")
    source = as_source(found)
    assert (source.rows, source.sequences) == (3, True)
    assert as_source(source.batches(Preprocessor(schema, fit_statistics(schema, table)), 2)).sequences
    assert not as_source(table).sequences


def test_a_structure_of_further_columns(preprocessor: Preprocessor) -> None:
    source = encoded_source(to_batch(TABLE, preprocessor))
    assert source.rows == 5


def test_a_data_set_that_is_distributed_already_stays_as_it_is(preprocessor: Preprocessor) -> None:
    creator = keras.utils.experimental.DatasetCreator(lambda context: None)
    source: Source = as_source(creator)
    assert source.distributed
    assert source.batches(preprocessor, 2) is creator
    assert source.shared is None


def test_data_of_no_known_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be a table \(pandas, PyArrow, Polars\), files from `open_files`"):
        as_source([1])
