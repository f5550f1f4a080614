"""Poolings, fusion and interactions in a network: their inputs, training, saving, serving."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tests.models.test_network import changed_outputs, flat
from tfmtl._keras import keras, tf
from tfmtl.balancing import PCGrad
from tfmtl.compression import prune, strip
from tfmtl.data import IdSequence, MultiValued, Preprocessor, Schema, Vector, to_batch
from tfmtl.layers import (
    AttentionFusion,
    AttentionPooling,
    ConcatFusion,
    CrossNetwork,
    DecisionFusion,
    DotInteraction,
    FeatureEncodings,
    Interaction,
    MaskedMean,
    SelfAttentionHistory,
    TargetAttention,
)
from tfmtl.layers.marks import EncodingMark, marking
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.models.encoders import FeatureEncoder
from tfmtl.serving import export

SCHEMA = Schema(
    query=[*small.SCHEMA.query, IdSequence("fans", of="user", max_length=2)],
    candidate=[*small.SCHEMA.candidate, MultiValued("genres", max_length=3), Vector("image", size=4)],
    context=small.SCHEMA.context,
    labels=small.SCHEMA.labels,
)


class Gate(Interaction):
    """Scales the pair by context features."""

    def build(self, input_shape: Any) -> None:
        self._dense = keras.layers.Dense(input_shape[0][-1], "sigmoid", kernel_initializer="ones")
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        return 2 * inputs[0] * self._dense(inputs[1])

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        return self((pair, features.encode(["position"])))


@functools.cache
def table() -> pd.DataFrame:
    """The small table with genres and images of items; item 0 lacks both, item 1 lacks its image."""
    frame = small.table().copy()
    item = frame["item"].str[1:].astype(int)
    frame["genres"] = [[f"g{k % 3}", f"g{k % 4}", f"g{k}"][: k % 4] if k else [] for k in item]
    images = np.random.default_rng(2).normal(size=(small.ITEMS, 4))
    images[:2] = np.nan
    frame["image"] = list(images[item])
    frame["fans"] = [["u1", "u2"]] * len(frame)
    return frame


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


@pytest.fixture(scope="module")
def features() -> dict[str, tf.Tensor]:
    return dict(to_batch(table(), preprocessor()).features)


def parts() -> dict[str, Any]:
    return {
        "poolings": {"recent": SelfAttentionHistory(num_heads=3, dropout=0.1), "genres": AttentionPooling()},
        "fusion": {"candidate": AttentionFusion({"image": ["image"], "tags": ["genres"]}, 5, modality_dropout=0.2)},
        "interactions": [
            TargetAttention("recent", name="interest"),
            CrossNetwork(name="cross"),
            DotInteraction(["user", "item", "recent"], name="products"),
            Gate(name="gate"),
        ],
    }


def network(heads: Any = None, **arguments: Any) -> keras.Model:
    given = {"trunk": small.trunk(), "embedding_dim": 3, "tower_units": [4, 3], "regularization": small.NO_NOISE}
    return build_network(preprocessor(), heads or small.tasks(), **{**given, **parts(), **arguments})


@pytest.fixture(scope="module")
def full() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def trained() -> MultiTaskModel:
    heads = small.tasks(num_uniform_negatives=3)
    candidates = Candidates.from_frame(table(), preprocessor())
    model = MultiTaskModel(network(heads), heads, preprocessor(), PCGrad(), candidates)
    model.compile(small.LazyAdam(0.02))
    log = model.fit(table(), batch_size=25, epochs=12, verbose=0).history
    for name in ("rating", "liked", "mood", "seen"):
        assert log[f"{name}_loss"][-1] < log[f"{name}_loss"][0], name
    return model


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("item", "price", "genres", "image"), {"seen/candidate", "rating", "liked"}),
        (("position",), {"rating", "liked"}),
        (("recent",), {"seen/query", "rating", "liked", "mood"}),
    ],
)
def test_towers_never_read_the_other_side(
    full: keras.Model, features: dict[str, tf.Tensor], names: tuple[str, ...], expected: set[str]
) -> None:
    assert changed_outputs(full, features, *names) == expected


def test_no_interaction_is_part_of_a_tower(trained: MultiTaskModel) -> None:
    for side, absent in (("query", {"item", "price", "genres", "image"}), ("candidate", {"user", "age", "recent"})):
        tower = trained.tower(side)
        assert not absent & set(tower.input)
        assert not [layer for layer in tower.layers if isinstance(layer, Interaction)]


def test_interactions_follow_one_another(full: keras.Model) -> None:
    def width(name: str) -> int:
        return int(full.get_layer(name).output.shape[-1])

    joined = width("pair") + 3  # the history pooled by attention of the candidate
    assert width("interest_pair") == joined
    assert width("cross") == 2 * joined
    assert width("products_pair") == width("gate") == 2 * joined + 3


def test_target_attention_reads_candidate_and_history_from_one_table(
    full: keras.Model, features: dict[str, tf.Tensor]
) -> None:
    layer = full.get_layer("interest")
    target, history, indices = keras.Model(full.input, layer.input)(features)
    embeddings = full.get_layer("item_embedding").embeddings
    np.testing.assert_array_equal(target, tf.gather(embeddings, features["item"]))
    np.testing.assert_array_equal(history, tf.gather(embeddings, features["recent"]))
    np.testing.assert_array_equal(indices, features["recent"])


def test_a_fusion_receives_the_missing_modalities(full: keras.Model, features: dict[str, tf.Tensor]) -> None:
    vectors, presence = keras.Model(full.input, full.get_layer("candidate_fusion").input)(features)
    assert {name: int(vector.shape[1]) for name, vector in vectors.items()} == {"image": 5, "tags": 3, "rest": 5}
    item = table()["item"].str[1:].astype(int).to_numpy()
    np.testing.assert_array_equal(presence["image"], item > 1)
    np.testing.assert_array_equal(presence["tags"], item % 4 > 0)
    np.testing.assert_array_equal(presence["rest"], np.ones(len(item)))
    assert full.get_layer("candidate_mark").input.shape[1] == 5


def test_marks_cover_the_shared_encodings(full: keras.Model, features: dict[str, tf.Tensor]) -> None:
    with marking() as marks:
        full(features)
    assert len(marks.encodings) == 5  # query, candidate, context, interest, products
    assert isinstance(full.get_layer("interest_mark"), EncodingMark)


def test_one_instance_serves_several_features_without_tying_them(features: dict[str, tf.Tensor]) -> None:
    pooling, fusion = AttentionPooling(seed=3), ConcatFusion({"ids": ["user"]})
    both = network(poolings={"recent": pooling, "genres": pooling}, fusion={"query": fusion})
    again = network(poolings={"recent": pooling, "genres": pooling}, fusion={"query": fusion})
    first, second = (both.get_layer(f"{name}_pooling").get_weights()[0] for name in ("recent", "genres"))
    assert np.abs(first - second).max() > 0.1
    assert not {id(v) for v in both.variables} & {id(v) for v in again.variables} - _of_interactions(both)
    assert not pooling.built
    for name, value in flat(both(features)).items():
        np.testing.assert_array_equal(value, flat(again(features))[name])
    assert isinstance(both.get_layer("fans_mean"), MaskedMean)


def _of_interactions(model: keras.Model) -> set[int]:
    return {id(v) for layer in model.layers if isinstance(layer, Interaction) for v in layer.variables}


def test_a_feature_may_be_read_again(features: dict[str, tf.Tensor]) -> None:
    encoder = FeatureEncoder(preprocessor(), 3, small.NO_NOISE, 0, {"genres": AttentionPooling()})
    shared, again, own = encoder.encode(["genres"]), encoder.encode(["genres"]), encoder.encode(["genres"], "liked")
    model = keras.Model(encoder.inputs, [encoder.encode_role("candidate"), shared, again, own])
    _, first, second, other = model(features)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0.01


def test_a_saved_network_gives_the_same(
    trained: MultiTaskModel, features: dict[str, tf.Tensor], tmp_path: pathlib.Path
) -> None:
    expected = flat(trained.network(features))
    trained.network.save(tmp_path / "network", save_format="tf")
    loaded = keras.models.load_model(tmp_path / "network", custom_objects={"Gate": Gate})
    clone = keras.models.clone_model(trained.network)
    clone.set_weights(trained.network.get_weights())
    for name, value in expected.items():
        np.testing.assert_allclose(flat(loaded(features))[name], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(flat(clone(features))[name], value)


def test_it_is_served(trained: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    assert "recent_pooling" in [layer.name for layer in trained.tower("query").layers]
    path = export(trained, tmp_path)  # `export` compares the answers of all signatures before and after
    assert (path / "saved_model.pb").exists()


def test_it_can_be_pruned(full: keras.Model, features: dict[str, tf.Tensor]) -> None:
    plain = network(interactions=parts()["interactions"][:3])
    pruned = prune(plain, 0.5, end_step=10)
    wrapped = {layer.layer.name for layer in pruned.layers if hasattr(layer, "pruning_schedule")}
    assert {"recent_pooling", "genres_pooling", "candidate_fusion", "interest", "cross"} <= wrapped
    for name, value in flat(strip(pruned)(features)).items():
        np.testing.assert_allclose(value, flat(plain(features))[name], rtol=1e-5, atol=1e-6)


def test_a_longer_list_is_refused_by_the_network(full: keras.Model, features: dict[str, tf.Tensor]) -> None:
    with pytest.raises(ValueError, match="is incompatible with the layer"):
        full({**features, "recent": tf.ones([small.ROWS, 5], tf.int32)})


def test_modalities_share_the_precision_of_the_network() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        mixed = network(fusion={"query": DecisionFusion({"ids": ["user", "recent"]}, kind="gated")})
    finally:
        keras.mixed_precision.set_global_policy("float32")
    found = flat(mixed(to_batch(table(), preprocessor()).features, training=True))
    assert all(np.isfinite(value).all() for value in found.values())
