from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl.data import Categorical, Numeric, Preprocessor, Schema, Vector, to_batch
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.tasks import Regression


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


def test_the_corpus_of_the_training_table_is_the_default() -> None:
    preprocessor = Preprocessor.fit(small.SCHEMA, small.table())
    given = MultiTaskModel(small.network(), small.tasks(num_uniform_negatives=2), preprocessor)
    wanted = Candidates.from_frame(small.table(), preprocessor)
    assert given.candidates is not None
    assert given.candidates.ids.tolist() == wanted.ids.tolist()
    for name, column in wanted.features.items():
        np.testing.assert_array_equal(given.candidates.features[name], column)
    assert given.candidates is given.candidates  # encoded once
    ranking = [Regression("rating")]
    assert MultiTaskModel(small.network(ranking, trunk=None), ranking, preprocessor).candidates is None


def test_candidates_that_disagree_are_named_once_a_corpus_is_needed() -> None:
    table = small.table().assign(price=np.arange(len(small.table()), dtype=float))
    preprocessor = Preprocessor.fit(small.SCHEMA, table)
    assert MultiTaskModel(small.network(), small.tasks(), preprocessor).candidates is None
    conflict = r"The training table holds no corpus: Candidate '.+' occurs with different values of column 'price'"
    with pytest.raises(ValueError, match=conflict):
        MultiTaskModel(small.network(), small.tasks(num_uniform_negatives=2), preprocessor)


def test_a_preprocessor_of_statistics_alone_holds_no_corpus() -> None:
    assert MultiTaskModel(small.network(), small.tasks(), small.preprocessor()).candidates is None


class Pieces:
    """A table that is read two rows at a time."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def chunks(self, columns: Any = None, rows: int = 0) -> Any:
        return (self.frame.iloc[start : start + 2] for start in range(0, len(self.frame), 2))

    def state(self, columns: Any) -> str:
        return ""


def test_pieces_give_the_same_candidates_as_the_table() -> None:
    schema = Schema([Categorical("user")], [Categorical("item"), Numeric("price"), Vector("size", 2)])
    order = [3, 0, 3, 1, 0, 4, 1, 1, 2, 0, 4]
    frame = pd.DataFrame({"user": "u", "item": [f"i{i}" for i in order]})
    frame["price"] = [np.nan if i == 1 else float(i) for i in order]  # missing for every row of "i1": no conflict
    frame["size"] = [[i, 2.0 * i] for i in order]
    collected = Preprocessor.fit(schema, Pieces(frame)).fitted_candidates
    assert collected is not None
    assert len(collected) == 5
    columns = collected.columns()
    assert columns["item"].tolist() == ["i3", "i0", "i1", "i4", "i2"]
    np.testing.assert_array_equal(columns["price"], [3, 0, np.nan, 4, 2])
    np.testing.assert_array_equal(columns["size"], [[3, 6], [0, 0], [1, 2], [4, 8], [2, 4]])
    for row, column in [(9, "price"), (3, "size"), (1, "price")]:  # against a preceding piece, and within one
        changed = frame.copy()
        changed.at[row, column] = [7.0, 7.0] if column == "size" else 7.0
        conflict = Preprocessor.fit(schema, Pieces(changed)).fitted_candidates
        assert conflict is not None
        assert f"column '{column}'" in conflict.conflict
        assert len(conflict) == 0
        with pytest.raises(ValueError, match=column):
            conflict.columns()


def test_rows_without_an_id_are_no_candidates_of_the_training_table() -> None:
    schema = Schema([Categorical("user")], [Categorical("item"), Numeric("price")])
    frame = pd.DataFrame({"user": "u", "item": ["b", None, None, None, "a", None], "price": [1.0, 2, 3, 4, 5, 6]})
    for source in (frame, Pieces(frame)):  # the second piece has no id at all
        collected = Preprocessor.fit(schema, source).fitted_candidates
        assert collected is not None
        assert collected.columns()["item"].tolist() == ["b", "a"]
        assert collected.columns()["price"].tolist() == [1, 5]


def test_empty_tables_are_named() -> None:
    with pytest.raises(ValueError, match="The table is empty"):
        Preprocessor.fit(small.SCHEMA, small.table()[:0])
    with pytest.raises(ValueError, match="The table is empty"):
        Candidates.from_frame(items()[:0], small.preprocessor())
    without = small.table().assign(item=None)
    assert MultiTaskModel(small.network(), small.tasks(), Preprocessor.fit(small.SCHEMA, without)).candidates is None
