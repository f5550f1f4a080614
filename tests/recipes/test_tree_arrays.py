"""The arrays of trees beside scikit-learn's own predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import ensemble

from tfmtl.layers.boosted_trees import LARGEST
from tfmtl.recipes.tree_arrays import TreeArrays, _rounded_down

RNG = np.random.default_rng(0)
ROWS = 1500
CATEGORICAL = np.array([False, True, False, True])


def _matrix() -> np.ndarray:
    columns = [RNG.normal(size=ROWS), RNG.integers(0, 40, ROWS), RNG.exponential(size=ROWS).round(1)]
    matrix = np.column_stack([*columns, RNG.integers(3, 9, ROWS)]).astype(np.float32)
    matrix[RNG.random(ROWS) < 0.2, 0] = np.nan
    matrix[RNG.random(ROWS) < 0.1, 1] = np.nan
    return matrix


MATRIX = _matrix()
LABELS = (
    np.where(np.isnan(MATRIX[:, 0]), 2.0, MATRIX[:, 0])
    + np.sin(7 * np.nan_to_num(MATRIX[:, 1], nan=5))
    + (MATRIX[:, 2] > 1)
)
HOSTILE = [[np.nan] * 4, [np.inf, 45, -np.inf, 1], [0, 300, 1, 8], [-1e30, -3, 1e30, 0], [0.0, 0.0, 0.7, 3.0]]
TEST = np.concatenate([MATRIX, np.array(HOSTILE, np.float32)])


def _classifier(labels: Any, **arguments: Any) -> Any:
    found = ensemble.HistGradientBoostingClassifier(max_iter=12, **arguments)
    return found.fit(MATRIX[:1000], labels[:1000])


@pytest.mark.parametrize("categorical", [CATEGORICAL, np.zeros(4, np.bool_)], ids=["categories", "numbers"])
def test_a_regression_is_equal(categorical: Any) -> None:
    estimator = ensemble.HistGradientBoostingRegressor(max_iter=25, categorical_features=categorical)
    estimator.fit(MATRIX[:1000], LABELS[:1000])
    arrays = TreeArrays.of(estimator, 1)
    assert (len(arrays.split_feature) > 0) == categorical.any()
    np.testing.assert_allclose(
        arrays.layer("trees")(TEST).numpy()[:, 0], estimator.predict(TEST.astype(np.float64)), atol=1e-6, rtol=1e-6
    )


def test_an_event_has_the_log_odds() -> None:
    estimator = _classifier(LABELS > 1, categorical_features=CATEGORICAL)
    found = TreeArrays.of(estimator, 1).layer("trees")(TEST).numpy()
    np.testing.assert_allclose(found[:, 0], estimator.decision_function(TEST), atol=1e-6, rtol=1e-6)


def test_classes_have_one_output_each() -> None:
    estimator = _classifier(np.digitize(LABELS, [0, 1, 2]), categorical_features=CATEGORICAL)
    found = TreeArrays.of(estimator, 4).layer("trees")(TEST).numpy()
    np.testing.assert_allclose(found, estimator.decision_function(TEST), atol=2e-6, rtol=1e-6)


def test_classes_without_rows_are_rarer_than_all_others() -> None:
    two = _classifier(np.where(LABELS > 1, 3, 1), categorical_features=CATEGORICAL)
    found = TreeArrays.of(two, 4).layer("trees")(TEST).numpy()
    np.testing.assert_allclose(found[:, 3] - found[:, 1], two.decision_function(TEST), atol=1e-6, rtol=1e-6)
    start = TreeArrays.of(two, 4).bias
    assert start[0] == start[2] < min(start[1], start[3])
    many = _classifier(np.digitize(LABELS, [0, 1]) + 1, categorical_features=CATEGORICAL)
    found = TreeArrays.of(many, 5).layer("trees")(TEST).numpy()
    np.testing.assert_allclose(found[:, 1:4], many.decision_function(TEST), atol=1e-6, rtol=1e-6)


def test_thresholds_are_rounded_so_that_comparisons_are_equal() -> None:
    thresholds = np.array([0.1, 0.5, -0.3, 1e-50, -1e-50, LARGEST])
    rounded = _rounded_down(thresholds)
    assert rounded.dtype == np.float32
    for exact, found in zip(thresholds[:-1], rounded[:-1], strict=True):
        near = np.nextafter(np.float32(exact), np.float32([-9, 9]))
        for x in (np.float32(exact), *near):
            assert (x <= found) == (np.float64(x) <= exact)
    assert rounded[-1] == LARGEST
