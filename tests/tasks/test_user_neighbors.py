"""The lists of users: parts of pairs, users without a list, and lists that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.tasks import HistoryCopy, Retrieval, UserNeighbors


def _filled() -> tuple[UserNeighbors, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(np.arange(2, 20))[:6] for _ in range(9)]).astype(np.int32)
    ids[:2], ids[3, 2:] = 0, 0
    parts = rng.random([9, 6]).astype(np.float32)
    lists = UserNeighbors("user", 9, 6)
    lists.fill(ids, parts)
    return lists, ids, np.where(ids >= 2, parts, 0)


def test_parts_of_pairs_are_those_of_the_list() -> None:
    lists, ids, parts = _filled()
    users, items = (x.ravel() for x in np.meshgrid(np.arange(9), np.arange(22), indexing="ij"))
    wanted = [sum(parts[u][(ids[u] == i) & (i >= 2)]) for u, i in zip(users, items, strict=True)]
    found = lists.of_pairs(tf.constant(users, tf.int32), tf.constant(items, tf.int32))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    assert max(wanted) > 0.9


@pytest.mark.parametrize("user", [0, 1, 9, 1000, -3])
def test_users_without_a_list_have_no_part(user: int) -> None:
    lists, _, _ = _filled()
    ids, parts = lists.of_history(tf.constant([user, 4]))
    assert not ids.numpy()[0].any()
    assert not parts.numpy()[0].any()
    assert parts.numpy()[1].all()


@pytest.mark.parametrize(
    ("ids", "parts", "message"),
    [
        ([[2, 3]], [[1.0]], "must have the shape"),
        ([[2, 3], [4, 5]], [[1.0, 1.0], [1.0, 1.0]], "must have the shape"),
        ([[2, 3]], [[1.0, -1.0]], "must be finite and 0 or more"),
        ([[2, 3]], [[1.0, np.nan]], "must be finite and 0 or more"),
        ([[3, 3]], [[1.0, 1.0]], "must hold a candidate once"),
    ],
)
def test_wrong_lists_have_one_sentence_and_change_nothing(ids: Any, parts: Any, message: str) -> None:
    lists = UserNeighbors("user", 1, 2)
    lists.fill([[7, 8]], [[0.5, 0.25]])
    with pytest.raises(ValueError, match=message):
        lists.fill(ids, parts)
    assert lists.of_history(tf.constant([0]))[0].numpy().tolist() == [[7, 8]]


@pytest.mark.parametrize("arguments", [{"rows": 0}, {"width": -1}, {"history": ""}])
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        UserNeighbors(**{"history": "user", "rows": 3, "width": 2, **arguments})


def test_a_task_keeps_the_kind_of_its_copy() -> None:
    for copy in (HistoryCopy("recent", 2.0), UserNeighbors("user", 3, 2)):
        again = Retrieval.from_config(Retrieval("bought", copy=copy).get_config()).copy
        assert type(again) is type(copy)
        assert again.config() == copy.config()
