"""A pass of a tower over rows with lists reads fewer rows at once where lists are long, with the same embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl.data import frames, to_batch
from tfmtl.evaluation.corpus import Embedder


def test_shorter_pieces_have_the_embeddings_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, features, sizes = Embedder(small.model().tower("query")), small_features(), []
    whole, call = embedder(features)["seen"], embedder._call

    def watched(inputs: Any) -> Any:
        sizes.append(int(inputs["recent"].shape[0]))
        return call(inputs)

    monkeypatch.setattr(embedder, "_call", watched)
    monkeypatch.setattr(frames, "_MOST_POSITIONS", 25)  # of histories of two positions
    pieces = embedder(features)["seen"]
    assert sizes == [12, 12, 12, 12, 2]
    assert whole.shape == (50, 3)
    np.testing.assert_allclose(pieces, whole, rtol=1e-6, atol=1e-7)


def small_features() -> Any:
    return to_batch(small.table(), small.preprocessor()).features
