"""A training that stops in its third epoch and is resumed: heads of numbers, queues and counts of negatives."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tests.models import numbers, small
from tests.models.resume import backup
from tfmtl._keras import keras, tf
from tfmtl.balancing import Uncertainty
from tfmtl.layers import SharedBottom
from tfmtl.models import MultiTaskModel, load_model, save_model
from tfmtl.tasks import BinaryClassification, Retrieval, Task

EPOCHS, BATCH = 4, 10
pytestmark = pytest.mark.usefixtures("eager_steps")


class StoppedError(Exception):
    """The end of a process."""


class Stop(keras.callbacks.Callback):
    """Stops two and a half epochs after the start."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) >= 2.5 * small.ROWS / BATCH:
            raise StoppedError


def with_queue() -> MultiTaskModel:
    arguments: dict[str, Any] = {"num_queued_negatives": 24, "negatives_power": 0.75, "query_key": "user"}
    heads: list[Task] = [Retrieval("seen", num_uniform_negatives=3, **arguments), BinaryClassification("liked")]
    return small.model(heads=heads, trunk=SharedBottom(["liked"], units=[4]), balancer=Uncertainty())


def of_numbers() -> MultiTaskModel:
    return numbers.model(Uncertainty())


MODELS: Mapping[str, tuple[Callable[[], MultiTaskModel], Callable[[], Any]]] = {
    "numbers": (of_numbers, numbers.table),
    "queue": (with_queue, small.table),
}


def variables(model: MultiTaskModel) -> list[tf.Variable]:
    """Return the variables of the network, of the balancer, counts and queues, and of the optimizer."""
    return [*model.network.weights, *model.state, *model.optimizer.variables]


@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_training_ends_like_an_undisturbed_one(name: str, tmp_path: pathlib.Path) -> None:
    make, rows = MODELS[name]
    fit: dict[str, Any] = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0}
    whole = make()
    expected = whole.fit(rows(), **fit).history
    with pytest.raises(StoppedError):
        make().fit(rows(), callbacks=[backup(str(tmp_path)), Stop()], **fit)
    resumed = make()
    log = resumed.fit(rows(), callbacks=[backup(str(tmp_path))], **fit).history
    assert {key: len(values) for key, values in log.items()} == dict.fromkeys(expected, EPOCHS - 2)
    for key, values in expected.items():
        np.testing.assert_allclose(log[key], values[2:], rtol=1e-5, err_msg=key)
    for found, wanted in zip(variables(resumed), variables(whole), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=wanted.name)
    if name == "queue":
        keys, embeddings = whole.tasks[0]._queue.keys.numpy(), whole.tasks[0]._queue.embeddings.numpy()
        assert (keys >= 0).all()
        assert (embeddings[:, -1] == 1).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_keeps_the_state_of_its_training(name: str, tmp_path: pathlib.Path) -> None:
    make, rows = MODELS[name]
    model = make()
    model.fit(rows(), batch_size=BATCH, epochs=1, verbose=0)
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert [part.name for part in loaded.state] == [part.name for part in model.state]
    for own, other in zip(model.state, loaded.state, strict=True):
        np.testing.assert_array_equal(other, own, err_msg=own.name)
