"""Heads of numbers and further losses in half precision, with labels beyond its largest number, 65,504."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import pytest

import tfmtl
from tests.models import numbers, small
from tfmtl._keras import keras, tf
from tfmtl.balancing import Uncertainty
from tfmtl.compression import distil, prune_model
from tfmtl.models import MultiTaskModel, load_model, save_model
from tfmtl.training import LazyAdam

UNIT = 5e4
pytestmark = pytest.mark.usefixtures("eager_steps")


def in_half(make: Any) -> MultiTaskModel:
    """Return a model that is made in half precision."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model: MultiTaskModel = make()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model.compile(keras.mixed_precision.LossScaleOptimizer(LazyAdam(0.03)))
    return model


@functools.cache
def table() -> Any:
    rows = numbers.table(UNIT)
    assert rows["amount"].max() > 1e5 > 65_504 > rows["amount"].median()
    return rows


def half(seed: int = 0) -> MultiTaskModel:
    return in_half(lambda: numbers.model(Uncertainty(), UNIT, seed))


@functools.cache
def trained() -> tuple[MultiTaskModel, dict[str, list[float]]]:
    """Return a trained model, which no test changes, and its log."""
    model = half()
    return model, model.fit(table(), batch_size=25, epochs=12, verbose=0).history


def test_losses_metrics_and_served_values_are_those_of_float32() -> None:
    full, other = numbers.model(Uncertainty(), UNIT), half()
    expected, found = (each.evaluate(table(), batch_size=50, verbose=0, return_dict=True) for each in (full, other))
    assert found == pytest.approx(expected, rel=2e-3)
    of_full, of_half = (each.predict(table(), verbose=0) for each in (full, other))
    for name in numbers.NAMES:
        assert other.network.output[name].dtype == tf.float32
        assert of_half[name].dtype == np.float32
        np.testing.assert_allclose(of_half[name], of_full[name], rtol=1e-2, atol=1e-3 * UNIT)
    assert of_half["watched"].max() > 1e5
    assert {weight.dtype for weight in other.weights if weight.dtype.is_floating} == {tf.float32}


def test_every_loss_falls_and_no_step_overflows() -> None:
    """With scales from the statistics of the labels; a step that overflows halves the scale of the loss."""
    model, log = trained()
    assert float(model.optimizer.loss_scale) == 2**15
    assert np.isfinite(list(log.values())).all()
    for name in numbers.NAMES:
        assert min(log[f"{name}_loss"][-3:]) < 0.95 * log[f"{name}_loss"][0]


def test_a_saved_and_an_exported_model_serve_the_same(tmp_path: pathlib.Path) -> None:
    model, _ = trained()
    loaded = load_model(save_model(model, tmp_path / "saved"))
    served = tf.saved_model.load(str(tfmtl.export(model, tmp_path / "exported"))).signatures["rank"]
    rows = small.table()
    inputs: dict[str, Any] = {name: tf.constant(rows[name]) for name in ("user", "item")}
    inputs |= {name: tf.constant(rows[name], tf.float32) for name in ("age", "price", "position")}
    inputs["recent"] = tf.ragged.constant(rows["recent"].tolist()).to_tensor()
    answer = served(**inputs)
    expected, again = model.predict(table(), verbose=0), loaded.predict(table(), verbose=0)
    for name in numbers.NAMES:
        np.testing.assert_array_equal(again[name], expected[name])
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-3)


def test_a_student_in_half_precision_and_a_pruned_model_serve_large_numbers() -> None:
    model, _ = trained()
    student = distil(model, half(3), table(), batch_size=25, epochs=2, verbose=0)
    pruned = prune_model(numbers.model(Uncertainty(), UNIT), table(), 0.5, epochs=2, batch_size=25, verbose=0)
    kernels = [kernel.numpy() for kernel in pruned.network.trainable_weights if "tower" in kernel.name]
    assert max(np.mean(kernel == 0) for kernel in kernels) >= 0.4
    for each in (student, pruned):
        found = each.evaluate(table(), batch_size=50, verbose=0, return_dict=True)
        assert np.isfinite(list(found.values())).all()
        assert each.predict(table(), verbose=0)["level"].max() > 1e5
