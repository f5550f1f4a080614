"""Trains heads of numbers on two mirrored CPU devices and on one, and prints the differences; a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

from tfmtl._keras import tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from tests.distribution.training import largest_difference, outcome_of  # noqa: E402
from tests.models.numbers import model, table  # noqa: E402  devices are set first
from tfmtl.balancing import Uncertainty  # noqa: E402
from tfmtl.tasks import GroupLoss, LossInputs  # noqa: E402

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def group_losses(rows: dict[str, list[Any]], cut: int, kind: Any) -> tuple[list[float], list[float]]:
    """Return the `GroupLoss` of each of two replicas, and the gradient of their mean with respect to the scores."""
    loss = GroupLoss(kind, "user")

    def part(context: Any) -> dict[str, tf.Tensor]:
        bounds = slice(cut) if context.replica_id_in_sync_group == 0 else slice(cut, None)
        return {name: tf.constant(values)[bounds] for name, values in rows.items()}

    def step(given: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        scores = given["scores"]
        with tf.GradientTape() as tape:
            tape.watch(scores)
            found = loss.of_batch(scores, given["labels"], given["weights"], LossInputs({"user": given["users"]}))
            share = found / 2
        return found, tape.gradient(share, scores)

    values = strategy.experimental_distribute_values_from_function(part)
    losses, gradients = tf.function(lambda x: strategy.run(step, args=(x,)))(values)
    local = strategy.experimental_local_results
    return [float(each) for each in local(losses)], tf.concat(local(gradients), axis=0).numpy().tolist()


given = json.loads(sys.argv[1])
alone = outcome_of(model(Uncertainty()), table(), table())
with strategy.scope():
    mirrored = model(Uncertainty())
found = {
    "groups": [group_losses(given["rows"], *case) for case in given["cases"]],
    "difference": largest_difference(alone, outcome_of(mirrored, table(), table())),
    "logged": sorted(alone),
}
sys.stdout.write("\n" + json.dumps(found) + "\n")
