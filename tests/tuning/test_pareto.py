from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuning.models import Scored, two_choices
from tfmtl import tuning
from tfmtl.tuning.pareto import undominated
from tfmtl.tuning.plots import pareto_plot

NAN = float("nan")
BOTH: dict[str, Any] = {"auc": "max", "rmse": "min"}
ROWS = [
    {"auc": 0.8, "rmse": 0.95},
    {"auc": 0.7, "rmse": 0.91},
    {"auc": 0.7, "rmse": 0.93},  # beaten by the one before
    {"auc": 0.6, "rmse": 0.9},
    {"auc": 0.6, "rmse": 0.9},  # a twin stays
    {"auc": NAN, "rmse": 0.1},
    {"auc": 0.9, "rmse": None},
]
FRONT = [0, 1, 3, 4]
costs = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, -1.0, NAN, float("inf")])] * 3), max_size=25)


def beats(one: Any, other: Any) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@settings(max_examples=150, deadline=None)
@given(costs)
def test_front_against_the_definition(points: list[tuple[float, ...]]) -> None:
    known = [point for point in points if not np.isnan(point).any()]
    expected = [not np.isnan(p).any() and not any(beats(other, p) for other in known) for p in points]
    assert undominated(np.array(points).reshape(-1, 3)).tolist() == expected


def test_front_of_more_rows_than_a_block() -> None:
    x = np.random.default_rng(0).permutation(700) / 700
    line = np.stack([x, 1 - x], axis=1)  # nothing beats anything
    assert undominated(line).all()
    assert not undominated(np.vstack([line, line + np.array([0.0, 1e-9])]))[700:].any()


def test_front_by_hand_keeps_order_twins_and_whole_rows() -> None:
    rows = [{**row, "trial": str(i)} for i, row in enumerate(ROWS)]
    assert tuning.pareto_front(rows, BOTH) == [rows[i] for i in FRONT]
    table = pd.DataFrame(rows)
    assert [row["trial"] for row in tuning.pareto_front(table, BOTH)] == [str(i) for i in FRONT]
    assert tuning.pareto_front([], BOTH) == []
    only = tuning.pareto_front(rows, {"rmse": "min"})
    assert [row["trial"] for row in only] == ["5"]


def test_front_of_a_search(tmp_path: Path) -> None:
    model = Scored(two_choices, lambda drawn: {"x_loss": drawn["a"], "y_loss": -drawn["a"] * drawn["b"] / 10})
    tuner = tuning.GridSearch(model, ["x_loss", "y_loss"], directory=tmp_path)
    tuner.search(verbose=0)
    front = tuning.pareto_front(tuning.trials_table(tuner), {"x_loss": "min", "y_loss": "min"})
    drawn = sorted((row["hyperparameters"]["a"], row["hyperparameters"]["b"]) for row in front)
    assert drawn == [(1, 20), (2, 20), (3, 20)]


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        ({}, 1),  # of (0, 1), (1/2, 1/5), (1, 0) the second has the least maximum, 1/2
        ({"weights": {"auc": 1}}, 0),
        ({"weights": {"rmse": 2.0}}, 3),
        ({"weights": {"auc": 1, "rmse": 10}}, 3),  # maxima 10, 2, 1
        ({"bounds": {"rmse": 0.92}, "weights": {"auc": 1}}, 1),
        ({"bounds": {"auc": 0.65}, "weights": {"rmse": 1}}, 1),
        ({"bounds": {"auc": 0.8, "rmse": 0.95}}, 0),
    ],
)
def test_choice_by_hand(preference: dict[str, Any], expected: int) -> None:
    rows = [{**row, "trial": i} for i, row in enumerate(ROWS)]
    assert tuning.select_from_front(rows, BOTH, **preference)["trial"] == expected


def test_any_point_of_a_front_that_is_not_convex_can_be_chosen() -> None:
    rows = [{"a": 0.0, "b": 1.0}, {"a": 0.6, "b": 0.6}, {"a": 1.0, "b": 0.0}]  # a weighted sum never takes the middle
    assert tuning.select_from_front(rows, {"a": "min", "b": "min"}) == rows[1]


@settings(max_examples=60, deadline=None)
@given(costs, st.tuples(*[st.sampled_from([0.0, 0.5, 3.0])] * 3))
def test_choice_is_on_the_front_whatever_the_units(points: list[tuple[float, ...]], weights: tuple[float, ...]) -> None:
    finite = [p for p in points if np.isfinite(p).all()]
    if not finite or not any(weights):
        return
    names = dict.fromkeys("abc", "min")
    rows = [dict(zip("abc", p, strict=True)) for p in finite]
    wanted = dict(zip("abc", weights, strict=True))
    chosen = tuning.select_from_front(rows, names, weights=wanted)
    assert chosen in tuning.pareto_front(rows, names)
    scaled = [{name: 1000 * value + 5 for name, value in row.items()} for row in rows]
    assert tuning.select_from_front(scaled, names, weights=wanted) == {name: 1000 * v + 5 for name, v in chosen.items()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"objectives": {}}, "`objectives` must name at least one"),
        ({"objectives": {"auc": "up"}}, "The direction of 'auc' must be 'min' or 'max'"),
        (
            {"objectives": {"ndcg": "max"}},
            r"No row has a value of the objectives \['ndcg'\]; rows have \['auc', 'rmse'\]",
        ),
        ({"weights": {"acu": 1}}, "Did you mean 'auc'"),
        ({"weights": {"auc": -1}}, "`weights` must be 0 or more"),
        ({"weights": {"auc": 0}}, "one above 0"),
        ({"bounds": {"mae": 1}}, "Unknown objective"),
        ({"bounds": {"rmse": 0.5}}, r"the best values are \{'rmse': 0.9\}"),
        ({"rows": [{"auc": 1.0, "rmse": NAN}, {"auc": NAN, "rmse": 1.0}]}, "No row has a value of each"),
    ],
)
def test_what_cannot_be_chosen_from_is_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tuning.select_from_front(**{"rows": ROWS, "objectives": BOTH, **arguments})


def test_plot_shows_all_rows_the_front_and_the_choice() -> None:
    figure = pareto_plot(ROWS, BOTH, chosen=ROWS[1])
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("auc (max)", "rmse (min)")
    front, star = axis.lines
    np.testing.assert_array_equal(front.get_xdata(), [0.6, 0.6, 0.7, 0.8])
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.7, 0.91)
    assert len(axis.collections[0].get_offsets()) == len(ROWS)
    figure.savefig(io.BytesIO())
    with pytest.raises(ValueError, match="exactly two objectives"):
        pareto_plot(ROWS, {"auc": "max"})
