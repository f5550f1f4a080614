from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
from servers.models import MAX_K, IdType, build, identifier, queries

from tests.serving.exports import Exports
from tests.serving.reference import Reference, check_equal
from tfmtl._keras import tf
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.serving import InvertedFile, add_candidates, export, replace_candidates

GOLDEN = pathlib.Path(__file__).parents[2] / "saved_models" / "golden" / "1"


def other(ids: IdType) -> tuple[MultiTaskModel, pd.DataFrame, pd.DataFrame]:
    """Return a model with other candidates -- 25 of 30, one of them changed, and 20 new ones -- and their table."""
    model, frame = build(ids)
    items = frame.drop_duplicates("item_id").sort_values("item_id")
    new = items[:20].assign(item_id=[identifier(ids, "new", 1000 + i) for i in range(20)], price=3.0)
    table = pd.concat([items[5:], new]).reset_index(drop=True)
    table.loc[0, "price"] = 11.0
    candidates = Candidates.from_frame(table, model.preprocessor)
    return MultiTaskModel(model.network, model.tasks, model.preprocessor, candidates=candidates), frame, table


@pytest.mark.parametrize(("ids", "search"), [("string", None), ("int64", InvertedFile(block=4, probes=99, int8=True))])
def test_the_new_version_answers_for_the_new_candidates(
    ids: IdType, search: InvertedFile | None, exports: Exports, tmp_path: pathlib.Path
) -> None:
    changed, frame, table = other(ids)
    model, _ = build(ids)
    if search is None:
        shutil.copytree(exports.of(ids), tmp_path / "model")
    else:
        export(model, tmp_path / "model", max_k=MAX_K, search=search)
    path = replace_candidates(tmp_path / "model", table)
    assert path.name == "2"
    query = queries(model, frame)
    reference = Reference(changed, frame, query)
    loaded = tf.saved_model.load(str(path)).signatures
    check_equal(loaded["retrieve"](**query), reference.retrieve(MAX_K))
    check_equal(loaded["recommend"](**query), reference.recommend(MAX_K))
    exclude = reference.retrieve(3)["ids"]
    limits = {
        "exclude_ids": exclude,
        "restrict_ids": np.full_like(exclude, reference.missing),
        "k": np.full(7, -1, "i4"),
    }
    limits = {n: tf.constant(v.tolist(), None if v.dtype == object else v.dtype) for n, v in limits.items()}
    check_equal(loaded["retrieve_filtered"](**query, **limits), reference.retrieve(MAX_K, exclude))
    assert '"candidates": 45' in (path / "assets.extra" / "tfmtl.json").read_text()


@pytest.mark.parametrize("ids", ["int64"])
def test_candidates_are_added_and_removed(ids: IdType, exports: Exports, tmp_path: pathlib.Path) -> None:
    changed, frame, table = other(ids)
    model, _ = build(ids)
    shutil.copytree(exports.of(ids), tmp_path / "model")
    old = model.candidates.ids
    new = table[~table["item_id"].isin(old) | (table.index == 0)]
    gone = [i for i in old if i not in set(table["item_id"])]
    path = add_candidates(tmp_path / "model", new, remove_ids=gone)
    query = queries(model, frame)
    expected = Reference(changed, frame, query).retrieve(MAX_K)
    answer = tf.saved_model.load(str(path)).signatures["retrieve"](**query)
    np.testing.assert_allclose(answer["scores"], expected["scores"], rtol=1e-5, atol=1e-5)


def test_bad_tables_leave_nothing(tmp_path: pathlib.Path) -> None:
    _, frame = build()
    shutil.copytree(GOLDEN, tmp_path / "model" / "1")
    for table, message in (
        (frame[:4], "`max_k` must be at most the number of candidates, 4"),
        (frame.drop(columns="price"), "price"),
        (frame.assign(item_id=""), "missing"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            replace_candidates(tmp_path / "model", table)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["1"]
