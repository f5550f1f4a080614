"""Trains on two mirrored CPU devices and on one, and prints the largest differences; a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from tests.distribution.training import largest_difference, model, outcome, table  # noqa: E402  devices are set first
from tfmtl.balancing import Uncertainty, UPGrad  # noqa: E402
from tfmtl.layers import Adversarial, DomainAdversary  # noqa: E402
from tfmtl.models import Regularization  # noqa: E402
from tfmtl.serving import export  # noqa: E402
from tfmtl.tasks import CandidateIds, LossInputs, Retrieval  # noqa: E402

CASES: dict[str, dict[str, Any]] = {
    "loss weighting, uniform and hard negatives": {
        "balancer": Uncertainty, "retrieval": {"num_uniform_negatives": 4, "num_hard_negatives": 12}
    },
    "gramian": {"balancer": UPGrad},
    "an attack": {
        "regularization": Regularization(
            adversarial=Adversarial(0.5, steps=2), unknown_rate=0.0, context_dropout=0.0
        )
    },
    "a discriminator of domains, beside a balancer of gradients": {
        "balancer": UPGrad,
        "regularization": Regularization(
            domain=DomainAdversary("user", 0.5), unknown_rate=0.0, context_dropout=0.0
        ),
    },
    "a queue and negatives by counts": {
        "retrieval": {"num_uniform_negatives": 4, "negatives_power": 0.75, "num_queued_negatives": 20}
    },
}  # fmt: skip
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # a second one in a process would reuse its collectives


def losses_of_parts(rows: dict[str, list[Any]], cuts: Sequence[int], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return each replica's loss, and the gradients of their mean with respect to queries and candidates."""
    with strategy.scope():
        task = Retrieval("t", **arguments)
        task.prepare(10)
        task.prepare_output({"candidate": tf.zeros([1, 3])})

    def part(context: Any) -> dict[str, tf.Tensor]:
        bounds = [0, *cuts, len(rows["ids"])][context.replica_id_in_sync_group :][:2]
        return {name: tf.constant(values)[bounds[0] : bounds[1]] for name, values in rows.items()}

    def step(given: dict[str, tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        outputs = {side: given[side] for side in ("query", "candidate")}
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            ids = CandidateIds(tf.cast(given["ids"], tf.int64), given["ids"])
            inputs = LossInputs({}, ids, training=True, keys={"user": tf.cast(given["users"], tf.int64)})
            loss, _ = task.compute_loss(given["labels"], outputs, given["weights"], inputs)
            share = loss / 2
        return loss, tape.gradient(share, [outputs["query"], outputs["candidate"]])

    values = strategy.experimental_distribute_values_from_function(part)
    run = tf.function(lambda x: strategy.run(step, args=(x,)))
    for _ in range(2 if arguments.get("num_queued_negatives") else 1):
        loss, gradients = run(values)
    joined = [tf.concat(strategy.experimental_local_results(g), axis=0).numpy().tolist() for g in gradients]
    return {
        "losses": [float(part) for part in strategy.experimental_local_results(loss)],
        "query": joined[0], "candidate": joined[1], "counts": task._counts.known.values[1].numpy().tolist(),
    }  # fmt: skip


def exported(folder: str) -> int:
    """Export a model of two replicas, which compares the saved version with the model, and return its signatures."""
    with strategy.scope():
        mirrored = model()
    return len(tf.saved_model.load(str(export(mirrored, folder))).signatures)


given = json.loads(sys.argv[1])
found = {
    "parts": [losses_of_parts(given["rows"], *arguments) for arguments in given["parts"]],
    "without_positives": losses_of_parts(
        {**given["rows"], "labels": [0.0] * len(given["rows"]["ids"])}, [2], {"num_queued_negatives": 7}
    ),
    "differences": {
        name: largest_difference(*(outcome(each, table(), **case) for each in (None, strategy)))
        for name, case in CASES.items()
    },
    "signatures": exported(given["folder"]),
}
sys.stdout.write("\n" + json.dumps(found) + "\n")
