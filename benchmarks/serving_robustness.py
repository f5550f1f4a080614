"""Malformed requests, swaps under load, killed and parallel publications, damaged files, in large numbers.

    python benchmarks/serving_robustness.py [--only requests fuzzed swaps kills publications damages]
        [--requests 100000] [--fuzzed 100000] [--clients 32] [--swaps 20] [--kills 50] [--processes 8] [--versions 100]
        [--damages 500] [--writers save export replace cache fit learner tuner]

The tests use smaller numbers.

The server is `servers/server.py`, which has the REST API of TensorFlow Serving; it needs `tensorflow-serving-api`.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import tempfile
import time
from typing import get_args

import numpy as np
import tensorflow as tf
from servers import attacks, kills, robustness
from servers.client import serving
from servers.damage import outcomes
from servers.models import MAX_K, IdType, build
from servers.publisher import publish_in_parallel

from tfmtl.serving import InvertedFile, export
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signatures import ENTRIES, signatures_of

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
    runs = {
        "requests": request,
        "fuzzed": fuzz,
        "swaps": swap,
        "kills": kill,
        "publications": publish,
        "damages": damage,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=runs, default=list(runs))
    for name, count in {
        "requests": 100_000,
        "fuzzed": 100_000,
        "clients": 32,
        "swaps": 20,
        "kills": 50,
        "processes": 8,
        "versions": 100,
        "damages": 500,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--writers", nargs="+", choices=kills.WRITERS, default=list(kills.WRITERS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for attack in arguments.only:
            print(runs[attack](pathlib.Path(name), arguments), flush=True)


def request(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Send hostile requests to each signature of exports with either type of id and either search."""
    every, start = attacks.Outcome(), time.perf_counter()
    for ids, search in itertools.product(get_args(IdType), (None, InvertedFile(probes=4, block=8))):
        model, _ = build(ids)
        exported = export(model, folder / f"{ids}-{search is None}", max_k=MAX_K, search=search)
        served = tf.saved_model.load(str(exported)).signatures
        signatures = signatures_of(Recommender(model, MAX_K, search=search), ENTRIES)
        count = -(-arguments.requests // (4 * len(signatures)))
        for name, signature in signatures.items():
            found = attacks.attack(model, signature, served[name], count, np.random.default_rng(0))
            every.answered, every.refused = every.answered + found.answered, every.refused + found.refused
            every.megabytes = max(every.megabytes, found.megabytes)
    numbers = f"{every.answered:,} answered as in memory, {every.refused:,} refused with the name of an input"
    return f"hostile requests: {numbers}, {every.megabytes:.0f} MB more, {time.perf_counter() - start:.0f} s"


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
    found = robustness.swap(folder / "swapped", versions, GOOD, arguments.clients, arguments.swaps, seconds=10)
    p99 = f"p99 {1000 * found.before:.0f} ms before the swaps and {1000 * found.during:.0f} ms during them"
    return (
        f"{arguments.clients} clients, {arguments.swaps} swaps: {found.answers:,} answers, none wrong or failed; {p99}"
    )


def kill(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Kill processes that write files."""
    (folder / "killed").mkdir()
    for kind in arguments.writers:
        print(kills.kill(kind, folder / "killed", arguments.kills), flush=True)
    versions = robustness.kill_exports(folder / "exported", arguments.kills, [])
    return f"{arguments.kills} exports killed: {versions} complete versions, every one seen by the server loads"


def publish(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Publish from several processes at once."""
    start = time.perf_counter()
    versions = publish_in_parallel(folder / "parallel", arguments.processes, arguments.versions)
    seconds = time.perf_counter() - start
    each = f"{arguments.processes} processes publish {arguments.versions} versions each"
    return f"{each}: {versions} complete versions in order, none lost, no error, {seconds:.0f} s"


def damage(folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """Change bits of files and cut files."""
    (folder / "damaged").mkdir()
    counts = outcomes(folder / "damaged", arguments.damages)
    lines = [f"{arguments.damages} changed bits and cuts of files, none read as another answer:", ""]
    lines += ["| written | refused by name | recovered | harmless |", "|---|---|---|---|"]
    for kind, count in counts.items():
        lines.append(f"| {kind} | {count['refused']} | {count['recovered']} | {count['harmless']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
