"""Processes of a test: started as modules, read to their end, and always ended with the test."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = """
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # some distributions install a package of this name
sys.modules["tests"].__path__ = ["tests"]
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""
SECONDS = 240
"""After which a process hangs."""


@contextlib.contextmanager
def running(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start one process of a command for each environment."""
    started: list[subprocess.Popen[str]] = []
    try:
        for environment in environments:
            started.append(
                subprocess.Popen(
                    command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                )
            )  # fmt: skip
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def printed(command: Sequence[str], environments: Sequence[Mapping[str, str]], seconds: float = SECONDS) -> list[Any]:
    """Return the last line that each process of a command prints, read as JSON."""
    with running(command, environments) as processes:
        texts = [process.communicate(timeout=seconds)[0] for process in processes]
        for process, text in zip(processes, texts, strict=True):
            assert process.returncode == 0, text[-4000:]
    return [json.loads(text.splitlines()[-1]) for text in texts]


def answers(module: str, environments: Sequence[Mapping[str, str]] = ({},), arguments: Sequence[str] = ()) -> list[Any]:
    """Return the last line that each process of a module prints, read as JSON."""
    return printed([sys.executable, "-c", RUN, module, *arguments], environments)


def free_ports(count: int) -> list[int]:
    """Return free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
