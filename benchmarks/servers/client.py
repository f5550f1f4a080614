"""Starts `server.py` and sends it requests, as a client without TensorFlow does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

SERVER = pathlib.Path(__file__).with_name("server.py")


class Client:
    """One connection to a server's REST API, and the port of its gRPC API."""

    def __init__(self, ports: dict[str, int], process: subprocess.Popen[str]) -> None:
        self.ports, self.process = ports, process
        self.connection = http.client.HTTPConnection("127.0.0.1", ports["rest"], timeout=60)

    def another(self) -> Client:
        """Return a client of the same server with a new connection."""
        return Client(self.ports, self.process)

    def post(self, body: bytes, path: str = "/v1/models/model:predict") -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        self.connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def predict(self, signature: str, **request: Any) -> Any:
        """Return the answer to a good request with `instances` or `inputs`."""
        status, answer = self.post(json.dumps({"signature_name": signature, **request}).encode())
        assert status == 200, answer
        return answer

    def state(self) -> dict[str, Any]:
        """Return the served version and the versions that failed to load."""
        self.connection.request("GET", "/")
        state: dict[str, Any] = json.loads(self.connection.getresponse().read())
        return state

    def wait_for(self, version: int, seconds: float = 180) -> None:
        """Wait until a version is served."""
        end = time.monotonic() + seconds
        while (served := self.state()["version"]) is None or served < version:
            assert time.monotonic() < end, self.state()
            time.sleep(0.05)


@contextlib.contextmanager
def serving(folder: pathlib.Path) -> Iterator[Client]:
    """Run a server of a model's folder until the end of the block."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    command = [sys.executable, str(SERVER), str(folder), "0.1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        client = Client(json.loads(process.stdout.readline()), process)
        try:
            yield client
        finally:
            client.connection.close()
            process.stdin.close()
