"""Malformed requests, versions swapped under load, and killed exports, in large numbers; the tests use small ones.

    python benchmarks/serving_robustness.py [--fuzzed 100000] [--clients 32] [--swaps 10] [--kills 50]

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


def main() -> None:
    """Parse the arguments, run the attacks and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in {"fuzzed": 100_000, "clients": 32, "swaps": 10, "kills": 50}.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    arguments = parser.parse_args()
    model, _ = build()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        version, other = export(model, folder / "model", max_k=MAX_K), export(model, folder / "other", max_k=MAX_K - 1)
        start = time.perf_counter()
        with serving(folder / "model") as server:
            server.wait_for(1)
            for body in robustness.malformed(GOOD):
                assert server.post(body)[0] == 400
            statuses = robustness.fuzz(server, GOOD, arguments.fuzzed)
        print(
            f"{arguments.fuzzed:,} fuzzed requests: statuses {statuses}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        (folder / "swapped").mkdir()
        answers = robustness.swap(folder / "swapped", [version, other], GOOD, arguments.clients, arguments.swaps)
        print(
            f"{arguments.clients} clients, {arguments.swaps} swaps: {answers:,} answers, none failed or mixed",
            flush=True,
        )
        versions = robustness.kill_exports(folder / "killed", arguments.kills, [])
        print(f"{arguments.kills} exports killed: {versions} complete versions, every one seen by the server loads")


if __name__ == "__main__":
    main()
