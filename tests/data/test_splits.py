from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmtl.data.folds import grouped_kfold
from tfmtl.data.splits import Split, leave_last_split, random_split, temporal_split

DAY_0 = pd.Timestamp("2024-01-01")
TIMES: dict[str, Callable[[np.ndarray], Any]] = {
    "int64": lambda days: days,
    "Int64": lambda days: pd.array(days, dtype="Int64"),
    "float64": lambda days: days / 7,
    "datetime64[ns]": lambda days: (DAY_0 + pd.to_timedelta(days, unit="D")).as_unit("ns"),
    "datetime64[us]": lambda days: (DAY_0 + pd.to_timedelta(days, unit="D")).as_unit("us"),
    "datetime64[s]": lambda days: (DAY_0 + pd.to_timedelta(days, unit="D")).as_unit("s"),
    "zone": lambda days: (DAY_0 + pd.to_timedelta(days, unit="D")).tz_localize("Europe/Oslo"),
    "date": lambda days: [(DAY_0 + pd.Timedelta(days=int(d))).date() for d in days],
    "arrow": lambda days: pd.array(
        (DAY_0 + pd.to_timedelta(days, unit="D")).as_unit("us"), dtype="timestamp[us][pyarrow]"
    ),
}
IDS: dict[str, Callable[[np.ndarray], Any]] = {
    "int64": lambda ids: ids,
    "Int64": lambda ids: pd.array(ids, dtype="Int64"),
    "str": lambda ids: pd.Series([f"u{i}" for i in ids]).array,
    "object": lambda ids: np.array([f"u{i}" for i in ids], dtype=object),
    "category": lambda ids: pd.Categorical([f"u{i}" for i in ids], categories=[f"u{i}" for i in range(50)]),
}
STARTS = ["2024-01-03", datetime.date(2024, 1, 3), np.datetime64("2024-01-03"), DAY_0 + pd.Timedelta(days=2)]
few_days = st.lists(st.integers(0, 6), min_size=2, max_size=40)


def table(days: list[int], times: str = "int64", ids: str = "int64", users: list[int] | None = None) -> pd.DataFrame:
    numbers = np.asarray(users if users is not None else [d % 3 for d in days], np.int64)
    frame = pd.DataFrame({"row": np.arange(len(days)), "user": IDS[ids](numbers)})
    frame["time"] = TIMES[times](np.asarray(days, np.int64))
    frame.index = pd.Index(np.arange(len(days))[::-1] // 2, name="old")  # neither sorted nor unique
    return frame


def check_partition(split: Split, frame: pd.DataFrame) -> None:
    """Each row is on one side, with its index and in the order of the table."""
    rows = np.concatenate([split.train["row"], split.test["row"]])
    assert sorted(rows) == list(range(len(frame)))
    for side in split:
        assert len(side) > 0
        assert np.all(np.diff(side["row"]) > 0)
        pd.testing.assert_frame_equal(side, frame.iloc[side["row"].to_numpy()])


@pytest.mark.parametrize("times", TIMES)
@settings(max_examples=12, deadline=None)
@given(days=few_days, fraction=st.floats(0.01, 0.99))
def test_temporal_split_cuts_between_two_moments_nearest_to_the_fraction(
    times: str, days: list[int], fraction: float
) -> None:
    frame, wanted = table(days, times), round(fraction * len(days))
    if len(set(days)) == 1 or not 0 < wanted < len(days):
        with pytest.raises(ValueError, match=r"two different times|at least one of the"):
            temporal_split(frame, "time", test_fraction=fraction)
        return
    split = temporal_split(frame, "time", test_fraction=fraction)
    check_partition(split, frame)
    assert split.train["time"].max() < split.test["time"].min()
    possible = [sum(d >= day for d in days) for day in set(days) if day > min(days)]
    assert abs(len(split.test) - wanted) == min(abs(rows - wanted) for rows in possible)


@pytest.mark.parametrize("times", [name for name in TIMES if name not in ("int64", "Int64", "float64")])
@pytest.mark.parametrize("start", STARTS, ids=lambda start: type(start).__name__)
def test_temporal_split_from_a_date_does_not_depend_on_the_unit_of_the_column(times: str, start: Any) -> None:
    frame = table([0, 3, 2, 1, 2], times)
    split = temporal_split(frame, "time", test_from=start)
    check_partition(split, frame)
    assert split.test["row"].tolist() == [1, 2, 4]  # days 3, 2, 2: the first moment itself is held out


@pytest.mark.parametrize("times", ["int64", "Int64"])
def test_temporal_split_from_a_number(times: str) -> None:
    assert temporal_split(table([0, 3, 2, 1], times), "time", test_from=2).test["row"].tolist() == [1, 2]


def test_a_split_of_a_split_leaves_three_sides_in_order() -> None:
    frame = table(list(range(10)))
    rest, test = temporal_split(frame, "time", test_fraction=0.2)
    train, validation = temporal_split(rest, "time", test_from=6)
    assert [side["row"].tolist() for side in (train, validation, test)] == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]


