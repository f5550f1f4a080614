from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from tests.compression import models
from tfmtl._keras import keras
from tfmtl.compression import check_sparsity, prune_model, quantize, shrink_tables
from tfmtl.layers import HashedEmbedding, LowRankEmbedding, QuotientRemainderEmbedding
from tfmtl.training import LazyAdam

TABLE = "item_id_embedding"
MAKES: list[Any] = [
    functools.partial(LowRankEmbedding, rank=2),
    functools.partial(QuotientRemainderEmbedding, divisor=4),
    functools.partial(HashedEmbedding, buckets=5),
]


def test_full_rank_changes_nothing_but_the_layer() -> None:
    model = models.teacher()
    network = shrink_tables(model.network, {TABLE: functools.partial(LowRankEmbedding, rank=8)})
    assert isinstance(network.get_layer(TABLE), LowRankEmbedding)
    expected, found = (m.predict(models.table(), verbose=0) for m in (model, model.with_network(network)))
    for task, values in expected.items():
        np.testing.assert_allclose(found[task], values, rtol=1e-3, atol=1e-4)
    assert type(model.network.get_layer(TABLE)) is keras.layers.Embedding


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("make", MAKES)
def test_smaller_network_trains_prunes_and_quantizes(make: Any) -> None:
    model = models.model(8, negatives=3)  # the table is read by two features, and again for negatives
    network = shrink_tables(model.network, {TABLE: make})
    assert network.count_params() < model.network.count_params()
    small = model.with_network(network)
    small.compile(LazyAdam(0.01))
    before = network.get_layer(TABLE).get_weights()
    small.fit(models.table(), batch_size=120, epochs=1, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, network.get_layer(TABLE).get_weights(), strict=True))
    pruned = prune_model(small, models.table(), 0.5, epochs=2, batch_size=60, verbose=0)
    check_sparsity(quantize(pruned.network), 0.5)


def test_penalties_are_kept() -> None:
    model = models.model(8)
    network = shrink_tables(model.network, {TABLE: MAKES[0]})
    assert network.get_layer(TABLE).activity_regularizer is not None


def test_what_is_no_table_is_refused() -> None:
    network = models.teacher().network
    with pytest.raises(ValueError, match=r"Unknown layer .*query_tower_0"):
        shrink_tables(network, {"query_tower_0": MAKES[0]})
    with pytest.raises(ValueError, match="`tables` must name an embedding table"):
        shrink_tables(network, {})
    with pytest.raises(ValueError, match=r"must make a CompressedEmbedding\. Received: type='Embedding'"):
        shrink_tables(network, {TABLE: keras.layers.Embedding})
