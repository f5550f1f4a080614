"""The discriminator of domains against NumPy: its loss, its gradients, and the rows that it leaves out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers import DomainAdversary
from tfmtl.layers.marks import marking

RNG = np.random.default_rng(0)
PARTS = [RNG.normal(size=(6, width)).astype("float32") for width in (2, 3)]
DOMAINS = np.array([2, 0, 4, 3, 1, 2], "int32")  # 0 is missing, 1 unknown


def built(units: tuple[int, ...] = (), num_domains: int = 3) -> DomainAdversary:
    layer = DomainAdversary("store", 0.7, units, num_domains)
    layer.build([part.shape for part in PARTS])
    return layer


def test_loss_and_gradients_of_a_linear_discriminator() -> None:
    """L = mean over known rows of -log p_c; dL/dlogits = (p - onehot) / n; dh = -0.7 dlogits W^T, dW = h^T dlogits."""
    layer, inputs = built(), [tf.constant(part) for part in PARTS]
    kernel, bias = layer.trainable_weights
    bias.assign([0.3, -0.2, 0.1])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = layer.loss(inputs, tf.constant(DOMAINS))
    of_inputs, of_kernel = tape.gradient(loss, [inputs, kernel])
    h, known = np.concatenate(PARTS, axis=1), DOMAINS > 1
    logits = h @ kernel.numpy() + bias.numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.eye(3)[np.maximum(DOMAINS - 2, 0)]
    assert float(loss) == pytest.approx(-np.log((p * target).sum(1))[known].mean(), rel=1e-5)
    share = known[:, np.newaxis] * (p - target) / known.sum()
    np.testing.assert_allclose(np.concatenate(of_inputs, axis=1), -0.7 * share @ kernel.numpy().T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_kernel, h.T @ share, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("domains", [[0] * 6, [1] * 6, [5, 9, 7, 0, 1, 6]])
def test_rows_without_a_known_domain_have_no_loss(domains: list[int]) -> None:
    """Indices from 5 on are of values that a vocabulary received later."""
    layer, inputs = built((4,)), [tf.constant(part) for part in PARTS]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = layer.loss(inputs, tf.constant(domains, tf.int32))
    assert float(loss) == 0
    assert all(not np.any(gradient) for gradient in tape.gradient(loss, inputs))


def test_the_seed_decides_distinct_kernels() -> None:
    one, same, other = (DomainAdversary("store", units=(5,), num_domains=5, seed=seed) for seed in (0, 0, 1))
    for layer in (one, same, other):
        layer.build([(None, 5)])
    first, _, second, _ = one.get_weights()
    assert np.any(first != second)
    np.testing.assert_array_equal(first, same.get_weights()[0])
    assert np.any(first != other.get_weights()[0])


@pytest.mark.parametrize(("inside", "training", "marked"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_it_is_an_identity_that_marks_its_loss_in_training_steps(inside: bool, training: bool, marked: int) -> None:
    layer, inputs = built(), [tf.constant(part) for part in PARTS]
    with marking() as marks:
        if inside:
            found = layer(inputs, training=training)
            layer([part[:2] for part in inputs], training=training)  # a second call, of drawn negatives
    if not inside:
        found = layer(inputs, training=training)
    for part, value in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(part, value)
    assert len(marks.row_losses) == marked
    for loss in marks.row_losses.values():
        expected = layer.loss(inputs, tf.constant(DOMAINS))
        assert float(loss({"store": tf.constant(DOMAINS)})) == float(expected)


def test_it_computes_in_float32_in_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = built((4,))
        found = layer([tf.constant(part) for part in PARTS], training=True)
        loss = layer.loss(found, tf.constant(DOMAINS))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert [part.dtype for part in found] == [tf.float16] * 2
    assert loss.dtype == tf.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"column": ""}, "`column` must be the name of a categorical feature. Received: column=''."),
        ({"weight": -0.1}, "`weight` must be a number of 0 or more. Received: weight=-0.1."),
        ({"weight": float("nan")}, "`weight` must be a number of 0 or more. Received: weight=nan."),
        ({"units": (0,)}, "`units` must be a positive integer. Received: units=0."),
        ({"num_domains": 0}, "`num_domains` must be a positive integer. Received: num_domains=0."),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DomainAdversary(**{"column": "store", **arguments})
