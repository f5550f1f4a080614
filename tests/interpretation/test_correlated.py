from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema
from tfmtl.interpretation import correlated_features
from tfmtl.interpretation.correlated import _basis, association
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import Regression

RNG = np.random.default_rng(7)
FLOATS = RNG.normal(size=3000)


def test_numbers_have_the_correlation_of_their_ranks() -> None:
    other = FLOATS + RNG.normal(size=3000)
    expected = pd.Series(FLOATS).corr(pd.Series(other), method="spearman")
    np.testing.assert_allclose(
        association(_basis(FLOATS[:, None]), _basis(np.exp(other)[:, None])), expected, atol=1e-3
    )


def test_categories_have_cramers_v() -> None:
    first = RNG.integers(0, 4, 3000).astype(np.int32)
    second = np.where(RNG.random(3000) < 0.5, first, RNG.integers(0, 4, 3000)).astype(np.int32)
    counts = pd.crosstab(first, second).to_numpy()
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    chi = ((counts - expected) ** 2 / expected).sum()
    np.testing.assert_allclose(association(_basis(first), _basis(second)), np.sqrt(chi / 3000 / 3), atol=2e-3)


def test_independent_features_have_none_even_with_many_values() -> None:
    first, second = (RNG.integers(0, 20, 500).astype(np.int32) for _ in range(2))
    assert association(_basis(first), _basis(second)) < 0.2
    assert association(_basis(first), _basis(first)) == pytest.approx(1.0)
    assert _basis(np.zeros([5, 1])).shape == (5, 0)


def _model(frame: pd.DataFrame) -> MultiTaskModel:
    schema = Schema([Categorical("city"), Categorical("country"), Numeric("x"), Numeric("y")], labels=[Label("z")])
    fitted = Preprocessor.fit(schema, frame)
    return MultiTaskModel(build_network(fitted, [Regression("z")]), [Regression("z")], fitted)


def test_groups_are_linked_features() -> None:
    city = RNG.integers(0, 6, 400)
    frame = pd.DataFrame(
        {"city": city.astype(str), "country": (city // 2).astype(str), "x": RNG.normal(size=400), "z": 1.0 * city}
    )
    frame["y"] = np.where(RNG.random(400) < 0.1, np.nan, -(frame["x"] ** 3))
    model = _model(frame)
    assert correlated_features(model, frame) == {"city+country": ["city", "country"], "x+y": ["x", "y"]}
    assert correlated_features(model, frame, max_rows=200, seed=1) == correlated_features(model, frame)


def test_one_row_has_no_groups() -> None:
    assert correlated_features(small.model(), small.table().iloc[:1]) == {}


def test_a_threshold_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`threshold` must be above 0 and at most 1. Received: threshold=0."):
        correlated_features(small.model(), small.table(), threshold=0)
