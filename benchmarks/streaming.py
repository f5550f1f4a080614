"""Training from files ten times as large as the memory limit for data, against training on rows in memory.

    python benchmarks/streaming.py                          # 128 MB for data, files of 1.28 GB
    python benchmarks/streaming.py --units 256 128          # the rating head of TFRS's tutorial; by default a small one

The process first builds and warms up all parts and then limits its own growth (RLIMIT_DATA: heap and private pages), so
that holding the data set would raise a MemoryError. It trains one model on one pass over the files (`from_files`), on
one over the cache on disk that `data.cache` makes of them, and on as many rows of a table that fits, one segment of
each in turn. Rates are rows per second from the first batch of a segment to its last; ratios are between neighbouring
segments, as median and range. Memory is the growth of VmRSS and of its peak since the limit was set.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import tfmtl  # noqa: F401 - before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf
from paired import spread

from tfmtl import data, keras, layers, models, tasks
from tfmtl.data.frames import gather_batches

BATCH_SIZE, SIZE = 4096, 32
STEPS = 16  # steps per call of the traced function; `fit` would choose 32
SCHEMA = data.Schema(
    query=[data.Categorical("user_id"), data.Numeric("age"), data.Categorical("hour", dtype="int64")],
    candidate=[
        data.Categorical("item_id", dtype="int64"), data.MultiValued("genres", separator="|", max_length=4),
        data.Numeric("price", transform="log1p"), data.Vector("image", size=SIZE),
    ],
    labels=[data.Label("click"), data.Label("stars")],
)  # fmt: skip


def rows_of(count: int, seed: int) -> pa.Table:
    """Return random interactions."""
    rng = np.random.default_rng(seed)
    genres = pa.array(["Drama", "Comedy|Romance", "Action|Crime|Thriller", "Documentary"])
    users = rng.zipf(1.3, count) % 50_000
    images = rng.normal(size=count * SIZE).astype(np.float32)
    return pa.table(
        {
            "user_id": pa.array(np.char.add("user-", users.astype(str)).tolist()),
            "age": rng.normal(40, 10, count).astype(np.float32),
            "hour": rng.integers(0, 24, count),
            "item_id": rng.zipf(1.2, count) % 20_000,
            "genres": genres.take(pa.array(rng.integers(0, 4, count))),
            "price": rng.gamma(2, 5, count).astype(np.float32),
            "image": pa.ListArray.from_arrays(np.arange(0, count * SIZE + 1, SIZE, dtype=np.int32), pa.array(images)),
            "click": rng.integers(0, 2, count).astype(np.float32),
            "stars": rng.normal(3, 1, count).astype(np.float32),
        }
    )


def write(folder: pathlib.Path, size: int) -> tuple[int, int]:
    """Write Parquet files of tables that take `size` bytes in memory; return their rows and bytes."""
    rows = total = number = 0
    while total < size:
        table = rows_of(100_000, number)
        pyarrow.parquet.write_table(table, folder / f"part-{number:04d}.parquet", row_group_size=25_000)
        rows, total, number = rows + table.num_rows, total + table.nbytes, number + 1
    return rows, total


def build(preprocessor: data.Preprocessor, units: Sequence[int]) -> models.MultiTaskModel:
    """Return a model of two tasks with a trunk of the given widths."""
    heads = [
        tasks.BinaryClassification("click"),
        tasks.Regression.from_statistics("stars", preprocessor.statistics),
    ]
    trunk = layers.SharedBottom(units=tuple(units))
    network = models.build_network(preprocessor, heads, trunk, embedding_dim=16)
    model = models.MultiTaskModel(network, heads, preprocessor)
    model.compile(keras.optimizers.legacy.Adagrad(0.05), steps_per_execution=STEPS)
    return model


def megabytes(name: str) -> float:
    """Return a size of the memory of the process, such as `VmRSS`, in MB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def advance(step: Callable[[Any], Any], iterator: Any, calls: int) -> tuple[float, float]:
    """Train for some calls; return rows per second from the end of the first to the last, and CPU us per row."""
    step(iterator)
    start, cpu, rows = time.perf_counter(), time.process_time(), (calls - 1) * STEPS * BATCH_SIZE
    for _ in range(calls - 1):
        step(iterator)
    return rows / (time.perf_counter() - start), 1e6 * (time.process_time() - cpu) / rows