def last_rows(days: list[int], users: list[int], n: int) -> list[int]:
    """Return the rows held out, user by user in plain Python."""
    held_out = []
    for user in set(users):
        own = [row for row, u in enumerate(users) if u == user]
        latest = sorted(days[row] for row in own)[-n:]
        chosen = [row for row in own if days[row] >= latest[0]]
        held_out += chosen if len(chosen) < len(own) else []
    return sorted(held_out)


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("times", ["int64", "Int64", "datetime64[us]", "zone"])
@settings(max_examples=8, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=40), n=st.integers(1, 3))
def test_leave_last_split_matches_a_plain_loop(times: str, ids: str, rows: list[tuple[int, int]], n: int) -> None:
    days, users = [list(values) for values in zip(*rows, strict=True)]
    frame, expected = table(days, times, ids, users), last_rows(days, users, n)
    if not expected:
        with pytest.raises(ValueError, match="'user' with earlier rows by 'time' must leave a row on the test side"):
            leave_last_split(frame, "user", "time", n=n)
        return
    split = leave_last_split(frame, "user", "time", n=n)
    check_partition(split, frame)
    assert split.test["row"].tolist() == expected
    assert set(split.test["user"]) <= set(split.train["user"])


def test_leave_last_split_holds_a_basket_out_whole() -> None:
    frame = table([1, 2, 2, 2, 5, 5], users=[0, 0, 0, 0, 1, 1])
    # user 0: the last moment has three rows; user 1 has no earlier row and stays in training
    assert leave_last_split(frame, "user", "time", n=1).test["row"].tolist() == [1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**40))
def test_random_split_has_the_share_and_repeats_with_its_seed(rows: int, fraction: float, seed: int) -> None:
    frame = table([0] * rows)
    if not 0 < round(fraction * rows) < rows:
        with pytest.raises(ValueError, match=f"at least one of the {rows} rows on either side"):
            random_split(frame, test_fraction=fraction, seed=seed)
        return
    split = random_split(frame, test_fraction=fraction, seed=seed)
    check_partition(split, frame)
    assert len(split.test) == round(fraction * rows)
    again = random_split(frame, test_fraction=fraction, seed=seed)
    pd.testing.assert_frame_equal(split.test, again.test)


def test_random_split_is_uniform_and_differs_between_seeds() -> None:
    frame = table([0] * 20)
    times_held_out = sum(
        np.bincount(random_split(frame, test_fraction=0.25, seed=seed).test["row"], minlength=20) for seed in range(400)
    )
    # binomial(400, 1/4): mean 100, deviation 8.7; 45 is more than five deviations
    assert np.abs(times_held_out - 100).max() < 45


@pytest.mark.parametrize("ids", IDS)
@settings(max_examples=12, deadline=None)
@given(users=st.lists(st.integers(0, 9), min_size=4, max_size=60), folds=st.integers(2, 5), seed=st.integers(0, 99))
def test_grouped_kfold_tests_each_row_once_and_keeps_groups_whole(
    ids: str, users: list[int], folds: int, seed: int
) -> None:
    frame = table([0] * len(users), ids=ids, users=users)
    if len(set(users)) < folds:
        with pytest.raises(ValueError, match="`folds` must be from 2 to the"):
            grouped_kfold(frame, "user", folds=folds, seed=seed)
        return
    splits = list(grouped_kfold(frame, "user", folds=folds, seed=seed))
    assert len(splits) == folds
    for split in splits:
        check_partition(split, frame)
        assert not set(split.train["user"]) & set(split.test["user"])
    assert sorted(np.concatenate([split.test["row"] for split in splits])) == list(range(len(users)))
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= max(map(users.count, users))
    again = [split.test["row"].tolist() for split in grouped_kfold(frame, "user", folds=folds, seed=seed)]
    assert again == [split.test["row"].tolist() for split in splits]


def test_grouped_kfold_differs_between_seeds() -> None:
    frame = table([0] * 40, users=list(range(40)))
    folds = [next(grouped_kfold(frame, "user", folds=4, seed=seed)).test["row"].tolist() for seed in range(5)]
    assert len(set(map(tuple, folds))) == 5


