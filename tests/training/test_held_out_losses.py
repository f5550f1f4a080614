from __future__ import annotations

import copy
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.balancing import tiny
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import RLW, ThompsonSampling
from tfmtl.training import HeldOutLosses
from tfmtl.training.held_out_losses import LossesOnRows

ROWS = tiny.BATCH * tiny.BATCHES


class Recording(ThompsonSampling):
    def observe(self, losses: Any) -> None:
        self.__dict__.setdefault("received", []).append(np.array(losses))
        super().observe(losses)


def fit(model: Any, callback: HeldOutLosses, epochs: int = 1, first: int = 0) -> dict[str, list[float]]:
    log = model.fit(
        tiny.whole(), batch_size=tiny.BATCH, epochs=epochs, initial_epoch=first, verbose=0, callbacks=[callback]
    )
    return log.history  # type: ignore[no-any-return]


def test_the_losses_are_those_of_an_evaluation() -> None:
    model = tiny.model(balancer := Recording(), steps_per_execution=1)
    fit(model, HeldOutLosses(tiny.table(), 3, 10), epochs=1)
    assert len(balancer.received) == 2  # before the first step and after the third
    model = tiny.model(balancer := Recording(), steps_per_execution=1)
    report = model.evaluate(tiny.table(), verbose=0, return_dict=True)
    fit(model, HeldOutLosses(tiny.table(), 100, 10))
    np.testing.assert_allclose(balancer.received[0], [report["a_loss"], report["b_loss"]], rtol=1e-5)


def test_every_n_steps_across_epochs_and_calls() -> None:
    for steps, expected in ((1, 1 + 8 // 3), (2, 1 + 2)):  # calls of two steps: after 4 and 6 steps
        model = tiny.model(balancer := Recording(), steps_per_execution=steps)
        fit(model, HeldOutLosses(tiny.whole(), 3), epochs=2)
        assert len(balancer.received) == expected


def test_the_log_of_training_stays_as_it_is() -> None:
    one, other = (tiny.model(ThompsonSampling(decay=0.0)) for _ in range(2))
    expected = fit(one, HeldOutLosses(tiny.whole(), 100))
    assert tiny.fit(other) == expected


def test_a_task_without_labels_has_no_loss() -> None:
    model = tiny.model(balancer := Recording(), steps_per_execution=1)
    fit(model, HeldOutLosses(tiny.table().assign(b=np.nan), 2))
    assert np.isnan([losses[1] for losses in balancer.received]).all()
    assert np.isfinite([losses[0] for losses in balancer.received]).all()


def test_rows_in_memory_are_cut_into_batches_once_and_data_sets_are_streamed() -> None:
    model = tiny.model(ThompsonSampling())
    in_memory = LossesOnRows(model, tiny.table(), 10)
    assert isinstance(in_memory._batches, list)
    assert len(in_memory._batches) == -(-len(tiny.table()) // 10)
    streamed = LossesOnRows(model, tf.data.Dataset.from_tensor_slices(tiny.whole()).batch(10))
    assert isinstance(streamed._batches, tf.data.Dataset)
    np.testing.assert_allclose(in_memory(), streamed(), rtol=1e-5)
    np.testing.assert_array_equal(in_memory(), in_memory())


def test_retrieval_and_ranking_are_measured() -> None:
    model = small.model(balancer=(balancer := Recording(primary=["rating"])))
    model.fit(small.table(), batch_size=25, epochs=1, verbose=0, callbacks=[HeldOutLosses(small.table())])
    assert np.isfinite(balancer.received[0]).all()


def test_training_resumes_exactly(tmp_path: pathlib.Path) -> None:
    def values(model: Any) -> list[np.ndarray]:
        return [v.numpy() for v in (*model.network.weights, *model.balancer.weights)]

    def make() -> Any:
        return tiny.model(ThompsonSampling(2), steps_per_execution=1)

    model = make()
    fit(model, HeldOutLosses(tiny.whole(), 3))
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "state"))
    fit(model, HeldOutLosses(tiny.whole(), 3), epochs=3, first=1)
    again = make()
    again.optimizer.build(again.trainable_variables)
    tf.train.Checkpoint(model=again).restore(path).assert_existing_objects_matched()
    fit(again, HeldOutLosses(tiny.whole(), 3), epochs=3, first=1)
    for found, expected in zip(values(again), values(model), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert again.balancer.alpha.numpy().max() > 1


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="`every_n_steps` must be a positive integer"):
        HeldOutLosses(tiny.table(), 0)
    with pytest.raises(ValueError, match="does not learn from validation losses"):
        fit(tiny.model(RLW()), HeldOutLosses(tiny.table()))
    with pytest.raises(ValueError, match=r"Keras calls callbacks every 4 steps only; use compile"):
        fit(tiny.model(ThompsonSampling()), HeldOutLosses(tiny.table(), 2))


def test_a_copy_is_unused() -> None:
    callback = HeldOutLosses(tiny.table(), 3, 10)
    twin = copy.deepcopy(callback)
    assert (twin.table is callback.table, twin.every_n_steps, twin.batch_size) == (True, 3, 10)
    assert isinstance(twin, keras.callbacks.Callback)
