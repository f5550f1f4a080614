from __future__ import annotations

import re

import numpy as np
import pytest

from tests.layers.probes import PAIR, TASKS, dense, forward, randomize, sigmoid
from tfmtl.layers import MTAN


def test_it_is_its_definition() -> None:
    layer = MTAN(TASKS, units=[4, 3], attention_units=5, activation="tanh")
    values = randomize(layer, PAIR)
    found = layer(PAIR)
    first = np.tanh(dense(PAIR, values, "shared_0"))
    second = np.tanh(dense(first, values, "shared_1"))
    for k, task in enumerate(TASKS):
        picked = np.zeros([len(PAIR), 0])
        for level, features in enumerate([first, second]):
            hidden = np.maximum(dense(np.concatenate([features, picked], 1), values, f"attention_{level}", k), 0)
            picked = sigmoid(dense(hidden, values, f"mask_{level}", k)) * features
        np.testing.assert_allclose(found[task], picked, rtol=1e-4, atol=1e-5)


def test_every_level_is_marked_as_tasks_read_it() -> None:
    marked = forward(MTAN(TASKS, units=[4, 3]), PAIR)[2].trunk
    assert [tensor.shape[-1] for tensor in marked] == [4, 3]


def test_masks_are_half_open_where_attention_sees_nothing() -> None:
    layer = MTAN(TASKS, units=[4], activation=lambda x: 0 * x + 1, attention_units=2, kernel_initializer="zeros")
    for output in layer(PAIR).values():
        np.testing.assert_array_equal(output, np.full([len(PAIR), 4], 0.5))


def test_dropout_leaves_the_attention_alone() -> None:
    layer = MTAN(TASKS, units=[64], activation=lambda x: 0 * x + 1, dropout=0.5)
    found = np.stack(list(layer(PAIR, training=True).values()))
    dropped = found == 0
    assert 0.3 < dropped.mean() < 0.7
    assert (dropped == dropped[0]).all()  # one draw for all tasks, on the shared features


def test_attention_units_are_checked() -> None:
    with pytest.raises(ValueError, match=re.escape("`attention_units` must be a positive integer. Received: ")):
        MTAN(TASKS, attention_units=0)
