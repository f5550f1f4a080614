"""Rows of other replicas; the tests replace the communication by fixed values."""

from __future__ import annotations

from typing import Any

import pytest

from tfmtl._keras import tf
from tfmtl.tasks import others
from tfmtl.tasks.others import Others


def test_a_single_replica_has_no_others() -> None:
    alone = Others.of(tf.constant([True, False]))
    assert alone.chosen is None
    assert int(alone.count) == 0
    rows = tf.constant([3, 4])
    assert alone.behind(rows) is rows


@pytest.mark.parametrize(
    ("number", "chosen", "behind"),
    [
        # Replicas 0, 1, 2 hold the rows 10 11 | 20 21 | 30 31 and offer 10, 20 and 21, 31.
        (0, [False, False, True, True, False, True], [10, 11, 20, 21, 31]),
        (1, [True, False, False, False, False, True], [20, 21, 10, 31]),
        (2, [True, False, True, True, False, False], [30, 31, 10, 20, 21]),
    ],
)
def test_the_rows_that_other_replicas_offer_follow_the_own(
    number: int, chosen: list[bool], behind: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered, rows = [[True, False], [True, True], [False, True]], [[10, 11], [20, 21], [30, 31]]
    owners = [[0, -1], [1, 1], [-1, 2]]  # by sending replica

    def gather(own: tf.Tensor) -> tf.Tensor:
        sent: Any = owners if int(tf.reduce_max(own)) < 10 else rows
        assert own.numpy().tolist() == sent[number]
        return tf.concat(sent, 0)

    monkeypatch.setattr(others, "replicas", lambda: 3)
    monkeypatch.setattr(others, "replica", lambda: number)
    monkeypatch.setattr(others, "gather_rows", gather)
    found = Others.of(tf.constant(offered[number]))
    assert found.chosen is not None
    assert found.chosen.numpy().tolist() == chosen
    assert int(found.count) == len(behind) - 2
    assert found.behind(tf.constant(rows[number])).numpy().tolist() == behind
