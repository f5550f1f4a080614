"""A training that can be killed with -9 in its third epoch and resumed; as a script, it is the one that dies."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from tests.models import small
from tests.tracing import trace_quickly
from tfmtl._keras import keras
from tfmtl.balancing import Uncertainty
from tfmtl.layers import SequenceAugmentation, VirtualAdversarial
from tfmtl.models import MultiTaskModel, Regularization

EPOCHS, BATCH = 4, 10


class Kill(keras.callbacks.Callback):
    """Kills the process two and a half epochs after the start, as the loss of a machine would."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) >= 2.5 * small.ROWS / BATCH:
            os.kill(os.getpid(), signal.SIGKILL)


def train(*callbacks: keras.callbacks.Callback) -> tuple[MultiTaskModel, dict[str, list[float]]]:
    """Train a model in which every kind of state occurs: noise, negatives, streaming counts, a learned balancer."""
    disturbed = Regularization(
        dropout=0.2, unknown_rate=0.1, embedding_dropout=0.1, feature_dropout=0.1, expert_dropout=0.2, mixup=0.4,
        sequence=SequenceAugmentation(crop=0.5, mask=0.5, reorder=0.5), adversarial=VirtualAdversarial(),
    )  # fmt: skip
    noise = {"regularization": disturbed, "trunk": small.trunk(dropout=0.2)}
    model = small.model(balancer=Uncertainty(), negatives=4, **noise)
    log = model.fit(small.table(), batch_size=BATCH, epochs=EPOCHS, callbacks=[*callbacks], verbose=0)
    return model, log.history


def backup(directory: str) -> keras.callbacks.Callback:
    return keras.callbacks.BackupAndRestore(directory, delete_checkpoint=False)


if __name__ == "__main__":
    trace_quickly()
    train(backup(sys.argv[1]), Kill())
