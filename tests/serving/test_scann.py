from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
from servers.models import MAX_K, IdType, build, queries
from tensorflow_recommenders.layers import factorized_top_k

from tests.serving.reference import Reference, check_equal
from tfmtl._keras import tf
from tfmtl.serving import CorpusIndex, ScaNN, add_candidates, export, replace_candidates
from tfmtl.serving.scann import ScaNNIndex
from tfmtl.serving.verification import foreign_operations
from tfmtl.serving.versions import MANIFEST

# The package may be installed although its operations do not load, because they belong to another TensorFlow.
needs_scann = pytest.mark.skipif(not factorized_top_k._HAVE_SCANN, reason="needs scann and the TensorFlow it is for")

GOLDEN = pathlib.Path(__file__).parents[2] / "saved_models" / "golden" / "1"
RNG = np.random.default_rng(3)
CENTRES = RNG.normal(size=(12, 6))
VECTORS = (CENTRES[RNG.integers(0, 12, 900)] + RNG.normal(0, 0.3, (900, 6))).astype(np.float32)
QUERIES = (CENTRES[RNG.integers(0, 12, 80)] + RNG.normal(0, 0.3, (80, 6))).astype(np.float32)
IDS = np.arange(100, 1000)
WHOLE = {"num_leaves": 4, "num_leaves_to_search": 4, "num_reordering_candidates": 10_000}


