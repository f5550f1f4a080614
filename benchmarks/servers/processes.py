"""Processes that end with the program that started them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 240
"""The time after which a process counts as hanging."""


@contextlib.contextmanager
def running(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run one process of a command for each environment until the end of the block."""
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
    """Return the last line that each process of a command prints, parsed as JSON."""
    with running(command, environments) as processes:
        texts = [process.communicate(timeout=seconds)[0] for process in processes]
        for process, text in zip(processes, texts, strict=True):
            assert process.returncode == 0, text[-4000:]
    return [json.loads(text.splitlines()[-1]) for text in texts]


def free_ports(count: int) -> list[int]:
    """Return distinct free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
