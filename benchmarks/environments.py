"""Environments of the peers: one per library, created on demand in `.peers/`, with pinned versions."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence


class UnavailableError(Exception):
    """An environment cannot be created; the text gives the reason in one sentence."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """The packages that pip installs for a peer."""

    name: str
    requirements: tuple[str, ...]

    @property
    def python(self) -> str:
        """The path of the interpreter below the root of the repository."""
        return f".peers/{self.name}/bin/python"

    def stamp(self) -> str:
        """Return the stamp of a finished environment; other versions or another Python lead to a new environment."""
        return "\n".join([".".join(map(str, sys.version_info[:2])), *self.requirements, ""])


# scikit-learn computes the AUCs in `peers/census_worker.py`, the same in any release.
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
    """Run a command.

    Raises:
        UnavailableError: with the last error that it writes, if it fails or does not exist.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        raise UnavailableError(errors[-1].removeprefix("ERROR: ") if errors else f"{command[0]} failed")


def ensure(environment: Environment, root: pathlib.Path, run: Callable[[Sequence[str]], None] = call) -> pathlib.Path:
    """Return the interpreter of an environment, and create the environment unless its stamp is up to date.

    Raises:
        UnavailableError: if it cannot be created; an incomplete environment is removed.
    """
    python = root / environment.python
    folder = python.parents[1]
    stamp = folder / "finished"
    if python.exists() and stamp.exists() and stamp.read_text() == environment.stamp():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Without pip, since the Python of a system may lack `ensurepip`: our pip installs for the other.
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *environment.requirements])
    except UnavailableError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UnavailableError(f"the environment of {environment.name} cannot be installed: {error}") from error
    stamp.write_text(environment.stamp())
    return python
