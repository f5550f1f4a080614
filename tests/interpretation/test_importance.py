from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from tests.interpretation import planted
from tests.models import small
from tfmtl.data import to_batch
from tfmtl.interpretation import Importance, correlated_features, permutation_importance
from tfmtl.interpretation.importance import intervals, members_of
from tfmtl.models import MultiTaskModel

WEIGHTS = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return small.model()


def test_a_linear_model_has_the_importance_of_its_formula() -> None:
    frame = planted.table(WEIGHTS, 4000, seed=1, noise=0.0)
    found = permutation_importance(planted.linear_model(frame, WEIGHTS), frame, repeats=10)
    # The squared loss of w z rises by w^2 E (z - z')^2 = 2 w^2, for independent z and z' of variance 1;
    # the labels have the deviations of x instead of 1, which differ by 1 / sqrt(2 N) = 1 %.
    np.testing.assert_allclose(found.values, 2 * WEIGHTS**2, atol=0.25)
    assert (found.low <= found.values).all()
    assert (found.values <= found.high).all()
    assert (found.values[3] == 0).all()
    assert found.order("first") == ["x0", "x2", "x1", "x3"]
    assert found.select("second", 1) == ["x1"]


def test_the_loss_of_a_task_rises_by_the_difference_of_its_own_losses(model: MultiTaskModel) -> None:
    frame = small.table()
    found = permutation_importance(model, frame, tasks=["rating"], repeats=1, blocks=2, seed=3)
    rng = np.random.default_rng(3)
    blocks = np.array_split(rng.permutation(small.ROWS), 2)
    order = rng.permutation(small.ROWS)  # that of "user", the first feature
    moved = frame.assign(user=frame["user"].to_numpy()[order])

    def losses(table: pd.DataFrame) -> np.ndarray:
        return np.array([model.evaluate(table.iloc[b], return_dict=True, verbose=0)["rating_loss"] for b in blocks])

    np.testing.assert_allclose(found.values[0, 0], np.mean(losses(moved) - losses(frame)), atol=1e-5)
    np.testing.assert_allclose(found.base, [losses(frame).mean()], rtol=1e-5)


def test_metrics_fall_or_rise() -> None:
    frame = planted.table(WEIGHTS, 500, seed=1)
    frame["second"] = (frame["second"] > 0).astype(float)
    model = planted.linear_model(frame, WEIGHTS, binary=True)
    found = permutation_importance(model, frame, metrics={"first": "rmse", "second": "auc"})
    assert found.values[0, 0] > 1  # rmse from 0.1 to sqrt(8)
    np.testing.assert_allclose(found.values[1, 1], 0.5, atol=0.1)  # AUC from 1 to 0.5
    assert found.base[1] > 0.99


def test_groups_move_together() -> None:
    frame = planted.table(np.array([[1.0, 0.0], [0.0, 1.0]]), 2000, seed=2, noise=0.0)
    frame["x1"] = frame["x0"]
    model = planted.linear_model(frame, np.array([[0.5, 0.0], [0.5, 0.0]]))
    alone = permutation_importance(model, frame, tasks=["first"])
    together = permutation_importance(model, frame, tasks=["first"], groups=correlated_features(model, frame))
    np.testing.assert_allclose(alone.values[:, 0], 0.5, atol=0.05)  # 2 * 0.5^2 each
    assert together.names == ["x0+x1"]
    np.testing.assert_allclose(together.values[:, 0], 2.0, atol=0.15)  # 2 * 1^2
    assert together.select("first", 1) == ["x0", "x1"]


def test_the_same_seed_gives_the_same_numbers(model: MultiTaskModel) -> None:
    once, twice = (permutation_importance(model, small.table(), repeats=1, seed=5) for _ in range(2))
    np.testing.assert_array_equal(once.values, twice.values)
    other = permutation_importance(model, small.table(), repeats=1, seed=6)
    assert (once.values != other.values).any()
    np.testing.assert_allclose(
        once.values,
        permutation_importance(model, to_batch(small.table(), small.preprocessor()), repeats=1, seed=5).values,
    )


