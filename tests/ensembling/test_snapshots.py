from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras
from tfmtl.ensembling import Snapshots, ensemble, member_seeds
from tfmtl.models import MultiTaskModel

RATE = 0.02


class Rates(keras.callbacks.Callback):
    """Records the learning rate of each step, and the weights of the network after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.weights: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(self.model.network.get_weights())


def fitted(snapshots: Snapshots, epochs: int = 4) -> tuple[MultiTaskModel, Rates]:
    model, rates = small.model(keras.optimizers.Adam(RATE)), Rates()
    model.compile(keras.optimizers.Adam(RATE), run_eagerly=True, steps_per_execution=1)
    model.fit(small.table(), epochs=epochs, batch_size=25, verbose=0, callbacks=[snapshots, rates])
    return model, rates


def check_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_rate_falls_along_a_cosine_in_each_cycle_and_models_are_kept_at_its_end() -> None:
    snapshots = Snapshots(cycles=2)
    model, noted = fitted(snapshots)
    cycle = RATE * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose(noted.rates, [*cycle, *cycle], rtol=1e-5)
    assert float(model.optimizer.learning_rate) == pytest.approx(RATE)
    assert len(snapshots.weights) == 2
    for kept, after in zip(snapshots.weights, [1, 3], strict=True):
        check_same(kept, noted.weights[after])
    first, last = snapshots.models()
    check_same(first.network.get_weights(), noted.weights[1])
    check_same(last.network.get_weights(), model.network.get_weights())
    assert not {id(v) for v in first.network.variables} & {id(v) for v in model.network.variables}
    np.testing.assert_array_equal(last.tasks[0].weights[0], model.tasks[0].weights[0])
    together = ensemble([first, last])
    assert together.network.count_params() == 2 * first.network.count_params()


def test_only_the_last_are_kept_and_a_new_fit_starts_anew() -> None:
    snapshots = Snapshots(cycles=3, last=1)
    _, noted = fitted(snapshots, epochs=3)
    assert len(snapshots.weights) == 1
    check_same(snapshots.weights[0], noted.weights[-1])
    snapshots.on_train_begin()
    assert snapshots.weights == []


def test_a_snapshot_is_taken_at_the_end_of_each_cycle_of_three_epochs() -> None:
    snapshots = Snapshots(cycles=2)
    weights = iter(range(6))
    model = SimpleNamespace(network=SimpleNamespace(get_weights=lambda: next(weights)))
    snapshots.model, snapshots._epochs = model, 3
    taken = []
    for epoch in range(6):
        snapshots.on_epoch_end(epoch)
        taken.append(len(snapshots.weights))
    assert taken == [0, 0, 1, 1, 1, 2]


def test_steps_of_one_call_share_the_mean_of_their_rates() -> None:
    model, snapshots = small.model(), Snapshots(cycles=1)
    model.compile(keras.optimizers.Adam(RATE), steps_per_execution=4)
    snapshots.set_model(model)
    snapshots.set_params({"epochs": 2, "steps": 6})
    snapshots.on_train_begin()
    rate = RATE * 0.5 * (1 + np.cos(np.pi * np.arange(12) / 12))
    for epoch, batch, steps in [(0, 0, [0, 1, 2, 3]), (0, 4, [4, 5]), (1, 0, [6, 7, 8, 9]), (1, 4, [10, 11])]:
        snapshots.on_epoch_begin(epoch)
        snapshots.on_train_batch_begin(batch)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate[steps].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("params", "optimizer", "words"),
    [
        ({"epochs": 5, "steps": 2}, None, "`epochs` must be a multiple of the 2 cycles. Received: epochs=5"),
        ({"epochs": 4, "steps": None}, None, "needs the number of steps per epoch"),
        (
            {"epochs": 4, "steps": 2},
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
            "with a number, not with a schedule",
        ),
    ],
)
def test_a_plan_that_does_not_come_out_even_is_refused(params: Any, optimizer: Any, words: str) -> None:
    snapshots = Snapshots(cycles=2)
    snapshots.set_model(small.model(optimizer))
    snapshots.set_params(params)
    with pytest.raises(ValueError, match=words):
        snapshots.on_train_begin()
    with pytest.raises(RuntimeError, match="There is no snapshot yet"):
        snapshots.models()


@pytest.mark.parametrize("arguments", [{"cycles": 0}, {"cycles": 2, "last": 0}])
def test_counts_must_be_positive(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a positive integer"):
        Snapshots(**arguments)


def test_seeds_makes_a_model_a_seed() -> None:
    given: list[int] = []

    def recipe(seed: int) -> Any:
        given.append(seed)
        return f"model {seed}"

    assert member_seeds(recipe, 3, first=5) == ["model 5", "model 6", "model 7"]
    assert given == [5, 6, 7]
    with pytest.raises(ValueError, match="`count` must be a positive integer"):
        member_seeds(recipe, 0)
