from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers import SequenceAugmentation
from tfmtl.layers.noise.sequence_augmentation import _first, _part, _stretch

LENGTH, ROWS = 10, 400


def lists(size: int) -> np.ndarray:
    """Return rows 1, 12, 13, ... of `size` ids, padded; 1 is the index of an unknown id, and an id like others."""
    row = np.r_[1, np.arange(12, 11 + LENGTH)] * (np.arange(LENGTH) < size)
    return np.tile(row, (ROWS, 1)).astype(np.int32)


def augmented(size: int, seed: int = 0, **arguments: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Yield augmented rows and the original ones, without padding, which stays at the end."""
    inputs = lists(size)
    found = SequenceAugmentation(**{"rate": 1.0, **arguments}, seed=seed)(tf.constant(inputs), training=True).numpy()
    assert found.shape == inputs.shape
    assert found.dtype == np.int32
    for row, original in zip(found, inputs, strict=True):
        kept = int((row > 0).sum())
        assert not row[kept:].any()
        yield row[:kept].tolist(), original[:size].tolist()


def test_a_stretch_lies_within_the_list() -> None:
    """Two of five ids begin at 0, 1, 2 or 3, each for a quarter of the draws."""
    draws, size = tf.constant([[0.0], [0.24], [0.26], [0.74], [0.76], [0.99]]), tf.fill([6, 1], 5.0)
    part = _part(0.4, size)
    assert part.numpy().ravel().tolist() == [2] * 6  # 0.4 * 5 in float32 may fall below 2
    assert _first(draws, part, size).numpy().ravel().tolist() == [0, 0, 1, 2, 3, 3]
    found = _stretch(tf.range(5.0)[tf.newaxis], draws, part, size).numpy()
    assert [np.flatnonzero(row).tolist() for row in found] == [[0, 1], [0, 1], [1, 2], [2, 3], [3, 4], [3, 4]]


@pytest.mark.parametrize(
    ("crop", "size", "kept"),
    [
        (0.4, 10, 6),  # 10 - floor(4)
        (0.7, 10, 3),  # 0.7 has no exact float; 7 of 10 nevertheless
        (0.5, 7, 4),  # 7 - floor(3.5)
        (0.9, 1, 1),
        (0.99, 10, 1),
        (0.5, 0, 0),
    ],
)
def test_crop_keeps_a_stretch_from_every_position_on(crop: float, size: int, kept: int) -> None:
    firsts = set()
    for found, original in augmented(size, crop=crop):
        assert len(found) == kept
        firsts.add(first := original.index(found[0]) if found else 0)
        assert found == original[first : first + kept]
    assert firsts == set(range(size - kept + 1))


@pytest.mark.parametrize(
    ("mask", "size", "hidden"), [(0.3, 10, 3), (0.5, 7, 3), (0.5, 1, 0), (0.9, 10, 9), (0.5, 0, 0)]
)
def test_mask_hides_the_given_share_of_ids_at_every_position(mask: float, size: int, hidden: int) -> None:
    places = set()
    for found, original in augmented(size, mask=mask, unknown=3):
        assert len(found) == size
        changed = [i for i in range(size) if found[i] != original[i]]
        assert [found[i] for i in changed] == [3] * hidden
        places.update(changed)
    assert places == (set(range(size)) if hidden else set())


@pytest.mark.parametrize(
    ("reorder", "size", "part"), [(0.5, 10, 5), (0.2, 10, 2), (0.99, 4, 3), (0.5, 3, 1), (0.5, 0, 0)]
)
def test_reorder_shuffles_one_stretch(reorder: float, size: int, part: int) -> None:
    ends, orders = set(), set()
    for found, original in augmented(size, reorder=reorder):
        assert sorted(found) == original
        moved = [i for i in range(size) if found[i] != original[i]]
        if moved:
            assert moved[-1] - moved[0] < part
            ends |= {moved[0], moved[-1]}
        orders.add(tuple(found))
    assert (ends == {0, size - 1} or ends >= {0, size - 1}) if part > 1 else not ends
    if part == 2:  # nine pairs of neighbours to swap, and none
        assert len(orders) == size


def test_rows_are_changed_at_the_rate_by_each_operation_alike() -> None:
    kinds = {"crop": 0, "mask": 0, "reorder": 0, "none": 0}
    for seed in range(5):
        for found, original in augmented(10, seed, crop=0.5, mask=0.5, reorder=0.9, rate=0.6):
            kind = (
                "none"
                if found == original
                else "crop"
                if len(found) < 10
                else "mask"
                if found.count(1) > 1
                else "reorder"
            )
            kinds[kind] += 1
    # 2,000 rows: shares of 0.2 and 0.4 have deviations of 0.009 and 0.011
    shares = {kind: count / (5 * ROWS) for kind, count in kinds.items()}
    assert shares == pytest.approx({"crop": 0.2, "mask": 0.2, "reorder": 0.2, "none": 0.4}, abs=0.045)


def test_gaps_are_closed_by_crop_and_kept_by_mask() -> None:
    inputs = tf.constant([[7, 0, 8, 0, 9, 5]])
    found = SequenceAugmentation(crop=0.25, rate=1.0)(inputs, training=True).numpy()[0].tolist()
    assert found in ([7, 8, 9, 0, 0, 0], [8, 9, 5, 0, 0, 0])
    masked = SequenceAugmentation(mask=0.99, rate=1.0)(inputs, training=True).numpy()[0]
    np.testing.assert_array_equal(masked > 0, inputs[0] > 0)
    assert sorted(masked)[2:5] == [1, 1, 1]


def test_only_training_changes_lists_and_draws_are_those_of_seed_and_step() -> None:
    inputs = tf.constant(lists(10))
    layer, again = (SequenceAugmentation(0.5, 0.5, 0.5, seed=4) for _ in range(2))
    for training in (None, False):
        np.testing.assert_array_equal(layer(inputs, training=training), inputs)
    first, second = (layer(inputs, training=True).numpy() for _ in range(2))
    assert np.any(first != second)
    again.build(inputs.shape)
    again.set_weights([np.array(1, np.int32)])  # the value that a checkpoint of the first step restores
    np.testing.assert_array_equal(again(inputs, training=True), second)
    np.testing.assert_array_equal(SequenceAugmentation(rate=1.0)(inputs, training=True), inputs)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"crop": 1.0}, "`crop` must be a number in [0, 1). Received: crop=1.0."),
        ({"mask": -0.1}, "`mask` must be a number in [0, 1). Received: mask=-0.1."),
        ({"reorder": float("nan")}, "`reorder` must be a number in [0, 1). Received: reorder=nan."),
        ({"rate": 0}, "`rate` must be a number in (0, 1]. Received: rate=0."),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SequenceAugmentation(**arguments)
