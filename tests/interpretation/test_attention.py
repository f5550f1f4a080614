from __future__ import annotations

import re

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras
from tfmtl.data import to_batch
from tfmtl.interpretation import attention_weights, modality_weights
from tfmtl.layers import ConcatFusion, DecisionFusion, SelfAttentionHistory, TargetAttention
from tfmtl.models import MultiTaskModel


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return small.model(
        poolings={"recent": SelfAttentionHistory()},
        interactions=[TargetAttention("recent", normalize=True, name="interest")],
        fusion={
            "query": DecisionFusion({"age": ["age"], "history": ["recent"]}, kind="gated"),
            "candidate": ConcatFusion({"price": ["price"]}),
        },
    )


@pytest.mark.parametrize("layer_name", ["interest", "recent_pooling"])
def test_weights_of_the_entries(model: MultiTaskModel, layer_name: str) -> None:
    recent = to_batch(small.table(), small.preprocessor()).features["recent"].numpy()
    found = attention_weights(model, small.table(), layer_name, batch_size=20)
    assert found.shape == (small.ROWS, 2)
    np.testing.assert_array_equal(found > 0, recent > 0)
    np.testing.assert_allclose(found.sum(1), (recent > 0).any(1), rtol=1e-5)
    assert np.ptp(found[(recent > 0).all(1)]) > 0


def test_the_weights_are_those_that_the_network_uses(model: MultiTaskModel) -> None:
    batch = to_batch(small.table(), small.preprocessor())
    found = attention_weights(model, batch, "interest")
    table = model.network.get_layer("item_embedding").embeddings.numpy()
    expected = np.einsum("bl,bld->bd", found, table[batch.features["recent"]])
    mark = model.network.get_layer("interest_mark")
    np.testing.assert_allclose(keras.Model(model.network.input, mark.output)(batch.features), expected, atol=1e-6)


def test_weights_of_the_modalities(model: MultiTaskModel) -> None:
    unlabelled = small.table().drop(columns=["rating", "liked", "seen", "mood", "trust"])
    found = modality_weights(model, unlabelled, "query_fusion")
    assert list(found) == ["age", "history", "rest"]
    np.testing.assert_allclose(sum(found.values()), np.ones(small.ROWS), rtol=1e-5)
    np.testing.assert_array_equal(found["history"] > 0, small.table()["recent"].str.len() > 0)


def test_a_layer_without_weights_is_named(model: MultiTaskModel) -> None:
    sentence = "Unknown layer with modality_weights ['candidate_fusion'] in the network; known: ['query_fusion']."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        modality_weights(model, small.table(), "candidate_fusion")
    sentence = "Unknown layer with attention_weights ['interests'] in the network; known: ['recent_pooling'"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        attention_weights(model, small.table(), "interests")
