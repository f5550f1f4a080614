"""Processes that publish at the same time with the publisher of the package; they do not import TensorFlow."""

from __future__ import annotations

import importlib
import json
import pathlib
import subprocess
import sys
import types
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


def publish_in_parallel(folder: pathlib.Path, processes: int, versions: int) -> int:
    """Let several processes publish, and return the number of versions, each complete and of one publication.

    Args:
        folder: an absent folder of a model.
        processes: number of processes, which start to publish together.
        versions: number of versions that each process publishes.
    """
    command = [sys.executable, __file__, str(folder), str(versions)]
    started = [
        subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    numbers = [json.loads(process.communicate()[0]) for process in started]
    assert [process.returncode for process in started] == [0] * processes
    assert all(each == sorted(each) for each in numbers)  # each process publishes in order
    assert sorted(number for each in numbers for number in each) == [*range(1, processes * versions + 1)]
    assert {path.name for path in folder.iterdir()} == {str(i) for i in range(1, processes * versions + 1)}
    for i, each in enumerate(numbers):
        for j, number in enumerate(each):
            assert json.loads((folder / str(number) / "saved_model.pb").read_text()) == [i, j]
    return processes * versions


def main(folder: str, versions: str, process: str) -> None:
    """Print `ready`, wait for a line, publish, and print the numbers of the versions as JSON."""
    publish = import_publish()
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = []
    for i in range(int(versions)):

        def write(staging: pathlib.Path, contents: str = f"[{process}, {i}]") -> None:
            (staging / "variables").mkdir()
            (staging / "saved_model.pb").write_text(contents)

        numbers.append(int(publish(pathlib.Path(folder), write).name))
    print(json.dumps(numbers))


def import_publish() -> Any:
    """Return `publish`; empty packages replace those that import TensorFlow."""
    for name in ("tfmtl", "tfmtl.serving"):
        package = types.ModuleType(name)
        package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
        sys.modules[name] = package
    publish = importlib.import_module("tfmtl.serving.publishing").publish
    assert "tensorflow" not in sys.modules
    return publish


if __name__ == "__main__":
    main(*sys.argv[1:])
