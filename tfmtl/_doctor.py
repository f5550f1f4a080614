"""`python -m tfmtl doctor`: a report of versions, the Keras in use, devices, and known-bad combinations with cures.

This module imports no package that may be broken: versions come from the metadata of the packages, and each import is
tried only after the versions are written.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TextIO

_REQUIRED = {
    "tensorflow": "tensorflow",
    "tf-keras": "tf_keras",
    "keras": "keras",
    "tensorflow-recommenders": "tensorflow_recommenders",
    "keras-tuner": "keras_tuner",
    "tensorflow-model-optimization": "tensorflow_model_optimization",
    "pandas": "pandas",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "scikit-learn": "sklearn",
    "tensorboard": "tensorboard",
    "setuptools": "setuptools",
}
"""Distribution name to module name, in the order of the report."""

_OPTIONAL = ("scann", "matplotlib")
_VARIABLES = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Finding:
    """One known-bad combination and its cure."""

    problem: str
    cure: str


@dataclass(frozen=True)
class Facts:
    """The state of an installation: the only input of the checks.

    Args:
        versions: version by distribution name; None = not installed.
        legacy_keras: the environment variable `TF_USE_LEGACY_KERAS` at the start of the process.
        failures: error text by distribution name, for those that failed to import.
        requirements: the requirements of tfmtl in the notation of pip; empty if tfmtl is not installed.
    """

    versions: Mapping[str, str | None]
    legacy_keras: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()


def find_problems(facts: Facts) -> list[Finding]:
    """Return the known-bad combinations among the facts, the most likely cause first."""
    return [finding for check in _CHECKS for finding in check(facts)]


def report(out: TextIO) -> int:
    """Write the report and return the exit code: 0, or 1 if there is a known-bad combination."""
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # messages at start-up would bury the report
    versions = installed_versions()
    _write_table(out, "versions", {name: version or "not installed" for name, version in versions.items()})
    _write_table(out, "environment", variables)
    out.flush()  # the versions must be visible even if an import ends the process
    failures = _try_imports(versions)
    if "tfmtl" not in failures:
        _write_table(out, "in use", _in_use())
    problems = find_problems(Facts(versions, variables.get("TF_USE_LEGACY_KERAS"), failures, _own_requirements()))
    out.write("no known-bad combination\n" if not problems else f"known-bad: {len(problems)}\n")
    out.writelines(f"  {i}. {each.problem}\n     Cure: {each.cure}\n" for i, each in enumerate(problems, start=1))
    return 1 if problems else 0


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python, tfmtl and the packages that it uses; None = not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "tfmtl": sys.modules["tfmtl"].__version__}
    for name in (*_REQUIRED, *_OPTIONAL):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _try_imports(versions: Mapping[str, str | None]) -> dict[str, str]:
    """Import `tfmtl._keras`, then each installed package, and return the error texts by name."""
    refused = _import_error("tfmtl._keras")
    if refused:  # TFRS and the toolkit would fail for the same reason
        return {"tfmtl": refused}
    modules = {name: module for name, module in {**_REQUIRED, "scann": "scann"}.items() if versions[name]}
    errors = {name: _import_error(module) for name, module in modules.items()}
    return {name: error for name, error in errors.items() if error}


def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - every error is reported
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _in_use() -> dict[str, str]:
    gate = importlib.import_module("tfmtl._keras")
    devices = [device.name.removeprefix("/physical_device:") for device in gate.tf.config.list_physical_devices()]
    return {"Keras": f"{gate.keras.__name__} {gate.keras.__version__}", "devices": ", ".join(devices)}


def _own_requirements() -> tuple[str, ...]:
    try:
        return tuple(importlib.metadata.requires("tfmtl") or ())
    except importlib.metadata.PackageNotFoundError:
        return ()


def _write_table(out: TextIO, title: str, rows: Mapping[str, str]) -> None:
    if rows:
        out.write(f"{title}\n")
        out.writelines(f"  {name:<30} {value}\n" for name, value in rows.items())


def _check_variable(facts: Facts) -> Iterator[Finding]:
    if facts.legacy_keras and facts.legacy_keras not in ("1", "true", "True"):
        yield Finding(
            f"TF_USE_LEGACY_KERAS is {facts.legacy_keras!r}; TensorFlow then uses Keras 3, tfmtl needs Keras 2.",
            "unset TF_USE_LEGACY_KERAS (or set it to 1)",
        )


def _check_pair(facts: Facts) -> Iterator[Finding]:
    tensorflow, tf_keras = (_minor(facts.versions.get(name)) for name in ("tensorflow", "tf-keras"))
    if tensorflow and tf_keras and tensorflow != tf_keras:
        yield Finding(
            f"tf-keras {facts.versions['tf-keras']} belongs to TensorFlow {tf_keras}, "
            f"but tensorflow is {facts.versions['tensorflow']}.",
            f'pip install "tf-keras~={tensorflow}.0"',
        )


def _check_scann(facts: Facts) -> Iterator[Finding]:
    if "scann" in facts.failures:
        yield Finding(
            f"scann {facts.versions['scann']} was built for another TensorFlow than {facts.versions['tensorflow']} and "
            "does not load; tfmtl hides it, but `import tensorflow_recommenders` without tfmtl fails.",
            'pip uninstall scann (scann 1.4.2 goes with "tensorflow~=2.20.0")',
        )


def _check_missing(facts: Facts) -> Iterator[Finding]:
    for name in _REQUIRED:
        if facts.versions.get(name) is None:
            yield Finding(f"{name} is not installed.", f"pip install {name}")


def _check_bounds(facts: Facts) -> Iterator[Finding]:
    """Compare the installed versions with the requirements of tfmtl, except those of extras."""
    if not facts.requirements:
        return
    requirements = importlib.import_module("packaging.requirements")
    for line in facts.requirements:
        requirement = requirements.Requirement(line)
        version = facts.versions.get(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and version and not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                f"{requirement.name} is {version}, tfmtl needs {requirement.specifier}.",
                f'pip install "{requirement.name}{requirement.specifier}"',
            )


def _check_imports(facts: Facts) -> Iterator[Finding]:
    explained = {"scann"} | ({"tfmtl"} if any(_check_variable(facts)) else set())
    for name in (name for name in facts.failures if name not in explained):
        cure = "see the message" if name == "tfmtl" else f"pip install --force-reinstall {name}"
        yield Finding(f"{name} {facts.versions.get(name)} fails to import: {facts.failures[name]}", cure)


def _minor(version: str | None) -> str | None:
    return ".".join(version.split(".")[:2]) if version else None


_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _check_variable,
    _check_pair,
    _check_scann,
    _check_missing,
    _check_bounds,
    _check_imports,
)
