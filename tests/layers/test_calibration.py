"""Calibration: increasing, piecewise linear maps of logits, applied in inference only."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers import AtInference, Calibration


def two_maps() -> Calibration:
    layer = Calibration(2, 2, num_indices=3)
    layer([tf.zeros([1, 1]), tf.zeros([1], tf.int32)])
    layer.set_maps(
        knots=[[0.0, 2.0], [1.0, 1.0]],
        values=[[1.0, 5.0], [-1.0, -1.0]],
        slopes=[[0.5, 2.0, 3.0], [4.0, 0.25, 0.25]],
        choices=[0, 1, 0],
    )
    return layer


@pytest.mark.parametrize(
    ("index", "logit", "expected"),
    [
        (0, -4.0, -1.0),  # 1 + 0.5 (-4 - 0)
        (0, 0.0, 1.0),
        (0, 0.5, 2.0),  # 1 + 2 (0.5 - 0)
        (0, 2.0, 5.0),
        (0, 3.0, 8.0),  # 5 + 3 (3 - 2)
        (1, 0.0, -5.0),  # -1 + 4 (0 - 1)
        (1, 5.0, 0.0),  # -1 + 0.25 (5 - 1), behind the repeated knot
        (2, 3.0, 8.0),
        (7, 5.0, 0.0),  # an index that was added later has the map of the unknown value, index 1
    ],
)
def test_golden_values(index: int, logit: float, expected: float) -> None:
    assert two_maps()([tf.constant([[logit]]), tf.constant([index])]).numpy().tolist() == [[expected]]


def test_columns_are_mapped_one_by_one() -> None:
    layer = Calibration()
    logits = tf.constant([[1.0, -2.0, 4.0]])
    layer(logits)
    layer.set_maps([[0.0]], [[0.0]], [[0.25, 0.25]])
    assert layer(logits).numpy().tolist() == [[0.25, -0.5, 1.0]]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_maps_increase_strictly(scale: float) -> None:
    rng = np.random.default_rng(3)
    knots = np.cumsum(rng.uniform(0.1, 1.0, 20)) * scale - 5 * scale
    slopes = np.exp(rng.normal(size=21) * 2)
    values = np.cumsum(np.append(-1.0, slopes[1:-1] * np.diff(knots)))
    layer = Calibration(20)
    logits = np.linspace(-40 * scale, 40 * scale, 2001, dtype=np.float32)
    layer(logits[:, np.newaxis])
    layer.set_maps([knots], [values], [slopes])
    assert (np.diff(layer(logits[:, np.newaxis]).numpy()[:, 0]) > 0).all()


def test_training_reads_the_first_input_and_inference_the_second() -> None:
    first, second = tf.Variable([[1.0]]), tf.Variable([[2.0]])
    with tf.GradientTape() as tape:
        output = AtInference()([first, second], training=True)
    gradients = tape.gradient(output, [first, second], unconnected_gradients="zero")
    assert [float(part[0, 0]) for part in (output, *gradients)] == [1.0, 1.0, 0.0]
    assert AtInference()([first, second]).numpy().tolist() == [[2.0]]


def test_a_negative_number_of_indices_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`num_indices` of a `Calibration` must be an integer of 0 or more\."):
        Calibration(num_indices=-1)
