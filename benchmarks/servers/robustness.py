"""Stress of a server by malformed requests, swaps under load and killed exports; their numbers are arguments."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

from servers.client import Client, serving
from tfmtl.serving.publishing import publish
from tfmtl.serving.versions import versions_in

EXPORTING = pathlib.Path(__file__).with_name("exporting.py")
JUNK = (
    None,
    True,
    0,
    -1,
    1.5,
    2**70,
    1e400,
    float("nan"),
    "",
    "x",
    "\ud800",
    "\0",
    [],
    [[]],
    {},
    {"b64": "!"},
    [[["a"]]],
)


def malformed(good: dict[str, Any]) -> list[bytes]:
    """Return malformed variants of a good body, which has columns of `retrieve_filtered` and string ids."""
    columns = good["inputs"]
    changes: dict[str, Any] = {
        "number for a string": {"user_id": [1] * len(columns["user_id"])},
        "string for a number": {"age": ["old"] * len(columns["age"])},
        "fraction for an integer": {"k": [1.5] * len(columns["k"])},
        "too large an integer": {"k": [2**40] * len(columns["k"])},
        "too deep": {"user_id": [columns["user_id"]]},
        "too flat": {"exclude_ids": columns["user_id"]},
        "ragged": {"exclude_ids": [["i1"], *[["i1", "i2"]] * (len(columns["k"]) - 1)]},
        "rows differ": {"k": columns["k"][:-1]},
        "nothing": {"k": None},
    }
    bodies = [{**good, "inputs": {**columns, **change}} for change in changes.values()]
    bodies.append({**good, "inputs": {name: value for name, value in columns.items() if name != "user_id"}})
    bodies.append({**good, "signature_name": "unknown"})
    bodies.append({**good, "signature_name": 3})
    bodies.append({**good, "instances": [columns]})
    bodies.append({"signature_name": good["signature_name"]})
    bodies.append({"signature_name": good["signature_name"], "instances": []})
    bodies.append({"signature_name": good["signature_name"], "instances": [{"user_id": "u1"}]})
    raw = [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"inputs": {"user_id": ["\xc3\x28"]}}', b"[" * 100_000]
    return [*(json.dumps(body).encode() for body in bodies), *raw]


def fuzzed(good: dict[str, Any], rng: random.Random) -> bytes:
    """Return a request with some values replaced or some bytes changed."""
    body = json.loads(json.dumps(good))
    for _ in range(rng.randint(0, 3)):
        parent = body
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(parent[key], dict | list) and rng.random() < 0.7:
                parent = parent[key]
                continue
            if rng.random() < 0.2:
                del parent[key]
            else:
                parent[key] = copy.deepcopy(rng.choice(JUNK))
            break
    raw = bytearray(json.dumps(body).encode())
    for _ in range(rng.choice((0, 0, 1, 4))):
        start = rng.randrange(len(raw) + 1)
        raw[start : start + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    return bytes(raw)


def fuzz(client: Client, good: dict[str, Any], count: int, seed: int = 0) -> dict[int, int]:
    """Send fuzzed requests, with unchanged answers to a good one in between; return the count of each status."""
    rng, statuses = random.Random(seed), {}
    body = json.dumps(good).encode()
    expected = client.post(body)
    assert expected[0] == 200
    for i in range(count):
        status, _ = client.post(fuzzed(good, rng))
        statuses[status] = statuses.get(status, 0) + 1
        if i % 100 == 0:
            assert client.post(body) == expected
    assert client.post(body) == expected
    assert client.process.poll() is None
    return statuses


@dataclasses.dataclass(frozen=True)
class Swapped:
    """The number of answers under swaps, and 99 % quantiles of their seconds before the swaps and during them."""

    answers: int
    before: float
    during: float


def swap(
    folder: pathlib.Path,
    versions: list[pathlib.Path],
    good: dict[str, Any],
    clients: int,
    swaps: int,
    seconds: float = 0.0,
) -> Swapped:
    """Publish copies of versions in turn under load; each answer must be that of one version.

    Args:
        folder: folder of the model.
        versions: exported versions, each with another answer.
        good: the request of all clients.
        clients: number of clients, which send one request after the other.
        swaps: number of publications.
        seconds: time of load before the first swap, for the quantile.
    """
    body, stop = json.dumps(good).encode(), threading.Event()
    answers: list[tuple[float, float, str]] = []  # time of the answer, seconds, text
    failures: list[Any] = []
    publish_copy(versions[0], folder)
    with serving(folder) as server:
        server.wait_for(1)
        expected = [server.post(body)]

        def send() -> None:
            own = server.another()
            while not stop.is_set():
                start = time.perf_counter()
                try:
                    answer = json.dumps(own.post(body))
                except Exception as error:  # noqa: BLE001 - the test looks for any failure
                    failures.append(error)
                    break
                end = time.perf_counter()
                answers.append((end, end - start, answer))
            own.connection.close()

        threads = [threading.Thread(target=send) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        begin = time.perf_counter()
        for i in range(1, swaps + 1):
            publish_copy(versions[i % len(versions)], folder)
            server.wait_for(i + 1)
            expected.append(server.post(body))
        stop.set()
        for thread in threads:
            thread.join()
        assert server.state()["failures"] == []
    assert failures == []
    known = {json.dumps(answer) for answer in expected}
    assert len(known) == len(versions)
    assert {text for _, _, text in answers} <= known
    return Swapped(
        len(answers), *(_p99([each for end, each, _ in answers if (end > begin) == late]) for late in (False, True))
    )


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))] if seconds else 0.0


def publish_copy(version: pathlib.Path, folder: pathlib.Path) -> None:
    """Publish a copy of a version as the next one, as an export does."""
    publish(folder, lambda staging: copy_into(version, staging))


def copy_into(version: pathlib.Path, staging: pathlib.Path) -> None:
    """Copy the files of a version."""
    shutil.copytree(version, staging, dirs_exist_ok=True)


def kill_exports(folder: pathlib.Path, kills: int, arguments: list[str], seed: int = 0) -> int:
    """Kill processes that export repeatedly, at random times, and return the number of published versions.

    A first process runs until it has exported twice; each later one is killed at a random moment within that time.

    Args:
        folder: folder of the model; a server polls it meanwhile and must be able to load every version in it.
        kills: number of processes.
        arguments: arguments of `exporting.py`.
        seed: seed of the moments.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with serving(folder) as server:
        seconds = 0.0
        for undisturbed in (True, *[False] * kills):
            command = [sys.executable, str(EXPORTING), str(folder), *arguments]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout.readline() == b"ready\n"
                start = time.perf_counter()
                if undisturbed:
                    while not (folder / "2").exists():
                        assert process.poll() is None
                        time.sleep(0.01)
                    seconds = time.perf_counter() - start
                else:
                    time.sleep(rng.uniform(0, seconds))
                process.kill()
        versions = sorted(versions_in(folder))
        if versions:
            server.wait_for(versions[-1])
        assert server.state()["failures"] == []
    return len(versions)