SPLITS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "temporal": lambda frame: temporal_split(frame, "time", test_fraction=0.5),
    "leave_last": lambda frame: leave_last_split(frame, "user", "time"),
    "random": lambda frame: random_split(frame, test_fraction=0.5, seed=0),
    "kfold": lambda frame: list(grouped_kfold(frame, "user", folds=2, seed=0)),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_the_input_is_neither_changed_nor_has_to_be_writeable(split: Callable[[pd.DataFrame], Any]) -> None:
    arrays = {"row": np.arange(6), "user": np.array([0, 0, 1, 1, 2, 2]), "time": np.array([5, 1, 4, 2, 3, 0])}
    for array in arrays.values():
        array.setflags(write=False)
    frame = pd.DataFrame(arrays, copy=False)
    before = frame.copy()
    split(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_an_empty_table_and_a_thing_that_is_no_table(split: Callable[[pd.DataFrame], Any]) -> None:
    with pytest.raises(ValueError, match=r"^The table is empty; at least one row is needed\.$"):
        split(table([0, 1])[:0])
    with pytest.raises(TypeError, match="`frame` must be DataFrame"):
        split({"time": [1]})  # type: ignore[arg-type]


@pytest.mark.parametrize("split", [SPLITS["temporal"], SPLITS["leave_last"]], ids=["temporal", "leave_last"])
@pytest.mark.parametrize("times", ["Int64", "float64", "datetime64[us]", "zone", "date"])
def test_missing_times_are_counted(split: Callable[[pd.DataFrame], Any], times: str) -> None:
    frame = table([0, 1, 2, 3, 4], times)
    frame.loc[frame["row"].isin([1, 3]), "time"] = None
    with pytest.raises(ValueError, match=r"^Column 'time' has 2 missing values in 5 rows; drop these rows"):
        split(frame)


@pytest.mark.parametrize("split", [SPLITS["kfold"], SPLITS["leave_last"]], ids=["kfold", "leave_last"])
@pytest.mark.parametrize("ids", ["Int64", "str", "object", "category"])
def test_missing_groups_are_counted(split: Callable[[pd.DataFrame], Any], ids: str) -> None:
    frame = table([0, 1, 2, 3], ids=ids)
    frame.loc[frame["row"] == 2, "user"] = None
    with pytest.raises(ValueError, match=r"^Column 'user' has 1 missing values in 4 rows; drop these rows"):
        split(frame)


@pytest.mark.parametrize("name", ["temporal", "leave_last", "kfold"])
def test_an_unknown_column_gets_a_hint(name: str) -> None:
    renamed = table([0, 1, 2]).rename(columns={"time": "times", "user": "users"})
    with pytest.raises(
        ValueError, match=r"Unknown column \['(time|user)'\] in the table.* Did you mean '(time|user)s'\?"
    ):
        SPLITS[name](renamed)


def test_a_column_name_that_occurs_twice() -> None:
    frame = table([0, 1, 2])
    with pytest.raises(ValueError, match="more than one column 'time'"):
        temporal_split(pd.concat([frame, frame[["time"]]], axis=1), "time", test_fraction=0.5)


@pytest.mark.parametrize("values", [["2024-01-01", "2024-01-02"], [True, False], [("a",), ("b",)]])
def test_text_and_truth_values_are_no_times(values: list[Any]) -> None:
    with pytest.raises(TypeError, match=r"^Column 'time' must hold datetimes or numbers to order rows by time"):
        temporal_split(pd.DataFrame({"time": pd.Series(values)}), "time", test_fraction=0.5)


@pytest.mark.parametrize(
    ("times", "start", "message"),
    [
        ("datetime64[ns]", 1_704_240_000, "`test_from` must be a datetime, as column 'time' is"),
        ("datetime64[ns]", "not a date", "`test_from` must be a datetime, as column 'time' is"),
        ("datetime64[ns]", pd.Timestamp("2024-01-03", tz="UTC"), "It must have no time zone, because the column has"),
        ("int64", "2024-01-03", "`test_from` must be Real. .*Column 'time' holds numbers"),
    ],
)
def test_a_boundary_of_another_kind_than_the_column(times: str, start: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        temporal_split(table([0, 1, 2, 3], times), "time", test_from=start)


@pytest.mark.parametrize(("start", "side"), [(0, "training"), (9, "test")])
def test_a_boundary_outside_the_times_names_the_empty_side(start: int, side: str) -> None:
    with pytest.raises(ValueError, match=f"column 'time' must leave a row on the {side} side"):
        temporal_split(table([0, 1, 2]), "time", test_from=start)


@pytest.mark.parametrize("options", [{}, {"test_fraction": 0.5, "test_from": 1}])
def test_temporal_split_takes_one_of_two_boundaries(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of `test_fraction` and `test_from`"):
        temporal_split(table([0, 1]), "time", **options)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), 1e-9])
def test_a_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="`test_fraction`"):
        random_split(table([0, 1, 2]), test_fraction=fraction, seed=0)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0"):
        random_split(table([0, 1]), test_fraction=0.5, seed=seed)


@pytest.mark.parametrize("folds", [0, 1, 4])
def test_folds_are_two_to_the_number_of_groups(folds: int) -> None:
    with pytest.raises(ValueError, match="`folds` must be"):
        grouped_kfold(table([0, 1, 2]), "user", folds=folds, seed=0)
