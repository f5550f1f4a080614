from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers import MaskedMean

EMBEDDINGS = tf.constant([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]] * 4)
INDICES = tf.constant([[5, 1, 0], [5, 0, 0], [0, 0, 0], [0, 2, 0]])


def test_mean_over_the_real_entries() -> None:
    found = MaskedMean()((EMBEDDINGS, INDICES)).numpy()
    assert found.tolist() == [[2, 4], [1, 2], [0, 0], [3, 6]]  # an unknown value (1) is an entry, a missing one is not


def test_padding_gets_no_gradient() -> None:
    with tf.GradientTape() as tape:
        tape.watch(EMBEDDINGS)
        found = MaskedMean()((EMBEDDINGS, INDICES))
    gradient = tape.gradient(found, EMBEDDINGS).numpy()
    np.testing.assert_array_equal(gradient[:, :, 0], [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_it_keeps_the_precision_of_the_embeddings() -> None:
    assert MaskedMean(dtype="float16")((tf.cast(EMBEDDINGS, tf.float16), INDICES)).dtype == tf.float16
