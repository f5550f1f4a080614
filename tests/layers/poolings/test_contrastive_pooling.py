"""CL4SRec: the loss against plain numpy, rows without negatives, views of lists, and the pooling alone elsewhere."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl._keras import tf
from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema, to_batch
from tfmtl.layers import ContrastivePooling, MaskedMean, SelfAttentionHistory
from tfmtl.layers.poolings.prefixes import AtPositions
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.serving import export
from tfmtl.tasks import Retrieval

INDICES = np.array([[5, 2, 0, 0], [3, 4, 6, 2], [0, 0, 0, 0], [5, 2, 0, 0], [7, 0, 0, 0]], np.int32)
EMBEDDINGS = np.random.default_rng(1).normal(size=(5, 4, 3)).astype(np.float32)
INPUTS = (tf.constant(EMBEDDINGS), tf.constant(INDICES))


class _TwoViews(ContrastivePooling):
    """Views that are the first entries and the sums of two entries, so that the loss has a closed form."""

    def disturb(self, inputs: Any, seed: tf.Tensor) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        shift = 0.0 if self.calls % 2 else 0.5
        return inputs[0] + shift * tf.cast(inputs[1] > 0, tf.float32)[..., tf.newaxis], inputs[1]


def _loss(temperature: float) -> float:
    """Return the loss of the views of `_TwoViews`."""
    real = INDICES > 0
    rows = [0, 1, 3, 4]
    means = [
        np.stack([(EMBEDDINGS[i] + shift)[real[i]].mean(0) for i in rows]) for shift in (0.0, 0.5)
    ]  # the mean over the real entries
    views = np.concatenate([mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means])
    row = np.array(rows * 2)
    losses = []
    for i in range(8):
        other = (i + 4) % 8
        negatives = [j for j in range(8) if not np.array_equal(INDICES[row[i]], INDICES[row[j]])]
        scores = {j: np.exp(views[i] @ views[j] / temperature) for j in [other, *negatives]}
        losses.append(-np.log(scores[other] / sum(scores.values())))
    return float(np.mean(losses))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_is_its_definition(temperature: float) -> None:
    layer = _TwoViews(MaskedMean(), weight=3.0, temperature=temperature)
    layer(INPUTS, training=True)
    assert float(layer.losses[0]) == pytest.approx(3 * _loss(temperature), rel=1e-5)


def test_outputs_are_those_of_the_pooling() -> None:
    inner = SelfAttentionHistory(num_blocks=1, relative=True, seed=2)
    layer = ContrastivePooling(inner)
    np.testing.assert_array_equal(layer(INPUTS, training=True), inner(INPUTS))
    assert len(layer.losses) == 1
    np.testing.assert_array_equal(layer(INPUTS), inner(INPUTS))
    assert layer.losses == []
    np.testing.assert_array_equal(layer.prefixes(INPUTS), inner.prefixes(INPUTS))
    np.testing.assert_array_equal(layer.attention_weights(INPUTS), inner.attention_weights(INPUTS))


@pytest.mark.parametrize("inner", [MaskedMean(), SelfAttentionHistory(num_blocks=1, relative=True, seed=2)])
def test_prefixes_have_the_loss_of_the_whole_lists(inner: Any) -> None:
    called, read = (ContrastivePooling(inner, seed=4) for _ in range(2))
    called(INPUTS)
    read(INPUTS)
    called(INPUTS, training=True)
    expected = called.losses
    oldest_first = tuple(tf.reverse(part, [1]) for part in INPUTS)  # padding at the start
    places, layer = tf.range(INDICES.size), AtPositions(read)
    np.testing.assert_array_equal(
        layer((*oldest_first, places), training=True), AtPositions(inner)((*oldest_first, places))
    )
    np.testing.assert_allclose(layer.losses, expected, rtol=1e-6)
    assert float(expected[0]) > 0.01


def test_no_weight_is_no_loss() -> None:
    layer = ContrastivePooling(MaskedMean(), weight=0.0)
    layer(INPUTS, training=True)
    assert layer.losses == []
    over = AtPositions(layer)
    over((*INPUTS, tf.constant([3])), training=True)
    assert over.losses == []


def test_methods_that_the_pooling_lacks_are_absent() -> None:
    layer = ContrastivePooling(MaskedMean())
    assert hasattr(layer, "prefixes")
    assert not hasattr(layer, "attention_weights")
    assert not hasattr(ContrastivePooling(SelfAttentionHistory.__base__()), "prefixes")


@pytest.mark.parametrize("kept", [[2], [2, 2], []])
def test_rows_without_a_negative_have_no_loss(kept: list[int]) -> None:
    layer = ContrastivePooling(MaskedMean())
    layer(tuple(tf.gather(part, tf.constant(kept, tf.int32)) for part in INPUTS), training=True)
    assert float(layer.losses[0]) == 0.0


def test_a_view_has_entries_of_its_own_list_and_masked_ones() -> None:
    layer = ContrastivePooling(MaskedMean(), crop=0.0, mask=0.6, reorder=0.0)
    layer(INPUTS)
    layer._masked.assign([9.0, 8.0, 7.0])
    embeddings, indices = (part.numpy() for part in layer.disturb(INPUTS, tf.constant([1, 2])))
    np.testing.assert_array_equal(indices > 0, INDICES > 0)
    hidden = (indices != INDICES) & (INDICES > 0)
    assert hidden.sum(axis=1).tolist() == [1, 2, 0, 1, 0]  # 60 % of 2, 4, 0, 2 and 1, rounded down
    assert (indices[hidden] == 1).all()
    np.testing.assert_array_equal(embeddings[hidden], np.tile([9.0, 8.0, 7.0], (4, 1)))
    np.testing.assert_array_equal(embeddings[~hidden & (INDICES > 0)], EMBEDDINGS[~hidden & (INDICES > 0)])


def test_crop_keeps_consecutive_entries_with_their_embeddings() -> None:
    layer = ContrastivePooling(MaskedMean(), crop=0.5, mask=0.0, reorder=0.0)
    layer(INPUTS)
    embeddings, indices = (part.numpy() for part in layer.disturb(INPUTS, tf.constant([1, 2])))
    assert (indices > 0).sum(axis=1).tolist() == [1, 2, 0, 1, 1]
    for row, ids in enumerate(indices):
        for position, index in enumerate(ids[ids > 0]):
            source = INDICES[row].tolist().index(index)
            np.testing.assert_array_equal(embeddings[row, position], EMBEDDINGS[row, source])
    assert np.diff([INDICES[1].tolist().index(i) for i in indices[1][:2]]).tolist() == [1]


def test_the_loss_trains_the_pooling() -> None:
    inner = SelfAttentionHistory(num_blocks=1, seed=2)
    layer = ContrastivePooling(inner, seed=4)
    layer(INPUTS)
    with tf.GradientTape() as tape:
        layer(INPUTS, training=True)
        loss = layer.losses[0]
    gradients = tape.gradient(loss, inner.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert sum(float(tf.norm(gradient)) for gradient in gradients) > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "`weight`"),
        ({"temperature": 0.0}, "`temperature`"),
        ({"crop": 0.0, "mask": 0.0, "reorder": 0.0}, "One of `crop`, `mask` and `reorder`"),
        ({"mask": 1.0}, "`mask`"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastivePooling(MaskedMean(), **arguments)
    with pytest.raises(TypeError, match="pooling"):
        ContrastivePooling("mean")


def test_a_model_trains_with_the_loss_and_serves_without_it(tmp_path: pathlib.Path) -> None:
    schema = Schema([IdSequence("recent", of="item", max_length=4)], [Categorical("item")], labels=[Label("bought")])
    items = [f"i{number}" for number in range(12)]
    table = pd.DataFrame({"item": items, "recent": [items[i : i + 3] for i in range(9)] + [[]] * 3, "bought": 1.0})
    preprocessor, tasks = Preprocessor.fit(schema, table), [Retrieval("bought")]
    inner = SelfAttentionHistory(num_blocks=1, seed=2)
    models = {}
    for name, pooling in (("alone", inner), ("around", ContrastivePooling(inner, seed=3))):
        network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), poolings={"recent": pooling})
        models[name] = MultiTaskModel(network, tasks, preprocessor)
        models[name].compile("sgd")
    logs = {name: model.fit(table, batch_size=6, epochs=1, verbose=0).history for name, model in models.items()}
    more = logs["around"]["regularization_loss"][0] - logs["alone"]["regularization_loss"][0]
    assert more > 0.01
    around = models["around"]
    assert around.evaluate(table, verbose=0, return_dict=True)["regularization_loss"] == pytest.approx(0, abs=1e-6)
    encoded = to_batch(table, preprocessor).features
    own = around.tower("query")({"recent": encoded["recent"]})["bought"]
    save_model(around, tmp_path / "saved")
    again = load_model(tmp_path / "saved").tower("query")({"recent": encoded["recent"]})["bought"]
    np.testing.assert_array_equal(own, again)
    version = export(around, tmp_path / "served", max_k=3)
    request = tf.constant([[*row, *[""] * (4 - len(row))] for row in table["recent"]])
    served = tf.saved_model.load(str(version)).signatures["embed_query"](recent=request)
    np.testing.assert_allclose(served["embedding"], own, rtol=1e-5, atol=1e-6)
