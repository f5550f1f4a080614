"""A catalogue that shrinks below the width of the answers, and grows again."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import IdType, build, queries

from tests.serving.reference import FUSED, Reference, check_equal
from tfmtl._keras import tf
from tfmtl.data.distinct_candidates import distinct_candidates
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.serving import InvertedFile, add_candidates, export, replace_candidates, to_examples

WIDTH = 10
SETTINGS = [
    ("string", None),
    pytest.param("int64", InvertedFile(block=4, probes=99, int8=True), marks=pytest.mark.slow),
]


def with_candidates(ids: IdType, rows: list[int]) -> tuple[MultiTaskModel, pd.DataFrame, pd.DataFrame]:
    """Return a model with the items at `rows` of 30 as corpus, its table, and the table of the corpus."""
    model, frame = build(ids)
    table = frame.drop_duplicates("item_id").iloc[rows].reset_index(drop=True)
    candidates = Candidates.from_frame(table, model.preprocessor)
    return MultiTaskModel(model.network, model.tasks, model.preprocessor, candidates=candidates), frame, table


def check_answers(path: pathlib.Path, ids: IdType, rows: list[int]) -> None:
    """Compare all signatures that return ids with NumPy over all remaining candidates."""
    model, frame, table = with_candidates(ids, rows)
    query = queries(model, frame)
    reference = Reference(model, frame, query)
    version = tf.saved_model.load(str(path))

    def answer(signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in version.signatures[signature](**inputs).items()}

    check_equal(answer("retrieve", **query), reference.retrieve(WIDTH))
    check_equal(answer("recommend", **query), reference.recommend(WIDTH, depth=WIDTH))
    excluded = reference.retrieve(1)["ids"]
    named = np.repeat(np.asarray([[*table["item_id"][-2:], reference.missing]], excluded.dtype), 7, axis=0)
    named[::2] = reference.missing
    k = np.asarray([-1, 2, 99, 0, 1, 10, 5], np.int32)
    given = {"exclude_ids": excluded, "restrict_ids": named, "k": k}
    limits = {n: tf.constant(v.tolist(), None if v.dtype == object else v.dtype) for n, v in given.items()}
    weights = {f"weight_{name}": tf.fill([7], np.nan) for name in FUSED}
    position = {"position": tf.fill([7], tf.constant(-1, tf.int64))}
    expected = reference.retrieve(WIDTH, excluded, k, named)
    check_equal(answer("retrieve_filtered", **query, **limits), expected)
    check_equal(answer("retrieve_examples", examples=to_examples({**query, **limits})), expected)
    expected = reference.recommend(WIDTH, excluded, k, only=named, depth=WIDTH)
    check_equal(answer("recommend_filtered", **query, **limits, **weights, **position), expected)
    check_equal(answer("recommend_examples", examples=to_examples({**query, **limits})), expected)


@pytest.mark.parametrize(("ids", "search"), SETTINGS)
def test_any_number_of_candidates_is_served(ids: IdType, search: InvertedFile | None, tmp_path: pathlib.Path) -> None:
    """From 10 candidates, all of which are ranked, to 3, to 1, and to 14, more than at first."""
    model, _, table = with_candidates(ids, list(range(10)))
    folder = export(model, tmp_path / "model", max_k=WIDTH, search=search).parent
    check_answers(add_candidates(folder, table[:0], remove_ids=model_ids(ids, [0, 1, 3, 4, 5, 6, 8])), ids, [2, 7, 9])
    check_answers(replace_candidates(folder, with_candidates(ids, [25])[2]), ids, [25])
    with pytest.raises(ValueError, match=r"No candidate is left; keep at least one\. Received: candidates=0"):
        add_candidates(folder, table[:0], remove_ids=model_ids(ids, [25]))
    check_answers(add_candidates(folder, with_candidates(ids, list(range(13)))[2]), ids, [25, *range(13)])
    assert sorted(path.name for path in folder.iterdir()) == list("1234")


def model_ids(ids: IdType, rows: list[int]) -> np.ndarray:
    """Return the ids of the items at `rows` of 30."""
    model, _, table = with_candidates(ids, rows)
    return distinct_candidates(table, model.schema)[0]
