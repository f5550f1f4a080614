"""The part of a retrieval score that candidates of the history have."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.tasks import HistoryCopy, Retrieval


def _reference(history: np.ndarray, candidate: int, weight: float, half_life: float | None) -> float:
    if candidate < 2:
        return 0.0
    found = [j for j, entry in enumerate(history) if entry == candidate]
    return weight * sum(1.0 if half_life is None else 1 / (1 + j / half_life) for j in found)


@pytest.mark.parametrize("half_life", [None, 0.5, 3.0, 1000.0])
def test_parts_are_weighted_counts_of_known_ids(half_life: float | None) -> None:
    rng = np.random.default_rng(0)
    history = rng.integers(0, 7, [40, 9]).astype(np.int32)
    history[0], history[1], history[2], history[3, 3:] = 0, 1, 4, 0
    copy = HistoryCopy("recent", 1.5, half_life)
    ids, parts = (x.numpy() for x in copy.of_history(tf.constant(history)))
    for row, (own, values) in enumerate(zip(ids, parts, strict=True)):
        known = own >= 2
        assert sorted(own[known]) == sorted({*history[row].tolist()} - {0, 1})
        assert (values[~known] == 0).all()
        wanted = [_reference(history[row], i, 1.5, half_life) for i in own[known]]
        np.testing.assert_allclose(values[known], wanted, rtol=1e-6)
    for candidate in range(8):
        pairs = copy.of_pairs(tf.constant(history), tf.fill([40], candidate)).numpy()
        np.testing.assert_allclose(pairs, [_reference(h, candidate, 1.5, half_life) for h in history], rtol=1e-6)


def test_one_entry_and_no_row() -> None:
    copy = HistoryCopy("recent")
    ids, parts = copy.of_history(tf.constant([[5]]))
    assert (ids.numpy().tolist(), parts.numpy().tolist()) == ([[5]], [[1.0]])
    assert [x.shape.as_list() for x in copy.of_history(tf.zeros([0, 4], tf.int32))] == [[0, 4], [0, 4]]


@pytest.mark.parametrize("given", [0, -1.0, math.nan, math.inf, "1", True, None])
def test_a_weight_is_a_finite_number_above_0(given: object) -> None:
    with pytest.raises(ValueError, match="`weight`"):
        HistoryCopy("recent", given)  # type: ignore[arg-type]


def test_a_half_life_is_above_0() -> None:
    with pytest.raises(ValueError, match="`half_life`"):
        HistoryCopy("recent", 1.0, 0.0)


def test_a_task_keeps_its_copy() -> None:
    task = Retrieval("bought", copy=HistoryCopy("recent", 2.0, 5.0))
    again = Retrieval.from_config(task.get_config())
    assert again.copy == task.copy
    assert Retrieval("bought").get_config().keys() == task.get_config().keys() - {"copy"}
