"""The code of docs/allocation.md runs, block after block, and its links lead to sections that exist."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.tracing import eager_steps

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "allocation.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_blocks_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "allocation"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 9
    with eager_steps():
        for number, block in enumerate(blocks):
            exec(compile(block, f"block {number}", "exec"), names)
    assert type(names["plan"]).__name__ == "Schedule"
    assert type(names["policy"]).__name__ == "FoundPolicy"
    for name in ("sliced", "contextual"):
        assert (tmp_path / "saved_models" / name / "1" / "saved_model.pb").exists()


def test_links_lead_to_sections() -> None:
    sections = set(re.findall(r"^## (\S+)$", (ROOT / "benchmarks" / "RESULTS.md").read_text(), flags=re.MULTILINE))
    linked = set(re.findall(r"RESULTS\.md#([\w-]+)", PAGE))
    assert linked - sections == set()
    assert {"fusion_weights", "contextual_weights", "task_groups", "schedules"} <= linked
    files = [name for name in re.findall(r"\]\(([\w/.]+)\)", PAGE) if not (ROOT / "docs" / name).exists()]
    assert files == []
