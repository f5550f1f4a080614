"""The commands that look at an exported model, on the golden one."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tfmtl.__main__ import main

GOLDEN = pathlib.Path(__file__).parents[1] / "saved_models" / "golden"


@pytest.mark.parametrize("path", [GOLDEN, GOLDEN / "1"])
def test_inspect_prints_the_card(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out == (GOLDEN / "1" / "assets.extra" / "model_card.md").read_text()


def test_inspect_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["tasks"]["rating"] == "Regression"


def test_bench_measures_every_signature(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(GOLDEN), "--rows", "1", "3", "--repeats", "1"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| r")]
    assert ["| rank", "3"] in [row[:2] for row in rows]
    assert all(float(row[2]) > 0 for row in rows[1:])


def test_the_newest_version_is_taken(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, description in (("9", "old"), ("10", "new")):
        folder = tmp_path / version / "assets.extra"
        folder.mkdir(parents=True)
        manifest = json.loads((GOLDEN / "1" / "assets.extra" / "tfmtl.json").read_text())
        manifest["card"]["description"] = description
        (folder / "tfmtl.json").write_text(json.dumps(manifest))
    main(["inspect", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[2] == "new"


def test_defaults_of_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def bench(path: pathlib.Path, out: Any, rows: list[int], repeats: int) -> int:
        given.append((rows, repeats))
        return 0

    monkeypatch.setattr("tfmtl._inspect.bench", bench)
    assert main(["bench", str(GOLDEN)]) == 0
    assert given == [([1, 8, 64], 100)]


@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_a_folder_without_a_version_is_one_sentence(
    command: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path} holds no version exported by tfmtl; give a folder such as saved_models/NAME/1.\n"
    )
