"""An export answers as the model in memory for rows of any values; `benchmarks/serving_rows.py` sends more of them."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from servers import hostile
from servers.models import MAX_K, IdType, build

from tfmtl._keras import tf
from tfmtl.serving import to_examples
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signature import FromExamples
from tfmtl.serving.signatures import ENTRIES, signatures_of
from tfmtl.serving.verification import difference

NAMES = ["recommend", "recommend_filtered", "retrieve", "retrieve_filtered", "rank", "embed_query", "embed_candidate"]


@pytest.mark.parametrize("name", [*NAMES, "recommend_examples", "retrieve_examples", "rank_examples"])
def test_random_rows_are_answered_alike_and_finite(ids: IdType, exported: pathlib.Path, name: str) -> None:
    model, _ = build(ids)
    signature = signatures_of(Recommender(model, MAX_K), ENTRIES)[name]
    loaded = tf.saved_model.load(str(exported)).signatures[name]
    rng = np.random.default_rng(2)
    plain = signature.of if isinstance(signature, FromExamples) else signature
    for rows in (200, 1):
        request = hostile.request(model, plain, rows, rng)
        if plain is not signature:
            request = {"examples": to_examples(request)}
        expected, answer = signature.traced(**request), loaded(**request)
        assert set(expected) == set(answer)
        for output, value in expected.items():
            assert difference(value, answer[output]) <= 1e-5