def sources(
    files: data.FileSource, cached: data.EncodedTable, fits: data.Batch, preprocessor: data.Preprocessor, window: int
) -> dict[str, Callable[[int], tf.data.Dataset]]:
    """Return a factory for each data set by name; its argument is the seed of the order."""
    return {
        "in memory": lambda seed: gather_batches(fits, BATCH_SIZE, shuffle_seed=seed).repeat(),
        "files": lambda seed: data.from_files(files, preprocessor, BATCH_SIZE, shuffle_seed=seed, shuffle_rows=window),
        "cache on disk": lambda seed: cached.batches(BATCH_SIZE, shuffle_seed=seed, shuffle_rows=window),
    }


def forbid_growth(limit: int) -> None:
    """Limit the further growth of the private memory of the process to `limit` bytes."""
    now = int(megabytes("VmData") * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (now + limit, now + limit))


def refused(rows: int) -> bool:
    """Return whether the limit holds, that is, whether an array of the size of the table is refused."""
    try:
        np.ones([rows, SIZE + 16], np.float32)
    except MemoryError:
        return True
    return False


def main() -> None:
    """Parse the arguments and print one line per source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=128, help="allowed growth of the process")
    parser.add_argument("--times", type=int, default=10, help="size of the data set in units of the limit")
    parser.add_argument("--segments", type=int, default=10, help="segments per pass")
    parser.add_argument("--window", type=int, default=16_384, help="rows permuted at a time")
    parser.add_argument("--units", type=int, nargs="+", default=[64], help="widths of the layers that the tasks share")
    options = parser.parse_args()
    limit = options.megabytes << 20
    pa.set_memory_pool(pa.system_memory_pool())  # RLIMIT_DATA counts all of its pages at once
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        start = time.perf_counter()
        rows, size = write(folder, options.times * limit)
        files = data.open_files(folder, SCHEMA)
        print(f"{rows:,} rows, {size / 2**20:,.0f} MB in memory; written in {time.perf_counter() - start:.0f} s")
        start = time.perf_counter()
        preprocessor = data.Preprocessor.fit(SCHEMA, files)
        print(f"statistics: {time.perf_counter() - start:.0f} s; RSS {megabytes('VmRSS'):,.0f} MB")
        start = time.perf_counter()
        cached = data.cache(files, preprocessor, folder / "rows.cache")
        assert isinstance(cached, data.EncodedTable)
        print(f"cache on disk: {time.perf_counter() - start:.0f} s; {(folder / 'rows.cache').stat().st_size >> 20} MB")
        fits = data.cache(data.open_files(files.paths[:1], SCHEMA), preprocessor)
        assert isinstance(fits, data.Batch)
        model, steps = build(preprocessor, options.units), rows // BATCH_SIZE
        made = sources(files, cached, fits, preprocessor, options.window)
        step = model.make_train_function()
        for make in made.values():
            advance(step, iter(make(0)), 2)
        forbid_growth(limit)
        race(model, made, steps, options.segments, refused(rows))


def race(model: models.MultiTaskModel, made: Any, steps: int, segments: int, limited: bool) -> None:
    """Train on one pass over each source, one segment of each in turn, and print the measurements."""
    step = model.make_train_function()
    before, peak = megabytes("VmRSS"), megabytes("VmHWM")
    print(f"limit in force: {limited}; RSS {before:,.0f} MB, peak {peak:,.0f} MB")
    iterators = {name: iter(make(1)) for name, make in made.items()}
    rates: dict[str, list[float]] = {name: [] for name in made}
    costs: dict[str, list[float]] = {name: [] for name in made}
    for segment in range(segments):
        for name, iterator in iterators.items():
            rate, cost = advance(step, iterator, steps // STEPS // segments)
            rates[name].append(rate)
            costs[name].append(cost)
        line = ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items())
        print(f"  {segment + 1}/{segments}: RSS {megabytes('VmRSS') - before:+.0f} MB; rows/s: {line}", flush=True)
    print(f"peak {megabytes('VmHWM') - peak:+,.0f} MB")
    print("| source | rows/s | in memory / this | CPU us/row |\n|---|---|---|---|")
    for name, found in rates.items():
        slower = spread(np.divide(rates["in memory"], found))
        print(f"| {name} | {np.median(found):,.0f} | {slower} | {np.median(costs[name]):.2f} |")


if __name__ == "__main__":
    main()
