"""The README's code runs, block after block, as a reader would paste it."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.tracing import eager_steps

README = pathlib.Path(__file__).parents[1] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
def test_python_blocks_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick_start, subclass, tune, chains, balance, allocate, life, optimize = blocks()
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(quick_start, "quick start", "exec"), names)
    assert (tmp_path / "saved_models/quick/1/saved_model.pb").exists()

    exec(compile(subclass, "subclass", "exec"), names)
    exec("trunk = CrossedBottom(units=8)", names)
    exec("crossed = tfmtl.build_network(preprocessor, tasks, trunk)", names)
    exec("outputs = crossed(data.to_batch(test, preprocessor).features)", names)
    outputs = names["outputs"]
    assert isinstance(outputs, dict)
    assert sorted(outputs) == ["bought", "returned", "stars"]

    with eager_steps():  # the quick start has traced steps; those below are few
        fewer, replaced = re.subn(r"max_trials=\d+", "max_trials=2", tune)
        assert replaced == 1
        exec(compile(fewer.replace("epochs=3", "epochs=1"), "tune", "exec"), names)
        assert type(names["best"]).__name__ == "MultiTaskModel"

        exec(compile(chains, "chains", "exec"), names)
        exec("outputs = trunk.for_tasks(graph.order)(tf.ones([2, 3]))", names)
        assert list(names["outputs"]) == ["visit", "conversion", "spend"]  # type: ignore[call-overload]
        assert int(names["visitors"]["conversion"].notna().sum()) == 2  # type: ignore[index]

        exec(compile(balance, "balance", "exec"), names)
        assert (tmp_path / "conflicts.png").exists()

        names["held_out"] = names["test"]
        few = {
            "epochs=8, steps_per_epoch=50": "epochs=4, steps_per_epoch=2",
            "(probed, train)": "(probed, train, rounds=1)",
            "history, 50": "history, 2",
            "num_steps=4000": "num_steps=20",
            "epochs=20, steps_per_epoch=200": "epochs=1, steps_per_epoch=3",
        }
        for long, short in few.items():
            assert long in allocate
            allocate = allocate.replace(long, short)
        exec(compile(allocate, "allocate", "exec"), names)
        assert type(names["plan"]).__name__ == "Schedule"

        exec(compile(life, "life cycle", "exec"), names)
        assert (tmp_path / "saved_models/shop/1/saved_model.pb").exists()
        assert type(names["both"]).__name__ == "MultiTaskModel"

        exec(compile(optimize, "optimize", "exec"), names)
        assert type(names["model"].optimizer).__name__ == "ASGD"  # type: ignore[attr-defined]


def test_quick_start_is_thirty_lines() -> None:
    lines = [line for line in blocks()[0].splitlines() if line.strip()]
    assert len(lines) <= 36  # the table alone takes eight
