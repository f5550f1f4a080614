from __future__ import annotations

import json

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.adaptation import Replay
from tfmtl.adaptation.replay import joined
from tfmtl.data import Batch


def rows(first: int, last: int) -> Batch:
    """Return rows with the row number in every column."""
    numbers = tf.range(first, last)
    floats = tf.cast(numbers, tf.float32)
    return Batch({"item": numbers, "pair": tf.stack([floats, -floats], axis=1)}, {"y": floats}, {"y": floats})


def kept(replay: Replay) -> list[int]:
    return sorted(replay._rows["features/item"].tolist())


def test_until_it_is_full_it_keeps_every_row() -> None:
    replay = Replay(10)
    replay.add(rows(0, 4))
    replay.add(rows(4, 7))
    assert kept(replay) == list(range(7))
    assert len(replay) == replay.seen == 7


def test_columns_of_a_row_stay_together() -> None:
    replay = Replay(8, share=1.0)
    for first in range(0, 100, 7):
        replay.add(rows(first, first + 7))
    batch = replay.draw(8)
    assert batch is not None
    item = batch.features["item"].numpy()
    assert len(set(item)) == 8
    np.testing.assert_array_equal(batch.features["pair"], np.stack([item, -item], axis=1))
    np.testing.assert_array_equal(batch.labels["y"], item)
    np.testing.assert_array_equal(batch.weights["y"], item)


def test_every_row_has_the_same_chance() -> None:
    """Over 3,000 seeds each of 20 rows is kept 3,000 * 5 / 20 = 750 times; 4 deviations are 4 sqrt(750 * 3/4) = 95."""
    counts = np.zeros(20)
    for seed in range(3_000):
        replay = Replay(5, seed=seed)
        for first in (0, 3, 11):
            numbers = np.arange(first, {0: 3, 3: 11, 11: 20}[first])
            replay.add(Batch({"item": numbers}, {}, {}))  # type: ignore[dict-item]
        counts[replay._rows["features/item"]] += 1
    assert counts.sum() == 15_000
    assert np.abs(counts - 750).max() < 95


def test_of_several_rows_for_one_place_the_last_stays() -> None:
    """With one slot, row t takes it with probability 1/t: the kept row is the last that did."""
    replay, draws = Replay(1, seed=3), np.random.default_rng(3).random(50)
    replay.add(rows(0, 50))
    taken = [t for t in range(50) if t == 0 or int(draws[t] * (t + 1)) == 0]
    assert kept(replay) == [taken[-1]]


def test_draws_are_as_many_as_the_share_says() -> None:
    replay = Replay(10, share=0.5)
    assert replay.draw(8) is None
    replay.add(rows(0, 10))
    sizes = {new: replay.draw(new) for new in (0, 8, 1000)}
    assert sizes[0] is None
    assert {n: len(b.features["item"]) for n, b in sizes.items() if b is not None} == {8: 4, 1000: 10}
    assert Replay(10, share=0.0).draw(100) is None


def test_state_goes_on_where_it_was() -> None:
    replay = Replay(4, share=2.0, seed=1)
    replay.add(rows(0, 30))
    state, arrays = replay.get_state()
    other = Replay.from_state(json.loads(json.dumps(state)), arrays)
    for each in (replay, other):
        each.add(rows(30, 60))
    assert other._rows["features/item"].tolist() == replay._rows["features/item"].tolist()
    first, second = replay.draw(1), other.draw(1)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.features["item"], second.features["item"])


def test_rows_are_put_below_each_other() -> None:
    both = joined(rows(0, 2), rows(5, 6))
    assert both.features["item"].numpy().tolist() == [0, 1, 5]
    assert both.labels["y"].numpy().tolist() == [0, 1, 5]
    only = rows(0, 2)
    assert joined(only, None) is only


@pytest.mark.parametrize(
    ("arguments", "name"), [({"capacity": 0}, "capacity"), ({"capacity": 1, "share": -1}, "share")]
)
def test_arguments_are_checked(arguments: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Replay(**arguments)
