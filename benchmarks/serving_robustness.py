"""Malformed requests, swaps under load, killed and parallel publications, in large numbers; the tests use small ones.

    python benchmarks/serving_robustness.py [--only fuzzed swaps kills publications]
        [--fuzzed 100000] [--clients 32] [--swaps 10] [--kills 50] [--processes 8] [--versions 100]

The server is `servers/server.py`, which has the REST API of TensorFlow Serving; it needs `tensorflow-serving-api`.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time

from servers import robustness
from servers.client import serving
from servers.models import MAX_K, build
from servers.publisher import publish_in_parallel

from tfmtl.serving import export

GOOD = {
    "signature_name": "retrieve_filtered",
    "inputs": {
        "user_id": ["u1", "u2", "unknown"],
        "age": [20.0, 30, 40],
        "interests": [["t1", "t2"]] * 3,
        "recent": [["i1", "i2", ""]] * 3,
        "exclude_ids": [["i1"]] * 3,
        "restrict_ids": [[""]] * 3,
        "k": [3, 10, -1],
    },
}


COUNTS = {"fuzzed": 100_000, "clients": 32, "swaps": 10, "kills": 50, "processes": 8, "versions": 100}


def main() -> None:
    """Parse the arguments, run the attacks and print the results."""
    attacks = {"fuzzed": fuzz, "swaps": swap, "kills": kill, "publications": publish}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=attacks, default=list(attacks))
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for attack in arguments.only:
            print(attacks[attack](pathlib.Path(name), arguments), flush=True)


def fuzz(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Send malformed and fuzzed requests."""
    export(build()[0], folder / "model", max_k=MAX_K)
    start = time.perf_counter()
    with serving(folder / "model") as server:
        server.wait_for(1)
        for body in robustness.malformed(GOOD):
            assert server.post(body)[0] == 400
        statuses = robustness.fuzz(server, GOOD, arguments.fuzzed)
    return f"{arguments.fuzzed:,} fuzzed requests: statuses {statuses}, {time.perf_counter() - start:.0f} s"


def swap(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Publish versions while clients send requests."""
    versions = [export(build()[0], folder / f"max_k_{k}", max_k=k) for k in (MAX_K, MAX_K - 1)]
    (folder / "swapped").mkdir()
    answers = robustness.swap(folder / "swapped", versions, GOOD, arguments.clients, arguments.swaps)
    return f"{arguments.clients} clients, {arguments.swaps} swaps: {answers:,} answers, none failed or mixed"


def kill(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Kill exporting processes."""
    versions = robustness.kill_exports(folder / "killed", arguments.kills, [])
    return f"{arguments.kills} exports killed: {versions} complete versions, every one seen by the server loads"


def publish(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Publish from several processes at once."""
    start = time.perf_counter()
    versions = publish_in_parallel(folder / "parallel", arguments.processes, arguments.versions)
    seconds = time.perf_counter() - start
    each = f"{arguments.processes} processes publish {arguments.versions} versions each"
    return f"{each}: {versions} complete versions in order, none lost, no error, {seconds:.0f} s"


if __name__ == "__main__":
    main()
