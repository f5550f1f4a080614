"""Another library in a process of its own, with its own Python, that answers questions over a pipe."""

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
    """A worker of `peers/`; its side of the pipe is `peers/pipe.py`.

    Args:
        name: of the library.
        python: interpreter of the environment that it is installed in.
        worker: file name of the worker.
        save: writes the data for the worker to a path ending in `.npz`.
        arguments: further ones of the worker.
    """

    def __init__(self, name: str, python: str, worker: str, save: Save, *arguments: str) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self._folder.name) / "data.npz"
        save(path)
        command = [python, str(WORKERS / worker), "--data", str(path), *arguments]
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # our packages are not theirs
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
            raise RuntimeError(f"{self.name} ended when asked to {do!r}; its error is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, by the end of its input."""
        with contextlib.suppress(BrokenPipeError), self._process:  # broken, if it has ended by itself
            pass
        self._folder.cleanup()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
