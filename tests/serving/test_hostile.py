"""An export answers as the model in memory for rows of any values; `benchmarks/serving_rows.py` sends more of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from servers import hostile
from servers.models import MAX_K, IdType, build

from tfmtl.serving import to_examples
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signature import FromExamples
from tfmtl.serving.signatures import ENTRIES, signatures_of
from tfmtl.serving.verification import difference

NAMES = ["recommend", "recommend_filtered", "retrieve", "retrieve_filtered", "rank", "embed_query", "embed_candidate"]


@pytest.fixture(scope="module")
def signatures(ids: IdType) -> Any:
    """Each signature of the model in memory, traced once."""
    return signatures_of(Recommender(build(ids)[0], MAX_K), ENTRIES)


@pytest.mark.parametrize("name", [*NAMES, "recommend_examples", "retrieve_examples", "rank_examples"])
def test_random_rows_are_answered_alike_and_finite(ids: IdType, signatures: Any, loaded: Any, name: str) -> None:
    model, _ = build(ids)
    signature, served = signatures[name], loaded.signatures[name]
    rng = np.random.default_rng(2)
    plain = signature.of if isinstance(signature, FromExamples) else signature
    for rows in (200, 1):
        request = hostile.request(model, plain, rows, rng)
        if plain is not signature:
            request = {"examples": to_examples(request)}
        expected, answer = signature.traced(**request), served(**request)
        assert set(expected) == set(answer)
        for output, value in expected.items():
            assert difference(value, answer[output]) <= 1e-5
