from __future__ import annotations

import re

import numpy as np
import pytest

from tests.layers.probes import PAIR, TASKS, dense, randomize
from tfmtl.layers import CrossStitch


def test_it_is_its_definition() -> None:
    layer = CrossStitch(TASKS, units=[4, 3], activation="tanh")
    values = randomize(layer, PAIR)
    mixed = [PAIR] * 3
    for level in (0, 1):
        columns = [np.tanh(dense(mixed[k], values, f"level_{level}", k)) for k in range(3)]
        stitch = values[f"stitch_{level}"]
        mixed = [sum(stitch[k, j] * columns[j] for j in range(3)) for k in range(3)]
    found = layer(PAIR)
    assert list(found) == TASKS
    for task, expected in zip(TASKS, mixed, strict=True):
        np.testing.assert_allclose(found[task], expected, rtol=1e-4, atol=1e-5)


def test_stitches_start_near_identity() -> None:
    layer = CrossStitch(TASKS, units=[4, 3], self_weight=0.8)
    layer(PAIR)
    assert len(layer.stitches) == 2
    for stitch in layer.stitches:
        np.testing.assert_allclose(stitch, [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], rtol=1e-6)


def test_identity_keeps_the_columns_apart() -> None:
    layer = CrossStitch(TASKS, units=[4, 3], self_weight=1)
    before = layer(PAIR)
    kernel = layer.get_prunable_weights()[0]
    kernel.assign(kernel * np.repeat([1.0, 2.0, 1.0], 4))
    changed = {task: bool(np.any(output != before[task])) for task, output in layer(PAIR).items()}
    assert changed == {"a": False, "b": True, "c": False}


def test_even_stitches_give_every_task_the_same() -> None:
    layer = CrossStitch(TASKS, self_weight=1 / 3)
    found = layer(PAIR)
    np.testing.assert_allclose(found["a"], found["b"], rtol=1e-5)
    np.testing.assert_allclose(found["a"], found["c"], rtol=1e-5)


def test_one_task_reads_its_column_as_it_is() -> None:
    layer = CrossStitch(["a"], units=[4], self_weight=0.5)
    layer(PAIR)
    assert layer.stitches[0].numpy().tolist() == [[1.0]]


def test_stitches_are_trained_but_not_pruned() -> None:
    layer = CrossStitch(TASKS, units=[4, 3])
    layer(PAIR)
    trained, pruned = ({id(v) for v in found} for found in (layer.trainable_weights, layer.get_prunable_weights()))
    assert {id(stitch) for stitch in layer.stitches} <= trained - pruned


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_self_weight_is_checked(weight: float) -> None:
    sentence = f"`self_weight` must lie between 0 and 1. Received: self_weight={weight!r}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        CrossStitch(TASKS, self_weight=weight)
