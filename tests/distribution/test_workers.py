from __future__ import annotations

import json
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from servers.processes import free_ports

from tests.distribution.processes import answers
from tests.distribution.training import largest_difference, table

ROWS = [20, 13, 17]  # of a file; one worker reads 30 rows in four steps, the other 20 in three and is idle in the last


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two workers on loopback and a process alone printed."""
    folder: pathlib.Path = tmp_path_factory.mktemp("files")
    begin = 0
    for number, rows in enumerate(ROWS):
        part = table().iloc[begin : begin + rows]
        pyarrow.parquet.write_table(pa.Table.from_pandas(part, preserve_index=False), folder / f"{number}.parquet")
        begin += rows
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
    environments = [{"TF_CONFIG": json.dumps(worker)} for worker in workers]
    return answers("tests.distribution.worker", [*environments, {}], [str(folder)])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["table", "files"])
def test_two_workers_train_as_one_process_on_the_same_batches(found: list[dict[str, Any]], data: str) -> None:
    """Logs, metrics, weights and counts, though labels are missing unevenly and the last parts differ in size."""
    first, second, alone = (printed[data] for printed in found)
    assert largest_difference(first, alone) < 1e-4
    assert largest_difference(second, alone) < 1e-4
    assert first["loss"][1] < first["loss"][0]
