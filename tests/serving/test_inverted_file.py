from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.models import MAX_K, build, queries

from tests.serving.exports import Exports
from tests.serving.reference import Reference, check_equal
from tfmtl._keras import tf
from tfmtl.serving import CorpusIndex, InvertedFile, export
from tfmtl.serving import blocks as module
from tfmtl.serving.inverted_file import InvertedFileIndex

RNG = np.random.default_rng(3)
CENTRES = RNG.normal(size=(12, 6))
VECTORS = (CENTRES[RNG.integers(0, 12, 900)] + RNG.normal(0, 0.3, (900, 6))).astype(np.float32)
QUERIES = (CENTRES[RNG.integers(0, 12, 80)] + RNG.normal(0, 0.3, (80, 6))).astype(np.float32)
IDS = np.arange(100, 1000)


def test_the_recall_is_that_of_queries_that_did_not_choose_the_search() -> None:
    # Means of 40 indices: on the queries that chose the probes the recall is above that of new queries; the stored
    # recall is not.
    rng = np.random.default_rng(0)
    search = InvertedFile(block=16, min_recall=0.95)
    blocks = search.blocks(VECTORS, QUERIES)
    stored, chosen, new = [], [], []
    for _ in range(40):
        few, many = (
            (CENTRES[rng.integers(0, 12, n)] + rng.normal(0, 0.3, (n, 6))).astype(np.float32) for n in (16, 64)
        )
        probes, recall = search.choose_probes(blocks, VECTORS, few, 20)
        given = InvertedFile(block=16, probes=probes, min_recall=0.01)
        new.append(given.choose_probes(blocks, VECTORS, many, 20)[1])
        chosen.append(given.choose_probes(blocks, VECTORS, np.repeat(few[::2], 2, axis=0), 20)[1])
        stored.append(recall)
    assert min(chosen) >= 0.95
    assert np.mean(chosen) - np.mean(new) > 0.015
    assert abs(np.mean(stored) - np.mean(new)) < 0.01


def test_few_sample_queries_are_warned_of() -> None:
    model, frame = build()
    with pytest.warns(UserWarning, match="is measured on 50 `queries`, half of which choose the search; give at least"):
        InvertedFile(queries=frame[:50]).sample(model.schema, model.preprocessor.statistics)


def test_blocks_hold_every_candidate_once() -> None:
    blocks = InvertedFile(block=16).blocks(VECTORS, QUERIES)
    assert blocks.shape[1] == 16
    assert sorted(blocks[blocks >= 0]) == list(range(900))
    assert (blocks >= 0).any(axis=1).all()
    np.testing.assert_array_equal(blocks, InvertedFile(block=16).blocks(VECTORS, QUERIES))


