"""Steps on two mirrored CPU devices and on one, and the largest difference of weights and averages; its own process.

Arguments: names of optimisers in `tests/training/sparse.py`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from tests.training.sparse import OF_LARGE_TABLES, START, random_steps, run, table
from tfmtl._keras import tf


def difference(name: str, strategy: tf.distribute.Strategy) -> float:
    """Return the largest difference after four steps; each replica has half of the rows."""
    with strategy.scope():
        weights, optimizer = table(), OF_LARGE_TABLES[name]()
        optimizer.build([weights])

    @tf.function
    def step(rows: tf.Tensor, values: tf.Tensor) -> None:
        def replica() -> None:
            own = tf.range(tf.size(rows)) % 2 == tf.distribute.get_replica_context().replica_id_in_sync_group
            gradient = tf.boolean_mask(values, own), tf.boolean_mask(rows, own), tf.constant(START.shape)
            optimizer.apply_gradients([(tf.IndexedSlices(*gradient), weights)])

        strategy.run(replica)

    for rows, values in random_steps(4):
        step(tf.constant(rows), tf.constant(values, tf.float32))
    alone, expected = OF_LARGE_TABLES[name](), table()
    found = [largest(strategy.experimental_local_results(weights), run(alone, random_steps(4), expected))]
    if hasattr(optimizer, "swap_averages"):
        optimizer.swap_averages([weights])
        alone.swap_averages([expected])
        found.append(largest(strategy.experimental_local_results(weights), expected.numpy()))
    return max(found)


def largest(parts: Any, expected: np.ndarray) -> float:
    return max(float(np.abs(part.numpy() - expected).max()) for part in parts)


def main() -> None:
    """Print the differences as JSON."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # a second one would reuse its collectives
    sys.stdout.write("\n" + json.dumps({name: difference(name, strategy) for name in sys.argv[1:]}) + "\n")


if __name__ == "__main__":
    main()
