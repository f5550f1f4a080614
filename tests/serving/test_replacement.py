from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import MAX_K, IdType, build, identifier, queries

from tests.serving.exports import Exports
from tests.serving.reference import Reference, check_equal
from tfmtl._keras import tf
from tfmtl._saved_files import DamagedFileError
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.data.distinct_candidates import raw_candidate_ids
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.serving import InvertedFile, add_candidates, export, replace_candidates
from tfmtl.serving.replacement import Checkpoint
from tfmtl.serving.versions import MANIFEST, read_manifest
from tfmtl.tasks import Retrieval

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
    version = tf.saved_model.load(str(path))
    loaded = version.signatures
    shapes = {v.name.split(":")[0]: v.shape.as_list() for v in version.read_variables}
    assert shapes["corpus_ids"] == shapes["candidate_item_id"] == [45]  # Keras 3 loads no variable without a shape
    assert shapes["candidate_genres"] == [45, 3]
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
        (frame[:4], "exported before versions could have fewer .*; keep at least 10, or .* Received: candidates=4"),
        (frame[:0], "The table is empty"),
        (frame.drop(columns="price"), "price"),
        (frame.assign(item_id=""), "missing"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            replace_candidates(tmp_path / "model", table)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["1"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A model with the candidate features `ean` and `item_id`, in this order; the second is the id."""
    frame = pd.DataFrame({"user_id": ["a", "b", "c", "d"], "item_id": [f"i{n}" for n in range(4)], "bought": 1.0})
    frame["ean"] = "ean" + frame["item_id"].str[1:]
    schema = Schema(
        [Categorical("user_id")],
        [Categorical("ean"), Categorical("item_id")],
        labels=[Label("bought")],
        candidate_id="item_id",
    )
    tasks = [Retrieval("bought")]
    preprocessor = Preprocessor.fit(schema, frame)
    network = build_network(preprocessor, tasks, embedding_dim=2, tower_units=[2])
    model = MultiTaskModel(network, tasks, preprocessor)
    return export(model, tmp_path_factory.mktemp("shop") / "model", max_k=3).parent


def test_ids_are_those_of_the_column_that_the_schema_names(shop: pathlib.Path) -> None:
    new = pd.DataFrame({"ean": [f"ean{n}" for n in (4, 6, 7, 9)], "item_id": ["i4", "i6", "i7", "i9"]})
    path = replace_candidates(shop, new, version=2)
    answer = tf.saved_model.load(str(path)).signatures["retrieve"](user_id=tf.constant(["a"]))
    assert set(answer["ids"].numpy()[0].tolist()) < {b"i4", b"i6", b"i7", b"i9"}


@pytest.mark.parametrize("removed", [["i1", "i3"], [b"i1", b"i3"], np.asarray(["i3", "i1"]), pd.Series(["i1", "i3"])])
def test_ids_to_remove_have_any_type_of_the_column(shop: pathlib.Path, tmp_path: pathlib.Path, removed: Any) -> None:
    shutil.copytree(shop / "1", tmp_path / "1")
    new = pd.DataFrame({"ean": ["ean8", "ean9"], "item_id": ["i8", "i9"]})
    path = add_candidates(tmp_path, new, remove_ids=removed)
    assert Checkpoint(path).value("corpus_ids").tolist() == [b"i0", b"i2", b"i8", b"i9"]


@pytest.mark.parametrize(
    ("removed", "sentence"),
    [
        ([3], "`remove_ids` must hold ids of candidates; the version lacks some. Received: absent=[b'3']."),
        (["i1", "i7"], "absent=[b'i7']"),
        ("i1", "`remove_ids` must be a list of ids. Received: remove_ids='i1'."),
        (3, "`remove_ids` must be a list of ids. Received: remove_ids=3."),
        ([0.5], "`remove_ids` must be a list of ids like those of the candidates: Column 'item_id' must hold strings"),
    ],
)
def test_bad_ids_to_remove_are_one_sentence(
    shop: pathlib.Path, tmp_path: pathlib.Path, removed: Any, sentence: str
) -> None:
    shutil.copytree(shop / "1", tmp_path / "1")
    new = pd.DataFrame({"ean": ["ean8", "ean9"], "item_id": ["i8", "i9"]})
    with pytest.raises(ValueError, match=re.escape(sentence)):
        add_candidates(tmp_path, new, remove_ids=removed)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("ids", [[7, 8], np.asarray([7, 8], np.int8), [7.0, 8.0], pd.array([7, 8], "Int64")])
def test_integer_ids_are_converted(ids: Any) -> None:
    schema = Schema([Categorical("user")], [Categorical("item", dtype="int64")])
    assert raw_candidate_ids(ids, schema, "remove_ids") == [7, 8]
    with pytest.raises(ValueError, match=r"`remove_ids` must be .* candidates: Column 'item' must hold integers"):
        raw_candidate_ids(["7"], schema, "remove_ids")


def test_a_version_that_does_not_hold_the_id_is_refused(shop: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Cards of earlier versions described each feature and nothing else."""
    shutil.copytree(shop / "1", tmp_path / "1")
    manifest = read_manifest(tmp_path / "1")
    schema = manifest["card"]["schema"]
    manifest["card"]["schema"] = {
        feature["name"]: {"role": role, **{k: v for k, v in feature.items() if k != "name"}}
        for role in ("query", "candidate")
        for feature in schema[role]
    }
    (tmp_path / "1" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="before versions held the name of the candidate id; export the model again"):
        replace_candidates(tmp_path, pd.DataFrame({"ean": ["e"], "item_id": ["i"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_version_with_one_possible_id_is_replaced(tmp_path: pathlib.Path) -> None:
    """The golden export has the earlier card."""
    _, frame = build()
    shutil.copytree(GOLDEN, tmp_path / "1")
    path = replace_candidates(tmp_path, frame[frame["item_id"] != "i3"])
    assert read_manifest(path)["card"]["schema"]["candidate_id"] == "item_id"
    assert read_manifest(path)["candidates"] == 29


@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "pipe"])
@pytest.mark.parametrize("inner", ["assets/words.txt", "assets.extra/more", "variables/link", "link"])
def test_a_link_is_refused_and_its_target_not_published(tmp_path: pathlib.Path, kind: str, inner: str) -> None:
    shutil.copytree(GOLDEN, tmp_path / "model" / "1")
    secret, link = tmp_path / "secret", tmp_path / "model" / "1" / inner
    link.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(link)
    else:
        secret.mkdir() if kind == "folder" else None
        secret.write_text("key") if kind == "file" else None
        link.symlink_to(secret)
    what = "no plain file" if kind == "pipe" else "a symbolic link"
    with pytest.raises(ValueError, match=f"{inner} is {what}, which is not copied into a version"):
        replace_candidates(tmp_path / "model", build()[1])
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["1"]


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "assets.extra/tfmtl.json"]
)
def test_a_damaged_version_is_no_source(shop: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    """A changed bit of a constant in the graph would otherwise give other answers without any error."""
    path = pathlib.Path(shutil.copytree(shop / "1", tmp_path / "1")) / name
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=rf"{name} is damaged: .*; export the model again"):
            replace_candidates(tmp_path, pd.DataFrame({"ean": ["e"], "item_id": ["i"]}))
    path.unlink()
    if "json" not in name:
        with pytest.raises(DamagedFileError, match=rf"{name} is damaged: it is missing; export the model again"):
            replace_candidates(tmp_path, pd.DataFrame({"ean": ["e"], "item_id": ["i"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
