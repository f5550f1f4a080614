"""Ranking 100,000 queries among 1,000,000 candidates in bounded memory.

    python benchmarks/evaluation_scale.py [--queries 100000] [--candidates 1000000] [--block-mb 64 256]

Embeddings are random and have 32 numbers; each query has one positive. Memory is the peak of the process above that at
the start of the ranking: scores in blocks, and up to 100 bytes per candidate to find repeated ones.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import numpy as np

from tfmtl.evaluation import ProgressBar, rank_positives

WIDTH = 32


def peak_mb() -> float:
    """Return the peak memory of the process since the last reset, in megabytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return float("nan")


def reset_peak() -> None:
    """Reset the peak that the system records."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--block-mb", type=int, nargs="+", default=[64, 256])
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    queries, candidates = (
        rng.standard_normal((rows, WIDTH), np.float32) for rows in (arguments.queries, arguments.candidates)
    )
    positives = rng.integers(0, arguments.candidates, arguments.queries)
    print(f"{arguments.queries:,} queries, {arguments.candidates:,} candidates, {WIDTH} numbers each\n")
    rows, found = [], []
    for megabytes in arguments.block_mb:
        reset_peak()
        before, cpu, start = peak_mb(), time.process_time(), time.perf_counter()
        ranks = rank_positives(
            queries,
            candidates,
            np.arange(arguments.queries),
            positives,
            block_bytes=megabytes * 2**20,
            progress=ProgressBar() if sys.stdout.isatty() else None,  # in a file it would write one line per block
        )
        seconds = time.perf_counter() - start
        rows.append(f"| {megabytes} | {peak_mb() - before:.0f} | {seconds:.0f} | {time.process_time() - cpu:.0f} |")
        found.append(ranks)
    print("| block_bytes, MiB | peak above the start, MB | seconds | CPU seconds |\n|---|---|---|---|")
    print("\n".join(rows))
    worst = max(int(np.abs(ranks - found[0]).max()) for ranks in found)
    print(f"\nmean rank {found[0].mean():,.0f}; the size of a block moves a rank by at most {worst}, where products of")
    print("float32 in another order round two scores to the other side of each other")


if __name__ == "__main__":
    main()
