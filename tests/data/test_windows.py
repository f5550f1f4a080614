from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Numeric, Schema, Vector
from tfmtl.data.frames import Batch
from tfmtl.data.windows import Layout, batches_of, permuted, regrouped, window_rows

SCHEMA = Schema(
    [Categorical("user"), Numeric("age"), Categorical("town"), Vector("mix", size=2)], labels=[Label("liked")]
)
TABLE = Batch(
    {
        "user": np.int32([7, 8]),
        "age": np.float32([[0.5, 0], [1.5, 1]]),
        "town": np.int32([5, 6]),
        "mix": np.float32([[1, 2, 0], [3, 4, 1]]),
    },
    {"liked": np.float32([1, np.nan])},
    {"liked": np.float32([2, 0])},
    {"query": np.int64([3 + 2**32, -1])},
)


def words(rows: int) -> np.ndarray:
    return np.arange(2 * rows, dtype=np.int32).reshape(rows, 2)


@pytest.mark.parametrize(
    ("shuffle_rows", "batch_size", "expected"), [(1, 4, 4), (4, 4, 4), (5, 4, 8), (8, 4, 8), (7, 1, 7)]
)
def test_windows_hold_whole_batches(shuffle_rows: int, batch_size: int, expected: int) -> None:
    assert window_rows(shuffle_rows, batch_size, shuffle_seed=0) == expected


@pytest.mark.parametrize("seed", [-1, 0.5, "1"])
def test_a_seed_is_none_or_at_least_0(seed: object) -> None:
    with pytest.raises(ValueError, match="`shuffle_seed` must be None or an integer of at least 0"):
        window_rows(4, 2, seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pieces", "rows", "windows"),
    [
        ([5], 2, [2, 2, 1]),
        ([1, 1, 1, 1], 2, [2, 2]),
        ([3, 0, 4, 1], 4, [4, 4]),
        ([1, 5], 3, [3, 3]),
        ([2], 9, [2]),
        ([], 3, []),
        ([0], 3, []),
    ],
)
def test_pieces_are_cut_into_windows_in_their_order(pieces: list[int], rows: int, windows: list[int]) -> None:
    whole = words(sum(pieces))
    found = list(regrouped(np.split(whole, np.cumsum(pieces)[:-1]) if pieces else [], rows))
    assert [len(window) for window in found] == windows
    np.testing.assert_array_equal(np.concatenate([*found, words(0)]), whole)


def test_rows_of_a_window_are_permuted_whole() -> None:
    (found,) = permuted(iter([words(9)]), np.random.default_rng(0))
    np.testing.assert_array_equal(found, words(9)[np.random.default_rng(0).permutation(9)])


def test_words_are_integers_before_floats_in_the_order_of_their_names() -> None:
    layout = Layout(SCHEMA, labels=True)
    packed = layout.pack(TABLE)
    assert layout.width == packed.shape[1] == 2 + 1 + 2 + 1 + 3 + 1 + 1
    assert packed[:, :4].tolist() == [[3, 1, 5, 7], [-1, -1, 6, 8]]  # the halves of the key, the town, then the user
    floats = packed[:, 4:].view(np.float32)
    np.testing.assert_array_equal(floats, [[0.5, 0, 1, 2, 0, 1, 2], [1.5, 1, 3, 4, 1, np.nan, 0]])
    assert layout.raw_columns == ["user", "age", "town", "mix", "liked"]
    tf.nest.map_structure(np.testing.assert_array_equal, layout.unpack(tf.constant(packed)), TABLE)


def test_words_of_integers_alone_and_no_labels() -> None:
    layout = Layout(Schema([Categorical("user")]), labels=False)
    unpacked = layout.unpack(
        tf.constant(layout.pack(Batch({"user": np.int32([7, 8])}, {}, {}, {"query": np.int64([70, -2])})))
    )
    assert unpacked.features["user"].numpy().tolist() == [7, 8]
    assert unpacked.ids["query"].numpy().tolist() == [70, -2]
    assert unpacked.labels == unpacked.weights == {}
    assert layout.raw_columns == ["user"]


@pytest.mark.parametrize("clock", [None, 4])
def test_batches_of_windows_and_the_epochs_numbers(clock: int | None) -> None:
    layout, epochs = Layout(Schema([Categorical("user")]), labels=False), []

    def windows(epoch: np.ndarray) -> Iterator[np.ndarray]:
        epochs.append(int(epoch))
        yield np.int32([[0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 0, 4]])
        yield np.int32([[0, 0, 5]])

    variable = None if clock is None else tf.Variable(clock, dtype=tf.int64)
    data = batches_of(windows, layout, 2, rows=5, clock=variable)
    assert len(data) == 3
    for _ in range(2):
        assert [batch.features["user"].numpy().tolist() for batch in data] == [[1, 2], [3, 4], [5]]
        if variable is not None:
            variable.assign_add(3)
    assert epochs == ([1, 2] if clock is None else [4, 7])
