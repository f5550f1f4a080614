from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from tfmtl.interpretation import Importance, conflict_curves, conflict_heat_map, importance_bars

NAN = float("nan")
NAMES = ["click", "rating", "buy"]


def matrix(click_rating: float, click_buy: float, rating_buy: float, diagonal: float = 1.0) -> np.ndarray:
    return np.array(
        [
            [diagonal, click_rating, click_buy],
            [click_rating, diagonal, rating_buy],
            [click_buy, rating_buy, diagonal],
        ]
    )


HISTORY = [
    {"cosine": matrix(0.5, -0.25, NAN), "count": matrix(1, 2, 0, 2)},
    {"cosine": matrix(-0.7, 0.75, NAN), "count": matrix(3, 2, 0, 3)},
]


def written(figure: Figure) -> dict[tuple[str, str], str]:
    """Return the text of the cells, by the names beside them."""
    axis = figure.axes[0]
    columns, rows = (
        [label.get_text() for label in labels] for labels in (axis.get_xticklabels(), axis.get_yticklabels())
    )
    cells = ((rows[round(t.get_position()[1])], columns[round(t.get_position()[0])], t.get_text()) for t in axis.texts)
    return {(row, column): text for row, column, text in cells}


def saved(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_the_heat_map_has_one_cell_a_pair() -> None:
    figure = conflict_heat_map(matrix(0.125, 0.5, 1.0), NAMES)
    assert written(figure) == {("rating", "click"): "0.12", ("buy", "click"): "0.50", ("buy", "rating"): "1.00"}
    (image,) = figure.axes[0].get_images()
    assert image.get_array().mask.tolist() == [[False, True], [False, False]]
    assert image.get_clim() == (0.0, 1.0)
    # two rows and columns of 0.8 x 0.6 inches, and the names and the bar beside them
    np.testing.assert_allclose(figure.get_size_inches(), [2.6 + 2 * 0.8, 1.8 + 2 * 0.6])


def test_the_heat_map_of_a_history_is_the_mean_over_its_measurements() -> None:
    # click ~ rating: (1 x 0.5 + 3 x -0.7) / 4 = -0.4; click ~ buy: (2 x -0.25 + 2 x 0.75) / 4 = 0.25.
    figure = conflict_heat_map(HISTORY, NAMES, measure="cosine")
    assert written(figure) == {("rating", "click"): "-0.40", ("buy", "click"): "0.25"}
    assert len(figure.axes[0].patches) == 1  # a pair that was never measured is grey
    assert figure.axes[0].get_images()[0].get_clim() == (-1.0, 1.0)


@pytest.mark.parametrize(("epoch", "value"), [(0, "0.50"), (-1, "-0.70")])
def test_the_heat_map_of_one_epoch(epoch: int, value: str) -> None:
    assert written(conflict_heat_map(HISTORY, NAMES, "cosine", epoch))["rating", "click"] == value


def test_text_is_legible_on_its_cell() -> None:
    texts = conflict_heat_map(matrix(0.0, 0.5, 1.0), NAMES).axes[0].texts
    assert [text.get_color() for text in texts] == ["black", "black", "white"]
    red = conflict_heat_map(matrix(0.55, 0.6, 1.0), NAMES).axes[0].texts  # luminance above 0.5, and 0.46
    assert [text.get_color() for text in red] == ["black", "white", "white"]


def test_curves_have_a_line_a_pair() -> None:
    axis = conflict_curves(HISTORY, NAMES, "cosine").axes[0]
    lines = {line.get_label(): line for line in axis.get_lines() if not str(line.get_label()).startswith("_")}
    assert list(lines) == ["click ~ rating", "click ~ buy", "rating ~ buy"]
    assert lines["click ~ rating"].get_xdata().tolist() == [1, 2]
    assert lines["click ~ buy"].get_ydata().tolist() == [-0.25, 0.75]
    assert np.isnan(lines["rating ~ buy"].get_ydata()).all()
    assert len({line.get_color() for line in lines.values()}) == 3


def test_pictures_can_be_saved_and_leave_pyplot_alone() -> None:
    tasks = 8
    names = [f"task {k}" for k in range(tasks)]
    history = [{"magnitude": np.full([tasks, tasks], 0.1 * k), "count": np.ones([tasks, tasks])} for k in range(9)]
    for figure in (conflict_heat_map(history, names, "magnitude"), conflict_curves(history, names, "magnitude")):
        assert saved(figure).startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    lines = conflict_curves(history, names, "magnitude").axes[0].get_lines()[1:]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 28


def test_importances_have_a_panel_per_task_and_bars_in_order() -> None:
    values = np.array([[0.1, NAN], [0.3, -0.1], [0.2, 0.0]])
    found = Importance(["a", "b", "c"], NAMES[:2], values, values - 0.05, values + 0.1, np.ones(2), {})
    figure = importance_bars(found, count=2)
    shown = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert shown == [["b", "c"], ["c", "b"]]
    assert [axis.get_title() for axis in figure.axes] == NAMES[:2]
    (errors,) = figure.axes[0].collections
    np.testing.assert_allclose([line[:, 0] for line in errors.get_segments()], [[0.25, 0.4], [0.15, 0.3]])
    assert saved(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="`count` must be a positive integer"):
        importance_bars(found, count=0)


@pytest.mark.parametrize("draw", [conflict_heat_map, conflict_curves])
def test_wrong_arguments_are_refused(draw: Any) -> None:
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        draw(HISTORY, NAMES, "cosin")
    with pytest.raises(ValueError, match="history is empty"):
        draw([], NAMES)
    with pytest.raises(ValueError, match="two tasks or more"):
        draw(HISTORY, ["click"], "cosine")
    with pytest.raises(ValueError, match="one row and one column for each of 2 tasks"):
        draw(HISTORY, ["click", "buy"], "cosine")


def test_an_epoch_that_was_not_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="index of one of 2 epochs"):
        conflict_heat_map(HISTORY, NAMES, "cosine", epoch=2)
