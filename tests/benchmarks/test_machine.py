from __future__ import annotations

import pathlib
import re
import subprocess

import machine
import numpy as np
import pytest


def test_versions_name_the_stack_and_the_commit(tmp_path: pathlib.Path) -> None:
    line = machine.versions(tmp_path)
    assert f"numpy {np.__version__}," in line
    assert re.match(r"Python 3\.\d+\.\d+", line)
    assert line.endswith("tfmtl of an unknown commit")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package",))
    assert "no no-such-package" in machine.versions(tmp_path)


def test_commit_shows_whether_files_are_changed(tmp_path: pathlib.Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=none")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    git("tag", "-a", "v1", "-m", "v1")
    clean = machine.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    (tmp_path / "a").write_text("2")
    assert machine.commit(tmp_path) == f"{clean}-dirty"


def test_hardware_is_one_line() -> None:
    assert re.fullmatch(r"\d+ cores, \d+ GiB, .+, load \d+\.\d at the start", machine.hardware())


def test_processor_is_the_first_model(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: One: fast\n\nmodel name\t: Two\n")
    assert machine.processor(path) == "One: fast"
    assert machine.processor(tmp_path / "none")
