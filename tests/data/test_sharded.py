from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from tfmtl._keras import tf
from tfmtl.data import (
    Categorical,
    FileSource,
    Label,
    Numeric,
    Preprocessor,
    Schema,
    distribute,
    fit_statistics,
    open_files,
)
from tfmtl.data.sharded import ShardedFiles

SCHEMA = Schema(query=[Categorical("user"), Numeric("row")], labels=[Label("seen")])
PARTS = [7, 3, 5, 2, 4]  # rows of a row group or file


def table(rows: int) -> pd.DataFrame:
    row = np.arange(rows)
    return pd.DataFrame({"user": [f"u{k % 3}" for k in row], "row": row.astype(float), "seen": row % 2.0})


def written(folder: pathlib.Path, suffix: str) -> FileSource:
    whole = table(sum(PARTS))
    begin = 0
    for number, rows in enumerate(PARTS):
        part = whole.iloc[begin : begin + rows]
        path = folder / f"part-{number}.{suffix}"
        if suffix == "csv":
            part.to_csv(path, index=False)
        else:
            pyarrow.parquet.write_table(pa.Table.from_pandas(part, preserve_index=False), path)
        begin += rows
    return open_files(folder, SCHEMA)


def preprocessor() -> Preprocessor:
    statistics = fit_statistics(SCHEMA, table(sum(PARTS)))
    return Preprocessor(SCHEMA, statistics)


def files(source: FileSource, batch: int = 8, **options: Any) -> ShardedFiles:
    return distribute(source, preprocessor(), batch, **options)


def rows_of(shared: ShardedFiles, workers: int, replicas: int, epochs: int) -> list[list[list[list[int]]]]:
    """Return the rows of every batch by worker and epoch, rows named by their value of "row"."""
    moments = shared.preprocessor.statistics.moments["row"]
    found = []
    for worker in range(workers):
        context = tf.distribute.InputContext(workers, worker, replicas)
        steps = shared.steps(workers) * (replicas // workers)
        batches = [b.features["row"].numpy()[:, 0] for b in shared.pipeline(context).take(epochs * steps)]
        values = [np.rint(b * moments.deviation + moments.mean).astype(int).tolist() for b in batches]
        found.append([values[epoch * steps : (epoch + 1) * steps] for epoch in range(epochs)])
    return found


@pytest.mark.parametrize(
    ("workers", "replicas", "suffix", "seed"),
    [(1, 1, "parquet", 4), (2, 2, "csv", None), (2, 4, "parquet", 4), (3, 3, "csv", 4), (5, 5, "parquet", None)],
)
def test_every_row_comes_once_an_epoch(
    workers: int, replicas: int, suffix: str, seed: int | None, tmp_path: pathlib.Path
) -> None:
    shared = files(written(tmp_path, suffix), batch=4 * replicas, shuffle_seed=seed)
    found = rows_of(shared, workers, replicas, epochs=2)
    for epoch in range(2):
        rows = [row for worker in found for batch in worker[epoch] for row in batch]
        assert sorted(rows) == list(range(sum(PARTS)))
    assert len({len(worker[0]) for worker in found}) == 1  # as many steps on every worker
    assert max(len(batch) for worker in found for batch in worker[0]) == 4
    assert (found[0][0] != found[0][1]) == (seed is not None)


def test_rows_are_shared_evenly(tmp_path: pathlib.Path) -> None:
    source = written(tmp_path, "parquet")
    assert [source.shard(index, 2).count_rows() for index in range(2)] == [10, 11]  # 7 + 3, 5 + 4 + 2
    assert [source.shard(index, 3).count_rows() for index in range(3)] == [7, 7, 7]  # 7, 5 + 2, 4 + 3
    assert files(source, batch=8).steps(2) == 3  # 11 rows by 4


def test_epochs_are_seeded_by_the_steps_before(tmp_path: pathlib.Path) -> None:
    """An iteration that begins at a later step goes on as the first one did."""
    shared = files(written(tmp_path, "parquet"), shuffle_seed=1)
    steps = shared.steps()
    whole = [b.features["row"].numpy().tolist() for b in shared.pipeline().take(3 * steps)]
    clock = tf.Variable(steps, dtype=tf.int64)
    resumed = [b.features["row"].numpy().tolist() for b in shared.pipeline(clock=clock).take(2 * steps)]
    assert resumed == whole[steps:]
    assert whole[:steps] != whole[steps : 2 * steps]


def test_too_few_parts_and_uneven_batches_are_refused(tmp_path: pathlib.Path) -> None:
    source = written(tmp_path, "parquet")
    with pytest.raises(ValueError, match="5 parts cannot be shared by 6 processes; write more files"):
        source.shard(0, 6)
    with pytest.raises(ValueError, match=r"`index` must lie between 0 and 1. Received: index=2"):
        source.shard(2, 2)
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the 3 replicas"):
        files(source, batch=8).pipeline(tf.distribute.InputContext(3, 0, 3))
