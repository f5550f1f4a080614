from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.models import resume

RUN = """
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # some distributions install a package of this name
sys.modules["tests"].__path__ = ["tests"]
runpy.run_module("tests.models.resume", run_name="__main__")
"""


@pytest.mark.slow
def test_a_killed_training_ends_like_an_undisturbed_one(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as killed:
        undisturbed, expected = resume.train()
        complaint = killed.communicate()[1]
    assert killed.returncode == -signal.SIGKILL, complaint[-2000:]
    model, log = resume.train(resume.backup(str(tmp_path)))
    assert len(log["loss"]) == resume.EPOCHS - 2  # the epochs before the kill are not repeated
    assert model.optimizer.iterations == undisturbed.optimizer.iterations
    for name, values in expected.items():
        np.testing.assert_allclose(log[name], values[2:], rtol=1e-3, err_msg=name)
    np.testing.assert_array_equal(model.tasks[0]._counts.known, undisturbed.tasks[0]._counts.known)
    for variable, other in zip(model.trainable_variables, undisturbed.trainable_variables, strict=True):
        np.testing.assert_allclose(variable, other, rtol=1e-3, atol=1e-4, err_msg=variable.name)
