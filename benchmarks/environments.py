"""Environments of the peers: each library's own, made on demand in `.peers/`, with the versions that are compared."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence


class UnavailableError(Exception):
    """An environment cannot be made; the text is the reason in one sentence."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """What pip installs for a peer."""

    name: str
    requirements: tuple[str, ...]

    @property
    def python(self) -> str:
        """The interpreter's path from the root of the repository."""
        return f".peers/{self.name}/bin/python"

    def stamp(self) -> str:
        """Return what a finished environment's stamp says: other versions, or another Python, make it anew."""
        return "\n".join([".".join(map(str, sys.version_info[:2])), *self.requirements, ""])


# scikit-learn computes the AUCs in `peers/census_worker.py`: any release gives the same.
_PEERS = (
    Environment("deepctr", ("deepctr==0.9.4", "tensorflow==2.21.0", "tf-keras==2.21.0", "scikit-learn>=1.5,<2")),
    Environment(
        "torch-rechub",
        (
            "torch==2.13.0", "torch-rechub==0.9.0", "onnx==1.23.2", "onnxruntime==1.32.0", "onnxscript==0.7.2",
            "scikit-learn>=1.5,<2",
        ),
    ),
    Environment("keras-rs", ("keras-rs==0.4.0", "tensorflow==2.21.0")),
    Environment("implicit", ("implicit==0.7.3",)),
)  # fmt: skip
ENVIRONMENTS = {environment.name: environment for environment in _PEERS}


def call(command: Sequence[str]) -> None:
    """Run a command and raise the last error that it writes.

    Raises:
        UnavailableError: if it fails or is not there.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        raise UnavailableError(errors[-1].removeprefix("ERROR: ") if errors else f"{command[0]} failed")


def ensure(environment: Environment, root: pathlib.Path, run: Callable[[Sequence[str]], None] = call) -> pathlib.Path:
    """Return the interpreter of an environment, which is made unless its stamp says that it is finished.

    Raises:
        UnavailableError: if it cannot be made; what there is of it is removed.
    """
    python = root / environment.python
    folder = python.parents[1]
    stamp = folder / "finished"
    if python.exists() and stamp.exists() and stamp.read_text() == environment.stamp():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Without pip, since a system's Python may lack what installs it there: ours installs for the other.
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *environment.requirements])
    except UnavailableError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UnavailableError(f"the environment of {environment.name} cannot be installed: {error}") from error
    stamp.write_text(environment.stamp())
    return python
