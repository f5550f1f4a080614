from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tfmtl.adaptation import DriftMonitor, PageHinkley, population_stability_index
from tfmtl.adaptation.drift import _count, _make_bins
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Schema, Vector

SCHEMA = Schema(
    query=[Categorical("user"), Numeric("age"), Vector("mix", size=2), IdSequence("recent", of="user", max_length=3)],
    labels=[Label("liked")],
)

FLAT = Schema(query=[Categorical("a", dtype="int64"), Numeric("b")])


def table(seed: int, rows: int = 300, **changes: Any) -> pd.DataFrame:
    """Return a table without drift but for the given columns; a tenth of the ages are missing."""
    rng = np.random.default_rng(seed)
    users = [f"u{k}" for k in np.minimum(rng.geometric(0.2, rows), 30)]
    age = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 10, rows))
    columns: dict[str, Any] = {"user": users, "age": age, "mix": list(rng.normal(size=[rows, 2]))}
    columns["recent"] = [[f"u{k}" for k in rng.integers(0, 9, n)] for n in rng.integers(0, 4, rows)]
    columns["liked"] = (rng.random(rows) < 0.3).astype(float)
    return pd.DataFrame({**columns, **{name: change(rng, rows) for name, change in changes.items()}})


DRIFTS = {
    "user": lambda rng, rows: [f"new{k}" for k in rng.integers(0, 5, rows)],
    "age": lambda rng, rows: rng.normal(55, 10, rows),
    "mix[1]": lambda rng, rows: list(rng.normal(size=[rows, 2]) * [1.0, 3.0]),
    "recent": lambda rng, rows: [["u1", "u1"]] * rows,
    "label:liked": lambda rng, rows: (rng.random(rows) < 0.6).astype(float),
}


@pytest.mark.parametrize("column", DRIFTS)
def test_planted_drift_is_found_where_it_is(column: str) -> None:
    monitor = DriftMonitor()
    assert monitor.update(SCHEMA, table(0)) == []
    name = column.split("[")[0].split(":")[-1]
    (alarm,) = monitor.update(SCHEMA, table(1, **{name: DRIFTS[column]}))
    assert alarm.column == column
    assert alarm.statistic > alarm.threshold >= 0.1


def test_missing_values_are_a_drift_of_their_own() -> None:
    monitor = DriftMonitor()
    monitor.update(SCHEMA, table(0))
    (alarm,) = monitor.update(SCHEMA, table(1).assign(age=np.nan))
    assert alarm.column == "age"


@pytest.mark.parametrize("rows", [40, 400])
def test_without_drift_alarms_are_as_rare_as_promised(rows: int) -> None:
    """5 % of 200 tables may raise any alarm: 10, and with 4 deviations of a binomial, 4 sqrt(9.5) = 12, at most 22."""
    alarms, rng = 0, np.random.default_rng(rows)
    for _ in range(200):
        monitor = DriftMonitor(threshold=0.0, false_alarms=0.05)
        tables = [pd.DataFrame({"a": rng.geometric(0.2, rows), "b": rng.normal(size=rows)}) for _ in range(2)]
        alarms += [bool(monitor.update(FLAT, each)) for each in tables] == [False, True]
    assert alarms <= 22


OLDER = pd.DataFrame({"a": [5] * 50 + [7] * 30 + [9] * 20, "b": [1.0, 2.0] * 50})
NEWER = pd.DataFrame({"a": [5] * 10 + [7] * 15 + [9] * 25, "b": 1.0})


def test_the_thresholds_by_hand() -> None:
    """Two columns share the rate: each has s = 1 - sqrt(0.95).

    With three bins chi-squared exceeds -2 ln(s) with probability s; with two it is the square of a normal variable.
    """
    monitor = DriftMonitor(threshold=0.0, false_alarms=0.05)
    assert monitor.update(FLAT, OLDER) == []
    three, two = monitor.update(FLAT, NEWER)
    share = 1 - np.sqrt(0.95)
    assert (three.column, two.column) == ("a", "b")
    assert three.threshold == pytest.approx(-2 * np.log(share) * (1 / 100 + 1 / 50))
    assert two.threshold == pytest.approx(norm.ppf(1 - share / 2) ** 2 * (1 / 100 + 1 / 50))
    assert three.statistic == pytest.approx(population_stability_index([50, 30, 20], [10, 15, 25]))
    assert two.statistic == pytest.approx(population_stability_index([50, 50], [50, 0]))


def test_a_rate_of_zero_allows_no_alarm() -> None:
    monitor = DriftMonitor(threshold=0.0, false_alarms=0.0)
    assert [monitor.update(FLAT, each) for each in (OLDER, NEWER)] == [[], []]


@pytest.mark.parametrize(("before", "now", "alarms"), [([5], [7, 7], 1), ([5, 5], [7], 1), ([5], [5], 0)])
def test_one_row_is_compared(before: list[int], now: list[int], alarms: int) -> None:
    monitor = DriftMonitor(threshold=0.0, false_alarms=0.9999)  # nearly every difference counts
    assert monitor.update(FLAT, pd.DataFrame({"a": before, "b": 1.0})) == []
    assert len(monitor.update(FLAT, pd.DataFrame({"a": now, "b": 1.0}))) == alarms


