from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import FixedWeights
from tfmtl.models import MultiTaskModel

TABLE = small.table()
CONTRARY = TABLE.assign(
    liked=1 - TABLE["liked"], rating=6 - TABLE["rating"]
)  # validation gets worse as training gets better


def test_early_stopping_checkpoint_csv_and_tensorboard(worker: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    callbacks = [
        keras.callbacks.EarlyStopping("val_liked_loss", patience=2, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(
            str(tmp_path / "best"), "val_liked_loss", save_best_only=True, save_weights_only=True, mode="min"
        ),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.TensorBoard(str(tmp_path / "board")),
    ]
    history = worker.fit(
        TABLE, batch_size=10, epochs=20, validation_data=CONTRARY, callbacks=callbacks, verbose=0
    ).history
    losses = history["val_liked_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 20
    found = worker.evaluate(CONTRARY, batch_size=10, return_dict=True, verbose=0)
    assert found["liked_loss"] == pytest.approx(losses[best], rel=1e-5)

    restored = small.model(eager=True)
    restored.load_weights(str(tmp_path / "best")).expect_partial()
    np.testing.assert_allclose(
        restored.predict(TABLE, verbose=0)["liked"], worker.predict(TABLE, verbose=0)["liked"], rtol=1e-5
    )
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["rating_loss"].tolist() == pytest.approx(history["rating_loss"])
    assert {"loss", "seen_weight", "regularization_loss", "val_mood_accuracy", "val_rating_rmse"} <= set(log.columns)
    (events,) = (tmp_path / "board" / "train").glob("events*")
    content = events.read_bytes()
    for name in ("epoch_loss", "epoch_rating_loss", "epoch_rating_weight"):
        assert name.encode() in content


def test_the_balancer_hears_of_the_end_of_an_epoch_before_a_checkpoint() -> None:
    heard: list[str] = []

    class Listening(FixedWeights):
        def end_epoch(self) -> None:
            heard.append("balancer")

    class Callback(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            heard.append(f"callback {epoch}")

    model = small.model(eager=True, balancer=Listening())
    model.fit(TABLE, batch_size=50, epochs=2, callbacks=[Callback()], verbose=0)
    assert heard == ["balancer", "callback 0", "balancer", "callback 1"]


def test_weights_and_optimizer_survive_a_checkpoint(worker: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    worker.fit(TABLE, batch_size=25, verbose=0)
    path = tf.train.Checkpoint(model=worker, optimizer=worker.optimizer).save(str(tmp_path / "state"))
    restored = small.model(eager=True)
    restored.optimizer.build(restored.trainable_variables)
    tf.train.Checkpoint(model=restored, optimizer=restored.optimizer).restore(path).expect_partial()
    for variable, other in zip(restored.network.variables, worker.network.variables, strict=True):
        np.testing.assert_array_equal(variable, other, err_msg=other.name)
    for variable, other in zip(restored.optimizer.variables, worker.optimizer.variables, strict=True):
        np.testing.assert_array_equal(variable, other, err_msg=other.name)
    np.testing.assert_array_equal(restored.tasks[0]._counts.known, worker.tasks[0]._counts.known)
