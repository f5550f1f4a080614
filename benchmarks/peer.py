"""Another library in a separate process with its own Python, which answers commands over a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

Save: TypeAlias = Callable[[pathlib.Path], object]

WORKERS = pathlib.Path(__file__).parent / "peers"


class Peer:
    """A worker of `peers/`; `peers/pipe.py` is the other side of the pipe.

    Args:
        name: name of the library.
        python: interpreter of the environment of the library.
        worker: file name of the worker.
        save: writes the data of the worker to a path that ends in `.npz`.
        arguments: further arguments of the worker.
    """

    def __init__(self, name: str, python: str, worker: str, save: Save, *arguments: str) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self._folder.name) / "data.npz"
        save(path)
        command = [python, str(WORKERS / worker), "--data", str(path), *arguments]
        own = {
            name: value for name, value in os.environ.items() if name != "PYTHONPATH"
        }  # the worker must not import our packages
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            RuntimeError: if the worker has ended.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended on the command {do!r}; its error is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process by closing its input."""
        with contextlib.suppress(BrokenPipeError), self._process:  # the pipe is broken if the process has ended
            pass
        self._folder.cleanup()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
