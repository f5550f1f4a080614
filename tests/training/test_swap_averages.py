from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras
from tfmtl.models import MultiTaskModel
from tfmtl.training import ASGD, GroupedOptimizer, LazyAdam, SwapAverages, averaged


class Recorder(keras.callbacks.Callback):
    """Notes the first table at the points where the averages come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, np.ndarray] = {}

    def first(self) -> np.ndarray:
        return self.model.trainable_variables[0].numpy()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen["validation"] = self.first()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen["epoch"] = self.first()
        average = _inner(self.model.optimizer).average_of(self.model.trainable_variables[0])
        self.seen["average"] = average.numpy()


def _inner(optimizer: Any) -> ASGD:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "embeddings", optimizer)


def trained(optimizer: Any, *callbacks: Any, model: MultiTaskModel | None = None) -> MultiTaskModel:
    model = model or small.model(optimizer, eager=True)  # tracing costs more than these steps
    model.fit(
        small.table(), epochs=2, batch_size=25, validation_data=small.table(), verbose=0, callbacks=list(callbacks)
    )
    return model


@pytest.mark.parametrize("after_fit", [True, False])
def test_averages_are_in_for_validation_and_after_training(after_fit: bool) -> None:
    recorder = Recorder()
    model = trained(ASGD(0.05), SwapAverages(after_fit), recorder)
    seen = recorder.seen
    np.testing.assert_allclose(seen["validation"], seen["average"], atol=1e-6)
    assert np.abs(seen["epoch"] - seen["average"]).max() > 1e-5
    after = model.trainable_variables[0].numpy()
    np.testing.assert_allclose(after, seen["average"] if after_fit else seen["epoch"], atol=1e-6)


def test_training_is_the_same_with_averages_left_in_between() -> None:
    plain = trained(ASGD(0.05), SwapAverages(after_fit=False))
    swapped = trained(ASGD(0.05), SwapAverages(after_fit=True))
    for model in (plain, swapped):
        trained(None, SwapAverages(after_fit=False), model=model)
    for left, right in zip(plain.trainable_variables, swapped.trainable_variables, strict=True):
        np.testing.assert_allclose(left.numpy(), right.numpy(), atol=1e-6)


def test_a_context_puts_them_in_and_takes_them_out_also_after_an_error() -> None:
    model = trained(ASGD(0.05))
    first = model.trainable_variables[0]
    raw, average = first.numpy(), model.optimizer.average_of(first).numpy()
    with averaged(model) as same:
        assert same is model
        np.testing.assert_array_equal(first.numpy(), average)
        with averaged(model):
            np.testing.assert_array_equal(first.numpy(), average)
        np.testing.assert_array_equal(first.numpy(), average)
    np.testing.assert_array_equal(first.numpy(), raw)
    with pytest.raises(RuntimeError, match="wrong"), averaged(model):
        raise RuntimeError("wrong")
    np.testing.assert_array_equal(first.numpy(), raw)


def test_evaluation_after_training_leaves_averages_in() -> None:
    swap = SwapAverages()
    model = trained(ASGD(0.05), swap)
    average = model.trainable_variables[0].numpy()
    model.evaluate(small.table(), verbose=0, callbacks=[swap])
    np.testing.assert_array_equal(model.trainable_variables[0].numpy(), average)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_tables_alone_may_be_averaged(scaled: bool) -> None:
    optimizer = GroupedOptimizer(ASGD(0.05), LazyAdam(0.01))
    model = trained(keras.mixed_precision.LossScaleOptimizer(optimizer) if scaled else optimizer)
    before = [v.numpy() for v in model.trainable_variables]
    with averaged(model):
        changed = [(v.numpy() != old).any() for v, old in zip(model.trainable_variables, before, strict=True)]
    (_, tables), (_, others) = optimizer.split(model.trainable_variables)
    assert sum(changed) == len(tables) > 0
    assert others


def test_averages_survive_a_checkpoint(tmp_path: pathlib.Path) -> None:
    model = trained(ASGD(0.05))
    first = model.trainable_variables[0]
    expected = model.optimizer.average_of(first).numpy()
    model.save_weights(tmp_path / "w")
    again = small.model(ASGD(0.05))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "w")
    np.testing.assert_array_equal(again.trainable_variables[0].numpy(), first.numpy())
    np.testing.assert_array_equal(again.optimizer.average_of(again.trainable_variables[0]), expected)


def test_an_optimizer_without_averages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keeps no averages; use ASGD\. Received: optimizer='LazyAdam'"):
        trained(LazyAdam(0.01), SwapAverages())
