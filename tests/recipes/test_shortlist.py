"""Ranks among the best candidates of each part, against ranks among all candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tfmtl.evaluation.corpus import Corpus
from tfmtl.evaluation.ranks import rank_by_scores
from tfmtl.evaluation.retrieval_metrics import retrieval_values
from tfmtl.recipes.shortlist import Shortlist

QUERIES, CANDIDATES = 5, 30


def _corpus(rng: np.random.Generator, seen: bool = True) -> Corpus:
    pairs = np.argwhere(rng.random((QUERIES, CANDIDATES)) < 0.2)
    pairs = np.concatenate([pairs, [[0, -1]]])  # a positive outside the corpus
    known = np.argwhere(rng.random((QUERIES, CANDIDATES)) < 0.3)
    known = np.concatenate([known, pairs[:1], [[1, -1]]])  # a positive that was seen, and a pair outside the corpus
    nothing: Any = None
    return Corpus(
        {}, nothing, pairs[:, 0], nothing, pairs[:, 1], (known[:, 0], known[:, 1]) if seen else None, nothing, 0.0
    )


def _parts(rng: np.random.Generator, levels: int) -> list[np.ndarray]:
    """Return three parts with few distinct scores, so that there are ties; the last one is equal for all queries."""
    parts = rng.integers(0, levels, (3, QUERIES, CANDIDATES)).astype(np.float32)
    parts[2] = parts[2, 0]
    return list(parts)


def _all(parts: list[np.ndarray], weights: tuple[float, ...], corpus: Corpus) -> np.ndarray:
    mixed = sum(np.float32(weight) * part for weight, part in zip(weights, parts, strict=True))
    index = corpus.query_index, corpus.candidate_index
    return rank_by_scores(lambda rows: mixed[rows], CANDIDATES, *index, seen=corpus.seen)


@given(st.integers(0, 10_000), st.sampled_from([3, 1000]), st.booleans())
def test_the_whole_corpus_as_a_shortlist_has_the_ranks_of_all(seed: int, levels: int, seen: bool) -> None:
    rng = np.random.default_rng(seed)
    corpus, parts = _corpus(rng, seen), _parts(rng, levels)
    shortlist = Shortlist.of(parts, corpus, depth=1000)
    for weights in ((1.0, 0.0, 0.0), (0.0, 0.0, 2.0), (0.5, 1.0, 0.25)):
        assert_array_equal(shortlist.ranks(weights), _all(parts, weights, corpus))


@given(st.integers(0, 10_000))
def test_a_part_alone_has_its_own_first_ranks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corpus, parts = _corpus(rng), _parts(rng, 100_000)
    shortlist = Shortlist.of(parts, corpus, depth=6)
    most = np.bincount(corpus.query_index[corpus.candidate_index >= 0]).max()
    assert shortlist.columns.shape == (QUERIES, 18 + most)
    for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        found, wanted = shortlist.ranks(weights), _all(parts, weights, corpus)
        assert_array_equal(found[wanted < 6], wanted[wanted < 6])
        assert (found[wanted >= 6] >= 6).all()


def test_a_candidate_outside_of_the_shortlist_does_not_count() -> None:
    nothing: Any = None
    corpus = Corpus({}, nothing, np.array([0]), nothing, np.array([3]), None, nothing, 0.0)
    parts = [np.array([[4.0, 3.0, 2.0, 0.0]], np.float32), np.array([[0.0, 3.0, 4.0, 2.0]], np.float32)]
    # The best of each part are the candidates 0 and 2; candidate 1 is the best of the sum, and the positive the last.
    assert Shortlist.of(parts, corpus, depth=1).ranks((1.0, 1.0)) == pytest.approx([2.0])
    assert Shortlist.of(parts, corpus, depth=2).ranks((1.0, 1.0)) == pytest.approx([3.0])


@given(st.integers(0, 10_000), st.sampled_from([3, 1000]))
def test_more_positives_than_the_shortlist_holds_have_metrics(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    parts, nothing = _parts(rng, levels), None
    pairs = np.argwhere(rng.random((QUERIES, CANDIDATES)) < 0.8)
    pairs = np.concatenate([pairs, pairs[:40], [[0, -1]]])  # some rows are repeated
    corpus: Any = Corpus({}, nothing, pairs[:, 0], pairs[:, 1], pairs[:, 1], None, nothing, 0.0)
    weights = (1.0, 0.5, 0.25)
    ranks = Shortlist.of(parts, corpus, depth=2).ranks(weights)
    exact = _all(parts, weights, corpus)
    found, wanted = (retrieval_values(each, pairs[:, 0], 30, items=pairs[:, 1]) for each in (ranks, exact))
    assert (found[1]["recall@30"] >= wanted[1]["recall@30"] - 1e-12).all()
    assert (ranks <= exact).all()
