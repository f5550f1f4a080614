"""Files and cached tables in `fit`, `evaluate` and `predict`."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import tf
from tfmtl.data import EncodedTable, FileSource, cache, open_files, write_tfrecords
from tfmtl.models import MultiTaskModel

TABLE = small.table()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    folder = tmp_path_factory.mktemp("files")
    for number in range(2):
        TABLE[25 * number : 25 * number + 25].to_parquet(folder / f"part-{number}.parquet", row_group_size=10)
    return open_files(folder, small.SCHEMA)


@pytest.fixture(scope="module")
def stored(files: FileSource, tmp_path_factory: pytest.TempPathFactory) -> EncodedTable:
    found = cache(files, small.preprocessor(), tmp_path_factory.mktemp("cache") / "rows.cache")
    assert isinstance(found, EncodedTable)
    return found


@functools.cache
def untrained() -> tuple[MultiTaskModel, list[tf.Variable], list[np.ndarray]]:
    """Return a model, all its variables and their initial values, so that its traced step serves every run."""
    model: MultiTaskModel = small.model()
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.state, *model.optimizer.variables]
    return model, variables, [variable.numpy() for variable in variables]


def trained(x: Any, **options: Any) -> tuple[list[np.ndarray], dict[str, list[float]]]:
    """Train from the initial values, and return the weights and the history."""
    model, variables, initial = untrained()
    for variable, value in zip(variables, initial, strict=True):
        variable.assign(value)
    history = model.fit(x, batch_size=16, epochs=2, verbose=0, **options)
    return model.get_weights(), history.history


def check_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_small_files_are_trained_on_as_their_table(files: FileSource) -> None:
    """Files are encoded once and shuffled like a table."""
    weights, history = trained(files, validation_data=files)
    expected, of_table = trained(TABLE, validation_data=TABLE)
    check_equal(weights, expected)
    assert history["val_loss"] == pytest.approx(of_table["val_loss"], rel=1e-4)


def test_large_files_are_streamed_in_an_order_that_the_seed_decides(files: FileSource, stored: EncodedTable) -> None:
    runs = [trained(files, memory_bytes=0, validation_data=stored)[0] for _ in range(2)]
    check_equal(*runs)
    in_memory, _ = trained(files)
    assert any(not np.allclose(one, other, rtol=1e-4) for one, other in zip(runs[0], in_memory, strict=True))


def test_a_cached_table_is_trained_on(stored: EncodedTable) -> None:
    first, history = trained(stored, validation_data=TABLE)
    check_equal(first, trained(stored, validation_data=TABLE)[0])
    assert np.isfinite(history["val_loss"]).all()


def test_evaluate_and_predict_return_the_values_of_the_table(
    worker: MultiTaskModel, files: FileSource, stored: EncodedTable, tmp_path: pathlib.Path
) -> None:
    write_tfrecords(TABLE, small.SCHEMA, tmp_path / "a.tfrecord")
    records = open_files(tmp_path, small.SCHEMA)
    expected = worker.predict(TABLE, verbose=0)
    losses = worker.evaluate(TABLE, verbose=0, return_dict=True)
    for x in (files, stored, records):
        found = worker.predict(x, verbose=0, batch_size=8)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        assert worker.evaluate(x, verbose=0, return_dict=True) == pytest.approx(losses, rel=1e-5)


def test_a_negative_budget_is_refused(worker: MultiTaskModel) -> None:
    with pytest.raises(ValueError, match="`memory_bytes` must be 0 or more"):
        worker.fit(TABLE, memory_bytes=-1)
