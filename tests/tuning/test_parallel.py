from __future__ import annotations

import pathlib

import pytest
from servers.processes import free_ports

from tests.distribution.processes import answers


@pytest.mark.slow
def test_two_workers_share_the_trials_of_a_chief(tmp_path: pathlib.Path) -> None:
    [port] = free_ports(1)
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    names = ["chief", "worker-0", "worker-1"]
    environments = [{"KERASTUNER_TUNER_ID": name, **address} for name in names]
    chief, *workers = answers("tests.tuning.parallel", environments, [str(tmp_path)])
    assert chief["rows"][0]["score"] == pytest.approx(chief["best"], rel=1e-5)  # the model that a worker has saved
    assert [row["status"] for row in chief["rows"]] == ["COMPLETED"] * 4
    assert len({row["trial"] for row in chief["rows"]}) == 4
    assert sum(worker["trials"] for worker in workers) == 4
