from __future__ import annotations

import copy
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.balancing import tiny
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import RLW, AutoLambda, FixedWeights, MultiDDS
from tfmtl.training import ConflictMonitor, MetaGradients

RATE = 1e-2


class Recording(AutoLambda):
    def learn(self, gramian: tf.Tensor, observed: tf.Tensor) -> None:
        self.__dict__.setdefault("received", []).append((gramian.numpy(), observed.numpy()))
        super().learn(gramian, observed)


def part(start: int, rows: int = tiny.BATCH) -> Any:
    return tf.nest.map_structure(lambda column: column[start : start + rows], tiny.whole())


def fit(model: Any, *callbacks: Any, epochs: int = 1, first: int = 0, data: Any = None) -> Any:
    rows = tiny.whole() if data is None else data
    return model.fit(
        rows, batch_size=tiny.BATCH, epochs=epochs, initial_epoch=first, verbose=0, callbacks=list(callbacks)
    )


def values(model: Any) -> list[np.ndarray]:
    return [v.numpy() for v in (*model.network.weights, *model.balancer.weights)]


def meta_losses(weights: np.ndarray) -> np.ndarray:
    """Return the losses of the meta batch after a step of gradient descent with the weights."""
    model = tiny.model(FixedWeights(dict(zip(tiny.TASKS, weights, strict=True))), keras.optimizers.SGD(RATE))
    model.make_step(part(0))
    losses = model.compute_losses(part(tiny.BATCH), training=False)
    return np.array([float(losses[task][0]) for task in tiny.TASKS])


def test_the_products_are_the_derivatives_of_the_meta_losses_by_the_weights() -> None:
    """dL_meta,j / dw_i = -r <v_j, g_i> after a step with rate r, here by differences of whole training steps."""
    model = tiny.model(balancer := Recording(), run_eagerly=True)
    fit(model, MetaGradients(part(tiny.BATCH), 1), data=part(0))
    [(gramian, observed)] = balancer.received
    assert observed.tolist() == [True, True]
    for k, step in enumerate(0.5 * np.eye(2)):
        change = meta_losses(1 + step) - meta_losses(1 - step)
        np.testing.assert_allclose(change, -RATE * gramian[k, 2:], rtol=0.02, atol=2e-6)


def test_the_same_batch_has_the_same_gradients_twice() -> None:
    model = tiny.model(balancer := Recording(), run_eagerly=True)
    fit(model, MetaGradients(part(0), 1), data=part(0))
    gramian = balancer.received[0][0]
    for block in (gramian[:2, 2:], gramian[2:, 2:]):
        np.testing.assert_allclose(block, gramian[:2, :2], rtol=1e-4)


def test_due_steps_learn_and_draws_change_with_the_step() -> None:
    model = tiny.model(balancer := Recording(), run_eagerly=True)
    fit(model, MetaGradients(tiny.whole(), 1, batch_size=8))
    assert len(balancer.received) == tiny.BATCHES
    blocks = [gramian[2:, 2:] for gramian, _ in balancer.received]
    assert len({round(float(block[0, 0]), 6) for block in blocks}) == tiny.BATCHES
    model = tiny.model(balancer := Recording(), run_eagerly=True)
    fit(model, MetaGradients(tiny.whole(), 3), epochs=2)  # steps 0, 3 and 6
    assert len(balancer.received) == 3


def test_tasks_without_labels_in_either_batch_take_no_part() -> None:
    for data, meta in ((part(0), tiny.table().assign(b=np.nan)), (part(3 * tiny.BATCH), tiny.table())):
        model = tiny.model(balancer := Recording(), run_eagerly=True)
        fit(model, MetaGradients(meta, 1), data=data)
        assert [observed.tolist() for _, observed in balancer.received] == [[True, False]]
        assert balancer.logits.numpy().tolist() == [0, 0]


@pytest.mark.parametrize("make", [AutoLambda, MultiDDS])
def test_a_task_of_opposite_labels_in_the_meta_split_loses_weight(make: Any) -> None:
    model = tiny.model(make(learning_rate=1.0))
    table = tiny.table().assign(b=lambda rows: 1 - rows["b"])
    fit(model, MetaGradients(table, 1), epochs=5)
    logits = model.balancer.logits.numpy()
    assert logits[1] < logits[0] - 1


def test_training_resumes_exactly_and_ends_without_an_observer(tmp_path: pathlib.Path) -> None:
    model = tiny.model(AutoLambda())
    callback = MetaGradients(tiny.whole(), 3, 8, seed=2)
    fit(model, callback)
    assert model.step_observer is None
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "state"))
    fit(model, callback, epochs=3, first=1)
    again = tiny.model(AutoLambda())
    again.optimizer.build(again.trainable_variables)
    tf.train.Checkpoint(model=again).restore(path).assert_existing_objects_matched()
    fit(again, MetaGradients(tiny.whole(), 3, 8, seed=2), epochs=3, first=1)
    for found, expected in zip(values(again), values(model), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.ptp(again.balancer.logits.numpy()) > 0


def test_retrieval_sparse_tables_and_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=1024.0)
        model = small.model(optimizer, balancer=MultiDDS())
        callback = MetaGradients(small.table(), 2, batch_size=20)
        model.fit(small.table(), batch_size=25, epochs=1, verbose=0, callbacks=[callback])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    logits = model.balancer.logits.numpy()
    assert np.isfinite(logits).all()
    assert np.ptp(logits) > 0


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="`every_n_steps` must be a positive integer"):
        MetaGradients(tiny.table(), 0)
    with pytest.raises(ValueError, match="MetaGradients are for a balancer such as AutoLambda"):
        fit(tiny.model(RLW()), MetaGradients(tiny.table()))
    streamed = tf.data.Dataset.from_tensors(tiny.whole())
    with pytest.raises(ValueError, match="The meta split must fit in memory"):
        fit(tiny.model(AutoLambda()), MetaGradients(streamed))
    for order in (1, -1):
        callbacks = [MetaGradients(tiny.table()), ConflictMonitor()][::order]
        with pytest.raises(ValueError, match="One callback observes the steps of a training"):
            fit(tiny.model(AutoLambda()), *callbacks)


def test_a_copy_is_unused() -> None:
    twin = copy.deepcopy(MetaGradients(tiny.table(), 3, 10, 5))
    assert (twin.every_n_steps, twin.batch_size, twin.seed, twin._rows) == (3, 10, 5, None)
