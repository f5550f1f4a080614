"""Trains on two parameter servers with sharded tables and two workers, all in this process; prints the result.

Argument: a folder for the export.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from servers.processes import free_ports

from tfmtl._keras import tf

ports = free_ports(4)
cluster = tf.train.ClusterSpec(
    {"ps": [f"127.0.0.1:{p}" for p in ports[:2]], "worker": [f"127.0.0.1:{p}" for p in ports[2:]]}
)
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)  # workers wait for each other in few threads
servers = [
    tf.distribute.Server(cluster, job_name=job, task_index=index, protocol="grpc", config=config)
    for job in ("ps", "worker")
    for index in range(2)
]
strategy = tf.distribute.ParameterServerStrategy(
    tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc"),
    variable_partitioner=tf.distribute.experimental.partitioners.MinSizePartitioner(min_shard_bytes=16, max_shards=2),
)

from tests.distribution.training import BATCH, model, table  # noqa: E402  the servers are the first to use the devices
from tfmtl.models.strategies import local_copy  # noqa: E402
from tfmtl.serving import export  # noqa: E402


def loss_of(trained: Any) -> dict[str, float]:
    return dict(trained.evaluate(table(), batch_size=BATCH, return_dict=True, verbose=0))


with strategy.scope():
    trained = model()
    try:
        refused = model(num_queued_negatives=4).name
    except ValueError as error:
        refused = str(error)
before = loss_of(trained)
log = trained.fit(table(), batch_size=BATCH, epochs=4, verbose=0).history
copy = local_copy(trained)
copy.compile()
after, of_copy = loss_of(trained), loss_of(copy)
served, of_servers = copy.predict(table(), verbose=0), trained.predict(table(), verbose=0)
found = {
    "shards": sum("/part_1" in variable.name for variable in trained.network.weights),
    "steps": int(trained.optimizer.iterations),
    "counted": float(trained.tasks[0]._counts.total),
    "losses": [before["loss"], after["loss"]],
    "logged": {name: len(values) for name, values in log.items()},
    "copy": max(abs(after[name] - of_copy[name]) for name in after),
    "predictions": max(float(np.abs(served[name] - of_servers[name]).max()) for name in served),
    "refused": refused,
    "export": export(trained, sys.argv[1]).name,
}
sys.stdout.write("\n" + json.dumps(found) + "\n")