def test_intervals_are_those_of_students_t() -> None:
    samples = np.array([1.0, 2.0, 3.0, np.nan]).reshape(1, 4, 1)
    mean, low, high = intervals(samples, 0.95)
    # s = 1, n = 3, t(0.975, 2) = 4.3027, 4.3027 / sqrt(3) = 2.4841
    np.testing.assert_allclose([mean.item(), low.item(), high.item()], [2, 2 - 2.4841, 2 + 2.4841], atol=1e-4)
    assert np.isnan(intervals(np.array([1.0, np.nan]).reshape(1, 2, 1), 0.95)[1]).all()


def test_the_table_has_a_row_for_each_feature_and_task(model: MultiTaskModel) -> None:
    found = permutation_importance(model, small.table(), repeats=1, groups={"numbers": ["age", "price"]})
    frame = found.to_frame()
    assert list(frame.index.unique("feature")) == ["user", "numbers", "recent", "item", "position"]
    assert frame.loc[("numbers", "liked"), "value"] == found.values[1, 2]
    assert list(frame) == ["value", "low", "high"]
    assert frame.isna().to_numpy().sum() == 0


def test_a_task_without_labels_has_no_importance(model: MultiTaskModel) -> None:
    found = permutation_importance(model, small.table().assign(liked=np.nan), tasks=["rating", "liked"], repeats=1)
    assert np.isnan(found.values[:, 1]).all()
    assert np.isfinite(found.values[:, 0]).all()
    assert len(found.order("liked")) == 6


def test_hostile_rows_have_finite_importances(model: MultiTaskModel) -> None:
    hostile = small.table().assign(user=None, item="never seen", age=np.nan, recent=[[] for _ in range(small.ROWS)])
    found = permutation_importance(model, hostile, tasks=["rating", "liked"], repeats=1)
    assert np.isfinite(found.values).all()
    assert (found.values[found.names.index("item")] == 0).all()  # all rows have the same value


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tasks": ["liking"]}, "Unknown task ['liking'] in the model"),
        ({"groups": {"g": ["agee"]}}, "Unknown feature ['agee'] in group 'g'"),
        ({"groups": {"g": ["age"], "h": ["age"]}}, "Feature 'age' is in two groups, 'g' and 'h'."),
        ({"groups": {"item": ["age"]}}, "Group 'item' has the name of a feature that it does not hold"),
        ({"groups": {"g": []}}, "Group 'g' has no features."),
        ({"metrics": {"liked": "aucc"}}, "Unknown metric ['aucc'] in the report of task 'liked'"),
        ({"metrics": {"seen": "auc"}}, "Task 'seen' is a retrieval and is judged by its loss"),
        ({"metrics": {"like": "auc"}}, "Unknown task ['like'] in `metrics`"),
        ({"blocks": 1}, "`blocks` must be 2 or more"),
        ({"blocks": 51}, "`table` has 50 rows for 51 blocks"),
        ({"repeats": 0}, "`repeats` must be a positive integer."),
    ],
)
def test_wrong_arguments_are_named(model: MultiTaskModel, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        permutation_importance(model, small.table(), **arguments)  # type: ignore[arg-type]


def test_wrong_tables_are_named(model: MultiTaskModel) -> None:
    with pytest.raises(ValueError, match="price"):
        permutation_importance(model, small.table().drop(columns="price"))
    with pytest.raises(ValueError, match="liked"):
        permutation_importance(model, small.table().drop(columns="liked"), tasks=["liked"])
    with pytest.raises(ValueError, match="no labels of task 'seen'"):
        permutation_importance(model, to_batch(small.table(), small.preprocessor(), labels=False))
    with pytest.raises(TypeError, match=r"`table` must hold rows. Received: type=list"):
        permutation_importance(model, [1, 2])
    with pytest.raises(ValueError, match=re.escape("`table` has no row")):
        permutation_importance(model, small.table().iloc[:0])


def test_groups_keep_the_order_of_the_features() -> None:
    assert members_of(None, ["b", "a"]) == {"b": ["b"], "a": ["a"]}
    assert members_of({"b": ["a", "b"]}, ["b", "a"]) == {"b": ["b", "a"]}


def test_an_unknown_task_of_the_result_is_named() -> None:
    found = Importance(["x"], ["a"], *np.ones([3, 1, 1]), np.ones(1), {"x": ["x"]})
    with pytest.raises(ValueError, match="Unknown task"):
        found.order("b")
