from __future__ import annotations

import pathlib

import pytest

from tests.distribution.processes import answers


@pytest.mark.slow
def test_workers_of_parameter_servers_train_sharded_tables(tmp_path: pathlib.Path) -> None:
    """What is trained on servers evaluates, predicts and is exported as its copy in one process is."""
    [found] = answers("tests.distribution.servers", arguments=[str(tmp_path)])
    assert found["shards"] >= 4
    assert found["steps"] == 16  # four epochs of four batches, from either worker
    assert found["counted"] > 4 * 20
    assert found["losses"][1] < 0.9 * found["losses"][0]
    assert set(found["logged"].values()) == {4}
    assert found["copy"] < 1e-5
    assert found["predictions"] == 0
    assert found["export"] == "1"
    assert found["refused"].startswith("`num_queued_negatives` of task 'seen' needs workers that compute a batch")
