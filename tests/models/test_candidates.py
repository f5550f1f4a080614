from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl.data import Categorical, Preprocessor, Schema, to_batch
from tfmtl.models import Candidates


def items(**changed: Any) -> pd.DataFrame:
    return pd.DataFrame({"item": ["i3", "i0", "i3", "new"], "price": [4.0, np.nan, 4.0, 2.0], **changed})


def test_every_candidate_comes_once_in_the_order_of_the_table() -> None:
    found = Candidates.from_frame(items(), small.preprocessor())
    assert len(found) == 3
    assert found.ids.tolist() == ["i3", "i0", "new"]
    unknown = 1
    assert found.features["item"].numpy()[-1] == unknown
    assert found.features["price"].numpy()[:, 1].tolist() == [0, 1, 0]  # the missing price has its flag
    assert set(found.features) == {"item", "price"}


def test_interactions_hold_the_features_of_their_candidates() -> None:
    found = Candidates.from_frame(small.table(), small.preprocessor())
    rows = to_batch(small.table(), small.preprocessor()).features
    positions = [found.ids.tolist().index(item) for item in small.table()["item"]]
    for name, column in found.features.items():
        np.testing.assert_allclose(column.numpy()[positions], rows[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"price": [4.0, 1.0, 5.0, 2.0]}, "Candidate 'i3' occurs with different values of column 'price';"),
        ({"price": [4.0, 1.0, np.nan, 2.0]}, "Candidate 'i3' occurs with different values of column 'price';"),
        ({"item": ["i3", None, "i3", ""]}, "Candidate id column 'item' has 2 missing values."),
        ({"price": ["a"] * 4}, "Column 'price' must hold numbers;"),
    ],
)
def test_bad_corpora_are_named(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Candidates.from_frame(items(**changed), small.preprocessor())


def test_an_absent_column_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("The table lacks the columns ['price']")):
        Candidates.from_frame(items()[["item"]], small.preprocessor())


def test_a_schema_without_candidates_has_no_corpus() -> None:
    schema, frame = Schema([Categorical("user")]), pd.DataFrame({"user": ["a"]})
    with pytest.raises(ValueError, match="The schema has no candidate features, so there is no corpus"):
        Candidates.from_frame(frame, Preprocessor.fit(schema, frame))
