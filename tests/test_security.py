"""The floors of SECURITY.md are those of the requirements, and the installed packages keep them."""

from __future__ import annotations

import configparser
import importlib.metadata
import pathlib
import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
ROW = re.compile(r"^\| ([\w-]+)(?: \(3\))? \| ([\d.]+)[^|]*\| CVE-", flags=re.MULTILINE)
FLOORS = dict(ROW.findall((ROOT / "SECURITY.md").read_text()))


def requirements() -> dict[str, Requirement]:
    """Return the requirements of the package for this Python, by name."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [line for line in config["options"]["install_requires"].splitlines() if line and not line.startswith("#")]
    every = map(Requirement, lines)
    return {r.name: r for r in every if r.marker is None or r.marker.evaluate({"python_version": "3.12"})}


def test_the_table_is_read() -> None:
    assert len(FLOORS) == 9
    assert FLOORS["setuptools"] == "78.1.1"


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_is_a_requirement_that_is_kept(name: str) -> None:
    (lowest,) = [s.version for s in requirements()[name].specifier if s.operator == ">="]
    assert Version(lowest) == Version(FLOORS[name])
    assert Version(importlib.metadata.version(name)) >= Version(lowest)


def test_building_keeps_the_floor_of_setuptools() -> None:
    assert f'requires = ["setuptools>={FLOORS["setuptools"]}"]' in (ROOT / "pyproject.toml").read_text()
