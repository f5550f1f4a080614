from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmtl.data import random_kfold, rolling_origin

DAY_0 = pd.Timestamp("2024-01-01")


def table(days: list[int], zone: str | None = None) -> pd.DataFrame:
    when = (DAY_0 + pd.to_timedelta(days, unit="D")).tz_localize(zone)
    return pd.DataFrame({"day": days, "when": when, "row": range(len(days))}, index=range(len(days), 0, -1))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 5))
def test_random_kfold_tests_each_row_once(rows: int, folds: int, seed: int) -> None:
    frame = table([0] * rows)
    if folds > rows:
        with pytest.raises(ValueError, match=f"`folds` must be from 2 to the {rows} rows"):
            random_kfold(frame, folds=folds, seed=seed)
        return
    splits = list(random_kfold(frame, folds=folds, seed=seed))
    tested = pd.concat([split.test for split in splits])
    assert sorted(tested["row"]) == list(range(rows))
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for train, test in splits:
        assert sorted([*train["row"], *test["row"]]) == list(range(rows))
        assert train["row"].is_monotonic_increasing
    again = [split.test["row"].tolist() for split in random_kfold(frame, folds=folds, seed=seed)]
    assert again == [split.test["row"].tolist() for split in splits]


def test_random_kfold_is_random_and_differs_between_seeds() -> None:
    tests = [next(random_kfold(table([0] * 40), folds=4, seed=seed)).test["row"].tolist() for seed in range(4)]
    assert len({tuple(rows) for rows in tests}) == 4
    assert all(rows != list(range(0, 40, 4)) for rows in tests)


@pytest.mark.parametrize(("column", "horizon", "window"), [("day", 2, 3), ("when", "2D", "3D"), ("when", "48h", "72h")])
def test_rolling_origin_by_hand(column: str, horizon: Any, window: Any) -> None:
    # last day 9, horizon 2, two folds: origins 5 and 7; test (5, 7] and (7, 9]
    frame = table([9, 1, 5, 5, 6, 8, 3, 7])
    days = [
        (sorted(train["day"]), sorted(test["day"]))
        for train, test in rolling_origin(frame, column, folds=2, horizon=horizon)
    ]
    assert days == [([1, 3, 5, 5], [6, 7]), ([1, 3, 5, 5, 6, 7], [8, 9])]
    windowed = [sorted(s.train["day"]) for s in rolling_origin(frame, column, folds=2, horizon=horizon, window=window)]
    assert windowed == [[3, 5, 5], [5, 5, 6, 7]]


def test_a_day_is_24_hours_where_clocks_change() -> None:
    frame = table([88, 89, 90, 91], zone="Europe/Oslo")  # the night to 31 March 2024, day 90, has 23 hours
    splits = list(rolling_origin(frame, "when", folds=1, horizon="1D"))
    assert splits[0].test["day"].tolist() == [90, 91]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_rolling_origin_never_knows_the_future(days: list[int], folds: int, horizon: int) -> None:
    frame = table(days)
    try:
        splits = list(rolling_origin(frame, "day", folds=folds, horizon=horizon))
    except ValueError as error:
        assert "give fewer folds or another `horizon`" in str(error)  # noqa: PT017 - most draws are fine
        return
    assert len(splits) == folds
    tested = np.concatenate([split.test["row"] for split in splits])
    first = max(days) - folds * horizon
    assert sorted(tested) == [row for row, day in enumerate(days) if day > first]
    for train, test in splits:
        assert train["day"].max() < test["day"].min()
        assert sorted(train["row"]) == [row for row, day in enumerate(days) if day <= train["day"].max()]


@pytest.mark.parametrize(
    ("column", "arguments", "error", "words"),
    [
        ("day", {"horizon": 0}, ValueError, "`horizon` must be above 0"),
        ("day", {"horizon": "1D"}, TypeError, "`horizon` must be Real.*holds numbers"),
        ("when", {"horizon": 1}, TypeError, "such as '7D': column 'when' holds datetimes"),
        ("when", {"horizon": "a week"}, TypeError, "such as '7D'"),
        ("when", {"horizon": "-1D"}, ValueError, "above 0"),
        ("day", {"horizon": 1, "window": -2}, ValueError, "`window` must be above 0"),
        ("day", {"horizon": 5}, ValueError, "Fold 0 of 2 has no training row"),
        ("day", {"horizon": 1, "folds": 3}, ValueError, "Fold 0 of 3 has no test row"),
        ("day", {"horizon": 1, "folds": 0}, ValueError, "`folds`"),
    ],
)
def test_errors_say_which_fold_or_argument(
    column: str, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        rolling_origin(table([0, 4, 5]), column, **{"folds": 2, **arguments})


def test_missing_times_are_refused() -> None:
    frame = table([1, 2, 3])
    frame.loc[2, "when"] = pd.NaT
    with pytest.raises(ValueError, match="Column 'when' has 1 missing values"):
        rolling_origin(frame, "when", folds=1, horizon="1D")