def test_bins_of_a_column_keep_their_edges_and_count_the_rest() -> None:
    """Quantiles of 0, ..., 4 in two bins are 0, 2 and 4: below 0, [0, 2), [2, 4), 4 and above, then missing."""
    edges = _make_bins(np.arange(5.0), 2)
    assert edges == [0, 2, 4]
    assert _count(np.array([-1, 0, 1.9, 2, 4, 9, np.nan]), edges).tolist() == [1, 2, 1, 2, 1]
    assert _make_bins(np.array([np.nan]), 2) == []
    # Categories: the two most frequent, equals in their order; then all others, then missing.
    names = np.array(["c", "b", "b", "a", "a", "a", "", ""])
    assert _make_bins(names, 2) == ["a", "b"]
    assert _make_bins(names[:2], 2) == ["b", "c"]
    assert _count(np.array(["a", "c", "b", "d", ""]), ["a", "b"]).tolist() == [1, 1, 2, 1]


def test_the_window_forgets() -> None:
    """A change raises alarms until the window contains only later tables."""
    monitor = DriftMonitor(window=2)
    older = {"age": lambda rng, rows: rng.normal(80, 10, rows)}
    found = [bool(monitor.update(SCHEMA, table(i, **(older if i >= 3 else {})))) for i in range(7)]
    assert found[:4] == [False, False, False, True]
    assert not found[-1]


def test_psi_by_hand() -> None:
    """Shares (2.5, 1.5) / 4 and (0.5, 3.5) / 4: differences 0.5, log ratios ln 5 and ln(3/7)."""
    assert population_stability_index([0, 3], [2, 1]) == pytest.approx(0.5 * np.log(5) - 0.5 * np.log(3 / 7))
    assert population_stability_index([0, 3, 0], [0, 4, 0]) == 0
    assert population_stability_index([3, 1], [1, 3]) == pytest.approx(population_stability_index([1, 3], [3, 1]))


def test_state_goes_on_where_it_was() -> None:
    monitor = DriftMonitor(window=2, metrics={"loss": PageHinkley(0.5)})
    for seed in range(3):
        monitor.update(SCHEMA, table(seed), {"loss": 1.0, "other": 2.0})
    other = DriftMonitor.from_state(json.loads(json.dumps(monitor.get_state())))
    for seed, loss in ((3, 1.0), (4, 3.0)):
        week = table(seed, age=DRIFTS["age"])
        alarms = monitor.update(SCHEMA, week, {"loss": loss})
        assert alarms == other.update(SCHEMA, week, {"loss": loss})
        assert "age" in {alarm.column for alarm in alarms}
    assert alarms[-1].column == "loss"


def test_one_row_and_columns_that_are_never_there() -> None:
    monitor = DriftMonitor()
    nothing = table(0, rows=1).assign(user="", age=np.nan, liked=np.nan)
    assert monitor.update(SCHEMA, nothing) == []
    assert monitor.update(SCHEMA, nothing) == []


def test_page_hinkley_by_hand() -> None:
    """1, 1, 1, 2: means 1, 1, 1, 1.25; m = 0, 0, 0, 0.75 without tolerance, and 0.75 above its least value, 0."""
    watch = PageHinkley(0.7)
    assert [watch.update(x) for x in (1, 1, 1, 2)] == [False, False, False, True]
    assert watch.statistic == pytest.approx(0.75)
    assert not PageHinkley(0.8).update(2)
    mild = PageHinkley(0.7, tolerance=0.1)  # m = -0.1, -0.2, -0.3, 0.35: 0.65 above its least value
    assert [mild.update(x) for x in (1, 1, 1, 2)] == [False] * 4
    assert mild.statistic == pytest.approx(0.65)


def test_page_hinkley_watches_the_worse_side_only() -> None:
    loss, auc = PageHinkley(0.2, mode="min"), PageHinkley(0.2, mode="max")
    assert not any(loss.update(x) for x in (1, 1, 1, 0.5, 0.4))
    assert [auc.update(x) for x in (0.9, 0.9, float("nan"), 0.9, 0.5)] == [False] * 4 + [True]
    assert not auc.update(0.5)  # it starts again


def test_page_hinkley_waits_for_its_patience() -> None:
    assert not any(PageHinkley(0.1, patience=5).update(x) for x in (1, 9, 9, 9, 9))


def test_page_hinkley_is_seldom_wrong_and_seldom_late() -> None:
    """Noise of 0.1 and a threshold of 1: of 200 series of 30 at most 2 raise an alarm; a step by 0.5 is found in 5."""
    rng = np.random.default_rng(0)
    false = late = 0
    for _ in range(200):
        watch, noise = PageHinkley(1.0, tolerance=0.05), rng.normal(scale=0.1, size=35)
        false += any(watch.update(x) for x in noise[:30])
        late += not any(watch.update(x + 0.5) for x in noise[30:])
    assert false <= 2
    assert late <= 2


@pytest.mark.parametrize("wrong", [{"threshold": -1}, {"false_alarms": 1.5}, {"window": 0}, {"bins": 0}])
def test_arguments_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DriftMonitor(**wrong)


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"tolerance": -1}, {"mode": "less"}])
def test_arguments_of_the_watch_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PageHinkley(**{"threshold": 1.0, **wrong})
