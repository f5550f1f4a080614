"""The conditions of a measurement: versions, cores, memory and load."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess

PACKAGES = (
    "tensorflow", "tf_keras", "tensorflow-recommenders", "keras-tuner", "tensorflow-model-optimization", "numpy",
    "pandas",
)  # fmt: skip


def versions(root: pathlib.Path) -> str:
    """Return the versions of the stack and of the repository, as one line."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join([*found, f"tfmtl {commit(root)}"])


def commit(root: pathlib.Path) -> str:
    """Return the short hash of the commit, followed by `-dirty` if files are changed."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "of an unknown commit"


def hardware() -> str:
    """Return cores, memory, processor and the load at this moment, as one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {memory:.0f} GiB, {processor()}, load {os.getloadavg()[0]:.1f} at the start"


def processor(path: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Return the model of the processor."""
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
