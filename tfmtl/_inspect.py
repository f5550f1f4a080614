"""`python -m tfmtl inspect` and `bench`: the model card of an exported version, and its speed."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from tfmtl._keras import tf
from tfmtl.serving.card import markdown
from tfmtl.serving.versions import MANIFEST, read_manifest, version_of
from tfmtl.serving.warm_up import of_size, read_requests, tensor


def inspect(path: pathlib.Path, out: TextIO, as_json: bool = False) -> int:
    """Print the card of a version, in Markdown or as JSON, and return the exit code."""
    version = version_of(path)
    out.write((version / MANIFEST).read_text() if as_json else markdown(read_manifest(version)))
    return 0


def bench(path: pathlib.Path, out: TextIO, sizes: Sequence[int], repeats: int) -> int:
    """Print load time, and latency percentiles and rows per second of every signature and batch size."""
    version = version_of(path)
    start = time.perf_counter()
    signatures = tf.saved_model.load(str(version)).signatures
    out.write(f"{version}: loaded in {time.perf_counter() - start:.2f} s\n\n")
    out.write("| signature | rows | p50 ms | p95 ms | p99 ms | rows/s |\n|---|---|---|---|---|---|\n")
    for name, stored in read_requests(version).items():
        request = {i: tensor(value) for i, value in stored.items()}
        for rows in sizes:
            batch, taken = of_size(request, rows), []
            for _ in range(repeats + 3):  # the first calls trace and allocate
                begin = time.perf_counter()
                signatures[name](**batch)
                taken.append(1000 * (time.perf_counter() - begin))
            p50, p95, p99 = np.percentile(taken[3:], [50, 95, 99])
            out.write(f"| {name} | {rows} | {p50:.2f} | {p95:.2f} | {p99:.2f} | {1000 * rows / p50:,.0f} |\n")
    return 0
