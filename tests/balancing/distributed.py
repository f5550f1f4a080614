"""Trains on two mirrored CPU devices and on one, and prints the largest difference of any weight; a process of its own.

Arguments: names of balancers in the conformance suite. The rows with all labels are trained on, so that the mean of the
replicas' means is the mean of the batch.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import numpy as np

from tfmtl._keras import keras, tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from tests.balancing import tiny  # noqa: E402  devices have to be set before anything is computed
from tests.conformance.balancers import BALANCERS  # noqa: E402
from tfmtl.balancing import MetaWeights  # noqa: E402
from tfmtl.training import MetaGradients  # noqa: E402


def weights(name: str, strategy: Any) -> list[np.ndarray]:
    """Return network and balancer after three steps of 16 rows."""
    rows = tf.nest.map_structure(lambda column: column[: 3 * tiny.BATCH], tiny.whole())
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(tiny.BATCH)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = tiny.model(BALANCERS[name](), keras.optimizers.SGD(0.1))
        learns = isinstance(model.balancer, MetaWeights)
        callbacks = [MetaGradients(tiny.whole(), every_n_steps=2, batch_size=24)] if learns else []
        model.fit(batches, epochs=1, verbose=0, callbacks=callbacks)
        return [tf.convert_to_tensor(v).numpy() for v in (*model.network.weights, *model.balancer.weights)]


strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # a second one in a process would reuse its collectives
differences = {}
for name in sys.argv[1:]:
    mirrored, alone = weights(name, strategy), weights(name, None)
    differences[name] = max(float(np.abs(a - b).max()) for a, b in zip(mirrored, alone, strict=True))
sys.stdout.write("\n" + json.dumps(differences) + "\n")
