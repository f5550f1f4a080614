"""`python -m tfmtl inspect`, `bench` and `report`: the card of an exported version, its speed, a report of a model."""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._table_files import open_table
from tfmtl.serving.card import markdown
from tfmtl.serving.plain_text import visible
from tfmtl.serving.versions import check_files, read_manifest, version_of
from tfmtl.serving.warm_up import of_size, read_requests, tensor


def inspect(path: pathlib.Path, out: TextIO, as_json: bool = False) -> int:
    """Print the card of a version, in Markdown or as JSON, and return the exit code; no code of the version runs."""
    version = version_of(path)
    manifest = read_manifest(version)
    check_files(version)
    text = json.dumps(manifest, indent=1, ensure_ascii=False) if as_json else markdown(manifest)
    lines = "\n".join(map(visible, text.split("\n"))) + ("\n" if as_json else "")
    encoding = getattr(out, "encoding", None) or "utf-8"
    out.write(lines.encode(encoding, "backslashreplace").decode(encoding))
    return 0


def bench(path: pathlib.Path, out: TextIO, sizes: Sequence[int], repeats: int) -> int:
    """Print load time, and latency percentiles and rows per second of every signature and batch size."""
    version = version_of(path)
    check_files(version)
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


def report(chosen: argparse.Namespace, out: TextIO) -> int:
    """Write the report of a saved model, print its path, and return the exit code."""
    from tfmtl.models import load_model
    from tfmtl.reporting import write_report

    test, train = (None if path is None else open_table(path).to_table() for path in (chosen.test, chosen.train))
    require(not chosen.hide_seen or train is not None, "`--hide-seen` needs the training rows; add `--train FILE`.")
    seen = train if chosen.hide_seen else None
    path = write_report(load_model(chosen.model), test, chosen.path, train=train, seen=seen, slices=chosen.slices)
    out.write(f"{path}\n")
    return 0