def index(max_k: int = 20, **settings: float) -> ScaNNIndex:
    return ScaNNIndex(IDS, tf.constant(VECTORS), max_k, tf.constant(QUERIES), ScaNN(**settings))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An export that searches all leaves; do not change it."""
    return export(build()[0], tmp_path_factory.mktemp("scann") / "model", max_k=MAX_K, search=ScaNN(**WHOLE))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_leaves": 0}, "`num_leaves` must be a positive integer"),
        ({"dimensions_per_block": 1.5}, "`dimensions_per_block` must be a positive integer"),
        ({"min_recall": 1.5}, "`min_recall` must"),
    ],
)
def test_bad_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaNN(**settings)


def test_without_scann_the_error_names_the_command_that_installs_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factorized_top_k, "_HAVE_SCANN", False)
    with pytest.raises(ImportError, match=r'this is \d\.\d+\.\d+\): pip install "tensorflow~=2\.20\.0" scann; or'):
        export(build()[0], tmp_path / "model", max_k=MAX_K, search=ScaNN())
    assert list(tmp_path.iterdir()) == []


def test_too_few_candidates() -> None:
    with pytest.raises(ValueError, match="needs 16 candidates"):
        ScaNNIndex(IDS[:15], tf.constant(VECTORS[:15]), 3, tf.constant(QUERIES), ScaNN())


@needs_scann
def test_recall_is_that_of_the_search_and_scores_are_exact() -> None:
    exact = CorpusIndex(IDS, tf.constant(VECTORS), 20)
    near = index(min_recall=0.9, num_leaves=60)
    wanted, found = exact.search(tf.constant(QUERIES)), near.search(tf.constant(QUERIES))
    pairs = list(zip(wanted.rows.numpy(), found.rows.numpy(), found.valid.numpy(), strict=True))
    recall = np.mean([len(np.intersect1d(one, other[valid])) / 20 for one, other, valid in pairs])
    described = near.describe()
    assert described["kind"] == "ScaNN"
    assert described["recall"] == pytest.approx(recall, abs=1e-3)
    assert 0.9 <= recall < 1
    assert described["leaves_searched"] < described["leaves"] == 60
    scores = np.take_along_axis(QUERIES @ VECTORS.T, found.rows.numpy(), 1)
    np.testing.assert_allclose(found.scores, np.where(found.valid, scores, 0), rtol=1e-5)
    ordered = np.where(found.valid, found.scores, -np.inf)
    assert (ordered[:, 1:] <= ordered[:, :-1]).all()
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5)
    np.testing.assert_allclose(found.deviation, wanted.deviation, rtol=1e-5)


@needs_scann
@pytest.mark.parametrize("rows", [80, 1, 0])
def test_all_leaves_are_the_exact_search_with_exclusions(rows: int) -> None:
    exact, near = CorpusIndex(IDS, tf.constant(VECTORS), 20), index(**WHOLE)
    query = tf.constant(QUERIES[:rows])
    best = exact.search(query)
    first = exact.ids(best.rows, best.valid).numpy()
    for exclude in (None, first[:, :7], np.full_like(first, -1), np.tile(IDS, (rows, 1))):
        banned = None if exclude is None else tf.constant(exclude)
        wanted, found = exact.search(query, banned), near.search(query, banned)
        np.testing.assert_array_equal(found.valid, wanted.valid)
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


@needs_scann
def test_excluded_candidates_are_replaced_by_the_next() -> None:
    """With only `max_k` reordered candidates, seven exclusions must not leave seven positions empty."""
    near = index(min_recall=0.0, num_leaves=1, num_reordering_candidates=20)
    first = near.search(tf.constant(QUERIES))
    found = near.search(tf.constant(QUERIES), near.ids(first.rows, first.valid)[:, :7])
    assert found.valid.numpy().all()
    both = np.concatenate([first.rows[:, :7], found.rows], axis=1)
    assert all(len(np.unique(row)) == 27 for row in both)


@needs_scann
def test_a_small_leaf_is_completed_by_the_exact_search() -> None:
    near = index(max_k=300, min_recall=0.0, num_leaves=30, num_leaves_to_search=1)
    found = near.search(tf.constant(QUERIES))
    exact = CorpusIndex(IDS, tf.constant(VECTORS), 300).search(tf.constant(QUERIES))
    assert found.valid.numpy().all()
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5)


@needs_scann
def test_recall_that_is_not_reached_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ScaNN finds 0\.\d+ of the first 20 candidates with 1 of 30 leaves and 20 "):
        index(num_leaves=30, num_leaves_to_search=1, num_reordering_candidates=20)
    with pytest.raises(ValueError, match=r"with 30 of 30 leaves and 20 .* give more `num_leaves_to_search`"):
        index(num_leaves=30, num_reordering_candidates=20, dimensions_per_block=6)


@needs_scann
def test_refused_recall_publishes_nothing(tmp_path: pathlib.Path) -> None:
    search = ScaNN(num_leaves=10, num_leaves_to_search=1, num_reordering_candidates=1)
    with pytest.raises(ValueError, match=r"less than `min_recall` 0\.95"):
        export(build()[0], tmp_path / "model", max_k=MAX_K, search=search)
    assert list(tmp_path.iterdir()) == []


@needs_scann
def test_exported_bundle_answers_as_the_exact_one(bundle: pathlib.Path) -> None:
    model, frame = build()
    query = queries(model, frame)
    reference = Reference(model, frame, query)
    loaded = tf.saved_model.load(str(bundle)).signatures
    check_equal(loaded["retrieve"](**query), reference.retrieve(MAX_K))
    check_equal(loaded["recommend"](**query), reference.recommend(MAX_K))
    exclude = reference.retrieve(3)["ids"]
    limits = {"exclude_ids": exclude, "restrict_ids": np.full_like(exclude, ""), "k": np.full(7, -1, "i4")}
    limits = {n: tf.constant(v.tolist(), None if v.dtype == object else v.dtype) for n, v in limits.items()}
    check_equal(loaded["retrieve_filtered"](**query, **limits), reference.retrieve(MAX_K, exclude))


@needs_scann
def test_exported_bundle_names_the_operations_that_its_server_needs(bundle: pathlib.Path) -> None:
    operations = ["Scann>ScannSearchBatched", "Scann>TensorsToScann"]
    assert foreign_operations(bundle) == operations
    manifest = json.loads((bundle / MANIFEST).read_text())
    assert manifest["foreign_operations"] == operations
    assert manifest["search"]["recall"] == 1.0
    assert manifest["search"]["library"].startswith("scann 1.")
    sentence = "lacks operations that this model needs: `Scann>ScannSearchBatched`, `Scann>TensorsToScann`, of scann 1."
    assert sentence in (bundle / "assets.extra" / "model_card.md").read_text()


@needs_scann
def test_no_keras_model_is_saved(bundle: pathlib.Path) -> None:
    assert not (bundle / "keras_metadata.pb").exists()
    assert not hasattr(tf.saved_model.load(str(bundle)), "keras_api")


@needs_scann
@pytest.mark.parametrize("ids", ["int64"])
def test_sample_queries_and_numbers_as_ids(ids: IdType, tmp_path: pathlib.Path) -> None:
    model, frame = build(ids)
    search = ScaNN(min_recall=0.8, queries=frame.iloc[np.arange(100) % 50])
    path = export(model, tmp_path / "model", max_k=MAX_K, search=search)
    query = queries(model, frame)
    answer = tf.saved_model.load(str(path)).signatures["retrieve"](**query)
    best = Reference(model, frame, query).retrieve(MAX_K)["scores"]
    assert (answer["scores"].numpy() <= best + 1e-5).all()
    described = json.loads((path / MANIFEST).read_text())["search"]
    assert (described["sample_queries"], described["recall"] >= 0.8) == (100, True)


@needs_scann
@pytest.mark.parametrize("change", [replace_candidates, add_candidates])
def test_other_candidates_are_refused(change: type, bundle: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"searches by ScaNN, which is learned from the candidates .* export the"):
        change(bundle.parent, build()[1])
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("change", [replace_candidates, add_candidates])
def test_other_candidates_of_any_unknown_search_are_refused(change: type, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(shutil.copytree(GOLDEN, tmp_path / "model" / "1"))
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["foreign_operations"] == []
    manifest["search"]["kind"] = "ScaNN"
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="searches by ScaNN"):
        change(tmp_path / "model", build()[1])
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["1"]