def test_two_steps_of_clusters_hold_every_candidate_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY", 8)
    blocks = InvertedFile(block=16, clusters=30).blocks(VECTORS, QUERIES)
    assert sorted(blocks[blocks >= 0]) == list(range(900))
    found, first = module.cluster(VECTORS, 30, seed=0), module.cluster(VECTORS, 5, seed=0)  # 5: the root of 30
    np.testing.assert_array_equal(found // 8, first)
    inner = [np.unique(found[first == number]) for number in range(5)]
    sizes = np.bincount(first)
    assert [len(numbers) for numbers in inner] == [min(8, max(1, size * 30 // 900)) for size in sizes]


def test_probes_reach_the_recall_of_the_first_blocks() -> None:
    """Blocks (1, 0), (0, 1), (-1, 0) of two candidates each, those of query (3, 2) in the first and the second."""
    vectors = np.concatenate([row * [[1.0], [0.9]] for row in np.float32([[1, 0], [0, 1], [-1, 0]])]).astype(np.float32)
    blocks, query = np.array([[0, 1], [2, 3], [4, 5]], np.int32), np.float32([[3, 2]])
    for k, least, expected in [(1, 0.99, (1, 1.0)), (2, 0.99, (1, 1.0)), (3, 0.99, (2, 1.0)), (4, 0.5, (2, 1.0))]:
        assert InvertedFile(block=2, min_recall=least).choose_probes(blocks, vectors, query, k) == expected
    # Candidates 0, 1 and 2 are the best three: one block holds two of them.
    assert InvertedFile(block=2, probes=1, min_recall=0.6).choose_probes(blocks, vectors, query, 3) == (1, 2 / 3)
    assert InvertedFile(block=2, probes=9).choose_probes(blocks, vectors, query, 3) == (3, 1.0)


@pytest.mark.parametrize("int8", [False, True])
def test_recall_is_that_of_the_search_and_scores_are_exact(int8: bool) -> None:
    exact = CorpusIndex(IDS, tf.constant(VECTORS), 20)
    index = InvertedFileIndex(IDS, tf.constant(VECTORS), 20, QUERIES, InvertedFile(block=16, min_recall=0.9, int8=int8))
    wanted, found = exact.search(tf.constant(QUERIES)), index.search(tf.constant(QUERIES))
    pairs = list(zip(wanted.rows.numpy(), found.rows.numpy(), strict=True))
    recall = np.mean([len(np.intersect1d(one, other)) / 20 for one, other in pairs[1::2]])  # the others chose probes
    described = index.describe()
    assert described["recall"] == pytest.approx(recall, abs=1e-3)
    assert 0.88 <= recall < 1
    assert described["probes"] < described["blocks"] / 3
    scores = np.take_along_axis(QUERIES @ VECTORS.T, found.rows.numpy(), 1)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert found.valid.numpy().all()
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5)
    np.testing.assert_allclose(found.deviation, wanted.deviation, rtol=1e-5)


@pytest.mark.parametrize("int8", [False, True])
def test_all_blocks_are_the_exact_search_with_exclusions(int8: bool) -> None:
    exact = CorpusIndex(IDS, tf.constant(VECTORS), 20)
    index = InvertedFileIndex(IDS, tf.constant(VECTORS), 20, QUERIES, InvertedFile(block=16, probes=10_000, int8=int8))
    best = exact.search(tf.constant(QUERIES))
    first = exact.ids(best.rows, best.valid).numpy()
    for exclude in (first[:, :7], np.full_like(first, -1), np.tile(IDS, (80, 1))):
        banned = tf.constant(exclude)
        wanted, found = exact.search(tf.constant(QUERIES), banned), index.search(tf.constant(QUERIES), banned)
        np.testing.assert_array_equal(found.valid, wanted.valid)
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


@pytest.fixture(scope="module")
def both() -> tuple[CorpusIndex, InvertedFileIndex, InvertedFileIndex]:
    """The exact search, and inverted files of which all blocks and two blocks are searched."""
    whole, few = InvertedFile(block=16, probes=10_000), InvertedFile(block=16, probes=2, min_recall=0.0)
    made = (InvertedFileIndex(IDS, tf.constant(VECTORS), 20, QUERIES, search) for search in (whole, few))
    return (CorpusIndex(IDS, tf.constant(VECTORS), 20), *made)


@given(st.integers(0, 3), st.integers(0, 1000), st.integers(0, 900), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_exclusions_of_any_size_leave_as_many_hits_as_the_exact_search(
    both: Any, rows: int, width: int, excluded: int, seed: int
) -> None:
    exact, whole, few = both
    rng = np.random.default_rng(seed)
    best = exact.search(tf.constant(QUERIES[:rows])).rows.numpy()
    exclude = rng.choice([-1, 5, 10**12], [rows, max(width, excluded + 20)])  # missing, and outside of the corpus
    for i in range(rows):
        exclude[i, :20] = IDS[best[i]]
        exclude[i, 20 : 20 + excluded] = rng.permutation(IDS)[:excluded]
    banned, query = tf.constant(rng.permuted(exclude, axis=1)), tf.constant(QUERIES[:rows])
    wanted, found, quick = (index.search(query, banned) for index in (exact, whole, few))
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.valid, wanted.valid)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
    np.testing.assert_array_equal(quick.valid, wanted.valid)
    for i in range(rows):
        ids = IDS[quick.rows[i][quick.valid[i]]]
        assert not set(ids) & set(exclude[i])
        assert len(set(ids)) == len(ids)


def test_blocks_that_hold_too_few_candidates_are_completed_by_the_exact_search(both: Any) -> None:
    exact, _, _ = both
    small = InvertedFileIndex(IDS, tf.constant(VECTORS), 20, QUERIES, InvertedFile(block=16, probes=1, min_recall=0.0))
    wanted, found = exact.search(tf.constant(QUERIES)), small.search(tf.constant(QUERIES))
    np.testing.assert_array_equal(found.rows, wanted.rows)
    assert found.valid.numpy().all()


def test_sixty_thousand_exclusions_take_little_memory() -> None:
    """Every pair of a hit and an exclusion would take 3.6 GB."""
    script = (
        "import resource, numpy as np\n"
        "from tfmtl._keras import tf\n"
        "from tfmtl.serving import InvertedFile\n"
        "from tfmtl.serving.inverted_file import InvertedFileIndex\n"
        "vectors = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)\n"
        "settings = InvertedFile(block=16, probes=40, min_recall=0.0)\n"
        "index = InvertedFileIndex(np.arange(3000), tf.constant(vectors), 20, vectors[:50], settings)\n"
        "def search(count):\n"
        "    exclude = tf.range(5000, 5000 + count, dtype=tf.int64)[None]\n"
        "    hits = index.search(tf.constant(vectors[:1]), exclude)\n"
        "    return index.restrict(tf.constant(vectors[:1]), hits, exclude, tf.constant([[7]], tf.int64))\n"
        "search(10)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert search(60_000).rows.numpy()[0, 0] == 7\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) < 64 * 1024  # in KB


def test_codes_that_lose_candidates_cost_recall() -> None:
    """A coordinate of 1000 makes the step 8: the other coordinates, and with them the order, are rounded away."""
    coarse = np.concatenate([VECTORS, np.full((900, 1), 1000.0, np.float32)], axis=1)
    queries = np.concatenate([QUERIES, np.zeros((80, 1), np.float32)], axis=1)
    kept = InvertedFile(block=16, probes=10_000, min_recall=0.0)
    lossy = InvertedFile(block=16, probes=10_000, min_recall=0.0, int8=True)
    exact, rough = (InvertedFileIndex(IDS, tf.constant(coarse), 20, queries, s) for s in (kept, lossy))
    assert exact.describe()["recall"] == 1
    assert rough.describe()["recall"] < 0.5
    with pytest.raises(ValueError, match=r"finds 0\.\d+ of the first 20 candidates with \d+ of \d+ blocks, less than"):
        InvertedFileIndex(IDS, tf.constant(coarse), 20, queries, InvertedFile(block=16, int8=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probes": 1}, r"finds 0\.\d+ of the first 20 candidates with 1 of \d+ blocks, less than `min_recall` 0.95"),
        ({"block": 0}, "`block` must be a positive integer"),
        ({"min_recall": 1.5}, "`min_recall` must"),
    ],
)
def test_bad_settings(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InvertedFileIndex(IDS, tf.constant(VECTORS), 20, QUERIES, InvertedFile(**{"block": 16, **arguments}))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_few_candidates(rows: int, int8: bool) -> None:
    index = InvertedFileIndex(IDS[:rows], tf.constant(VECTORS[:rows]), rows, QUERIES, InvertedFile(int8=int8))
    found = index.search(tf.constant(QUERIES))
    assert found.valid.numpy().all()
    np.testing.assert_array_equal(np.sort(found.rows, axis=1), np.tile(np.arange(rows), (80, 1)))
    assert index.variables
    assert index.trainable_variables == ()


def test_exported_bundle_searches_approximately(tmp_path: pathlib.Path, exports: Exports) -> None:
    """A search of some blocks scores no higher than the exact search, and a search of all blocks answers alike."""
    model, frame = build()
    search = InvertedFile(block=4, min_recall=0.999, int8=True, queries=frame.iloc[np.arange(100) % 50])
    path = export(model, tmp_path / "model", max_k=MAX_K, search=search)
    loaded, query = tf.saved_model.load(str(path)).signatures, queries(model, frame)
    reference = Reference(model, frame, query)
    answer = loaded["retrieve"](**query)
    assert (answer["scores"].numpy() <= reference.retrieve(MAX_K)["scores"] + 1e-5).all()
    whole = exports.of(searched=True) / "1"
    check_equal(tf.saved_model.load(str(whole)).signatures["retrieve"](**query), reference.retrieve(MAX_K))
    assert '"recall": 1.0' in (whole / "assets.extra" / "tfmtl.json").read_text()
