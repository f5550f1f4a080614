"""A whole step of a network costs as much as the rows of the batch, also with embedding penalty and clipping."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tests.training.sparse import OPTIMIZERS, shapes_in
from tfmtl._keras import tf
from tfmtl.balancing.dense_layout import is_table
from tfmtl.data import Preprocessor, Statistics, to_batch
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.tasks import Regression

SIZE = 20_011


@dataclasses.dataclass(frozen=True)
class Large(Statistics):
    """Statistics that claim many items."""

    def size(self, vocabulary: str) -> int:
        return SIZE if vocabulary == "item" else super().size(vocabulary)


def model(optimizer: Any) -> MultiTaskModel:
    fitted = small.statistics()
    fields = {field.name: getattr(fitted, field.name) for field in dataclasses.fields(fitted)}
    heads = [Regression.from_statistics("rating", fitted)]
    noise = Regularization(l2=0.01, embedding_l2=0.5, unknown_rate=0.1)
    network = build_network(Preprocessor(small.SCHEMA, Large(**fields)), heads, embedding_dim=4, regularization=noise)
    built = MultiTaskModel(network, heads, small.preprocessor(), candidates=small.candidates())
    built.compile(optimizer)
    optimizer.build(built.trainable_variables)
    return built


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_makes_no_tensor_of_a_large_table(name: str) -> None:
    built = model(OPTIMIZERS[name](0.01, global_clipnorm=1.0))
    assert any(v.shape[0] == SIZE for v in built.trainable_variables)
    batch = to_batch(small.table(), small.preprocessor())
    found = shapes_in(tf.function(built.make_step), batch)
    assert [(kind, shape) for kind, shape in found if shape and shape[0] in (SIZE, 4 * SIZE)] == []


def test_the_penalty_on_embeddings_has_a_sparse_gradient_of_the_looked_up_rows() -> None:
    built = model(OPTIMIZERS["LazySGD"]())
    batch = to_batch(small.table(), small.preprocessor())
    (table,) = [v for v in built.trainable_variables if v.shape[0] == SIZE]
    with tf.GradientTape() as tape:
        built(batch.features, training=False)
        penalty = tf.add_n(built.losses)
    gradient = tape.gradient(penalty, table)
    assert isinstance(gradient, tf.IndexedSlices)
    looked_up = {*batch.features["item"].numpy().tolist(), *batch.features["recent"].numpy().reshape(-1).tolist()}
    assert set(gradient.indices.numpy().tolist()) == looked_up
    # 0.5 |row|^2 a look-up, mean over the batch: each look-up of a row adds 2 * 0.5 / B times the row.
    rows, whole = len(small.table()), np.zeros(table.shape, np.float32)
    np.add.at(whole, gradient.indices.numpy(), gradient.values.numpy())
    counts = np.bincount(np.concatenate([batch.features["item"], batch.features["recent"].numpy().reshape(-1)]))
    for row in looked_up:
        np.testing.assert_allclose(whole[row], counts[row] / rows * table.numpy()[row], rtol=1e-4, atol=1e-7)
    assert is_table(table)
