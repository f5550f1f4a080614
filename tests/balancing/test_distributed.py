from __future__ import annotations

import json
import pathlib
import subprocess
import sys

RUN = """
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # some distributions install a package of this name
sys.modules["tests"].__path__ = ["tests"]
runpy.run_module("tests.balancing.distributed")
"""
KINDS = [
    "FixedWeights", "Exp3S", "AutoLambda", "MultiDDS", "Uncertainty", "GLS", "PCGrad", "CRMOGM", "GradNorm", "UPGrad",
    "MoCo", "MetaBalance",
]  # fmt: skip


def test_two_replicas_balance_like_one_device() -> None:
    """Losses, Gramians and tracked gradients of both replicas add up to those of the whole batch."""
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", RUN, *KINDS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(done.stdout.splitlines()[-1])
    assert set(differences) == set(KINDS)
    assert max(differences.values()) < 1e-5, differences
