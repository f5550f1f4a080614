"""Contrastive fusion: the loss against plain numpy, missing modalities, duplicates, and the fusion alone elsewhere."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.layers.fusions.test_fusions import GROUPS, INPUTS, MAKES, MODALITIES, PRESENCE, VECTORS
from tests.layers.lists import randomize
from tfmtl._keras import keras, tf
from tfmtl.data import Categorical, Label, MultiValued, Preprocessor, Schema, to_batch
from tfmtl.layers import AttentionFusion, ConcatFusion, ContrastiveFusion, DecisionFusion
from tfmtl.layers.fusions.contrastive import _keys_of_rows, info_nce
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.serving import export
from tfmtl.tasks import Retrieval

ROWS = 6
RNG = np.random.default_rng(8)
SOME = {"text": RNG.normal(size=(ROWS, 4)), "image": RNG.normal(size=(ROWS, 3)), "rest": RNG.normal(size=(ROWS, 2))}
SOME["text"][4] = SOME["text"][0]  # one item twice
SOME["image"][4] = SOME["image"][0]
SOME["image"][5] = SOME["image"][1]  # two items with one image
PRESENT = {"text": [1, 1, 1, 0, 1, 1], "image": [1, 1, 0, 1, 1, 1], "rest": [1] * ROWS}
PAIRED = [("text", "image"), ("text", "rest"), ("image", "rest")]
GIVEN = (
    {name: tf.constant(x, tf.float32) for name, x in SOME.items()},
    {name: tf.constant(x, tf.float32) for name, x in PRESENT.items()},
)


def made(fusion: Any = None, **arguments: Any) -> ContrastiveFusion:
    layer = ContrastiveFusion(fusion or ConcatFusion(GROUPS, 4, activation="tanh"), **arguments)
    randomize(layer, GIVEN)
    return layer


def views(layer: ContrastiveFusion) -> dict[str, np.ndarray]:
    """Return the concatenation of each modality alone with the learned vectors of the others, of length 1."""
    inner, found = layer.fusion, {}
    kernel, bias = inner._output.kernel.numpy(), inner._output.bias.numpy()
    learned = {name: np.tile(vector, [ROWS, 1]) for name, vector in zip(MODALITIES, inner._missing, strict=True)}
    for name in MODALITIES:
        read = np.concatenate([SOME[m] if m == name else learned[m] for m in MODALITIES], axis=1)
        z = np.tanh(read @ kernel + bias)
        found[name] = z / np.linalg.norm(z, axis=1, keepdims=True)
    return found


def expected_loss(layer: ContrastiveFusion, a: str, b: str, temperature: float) -> float:
    """Return l of the definition, row by row."""
    z = views(layer)
    rows = [i for i in range(ROWS) if PRESENT[a][i] and PRESENT[b][i]]
    losses = []
    for i in rows:
        differ = [j for j in rows if (SOME[a][i] != SOME[a][j]).any() and (SOME[b][i] != SOME[b][j]).any()]
        for left, right in ((a, b), (b, a)):
            scores = {j: np.exp(z[left][i] @ z[right][j] / temperature) for j in [i, *differ]}
            losses.append(-np.log(scores[i] / sum(scores.values())))
    return float(np.mean(losses))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_is_its_definition(temperature: float) -> None:
    layer = made(pairs=[("image", "text")], weight=3.0, temperature=temperature)
    layer(GIVEN, training=True)
    assert float(layer.losses[0]) == pytest.approx(3 * expected_loss(layer, "text", "image", temperature), rel=1e-4)


def test_long_batches_are_cut_into_blocks() -> None:
    whole = made(temperature=1.0)
    layer = ContrastiveFusion(whole.fusion, weight=0.1, temperature=1.0, block=4)
    layer(GIVEN, training=True)  # six rows in two blocks of three
    found = float(layer.losses[0])
    rows = [np.array([0, 2, 4]), np.array([1, 3, 5])]
    counts = {pair: [sum(PRESENT[pair[0]][i] & PRESENT[pair[1]][i] for i in part) for part in rows] for pair in PAIRED}
    expected = 0.0
    for pair in PAIRED:
        single = ContrastiveFusion(whole.fusion, [pair], weight=0.1, temperature=1.0)
        values = []
        for part in rows:
            single(tf.nest.map_structure(lambda x, part=part: tf.gather(x, part), GIVEN), training=True)
            values.append(float(single.losses[0]))
        expected += np.average(values, weights=counts[pair]) / len(PAIRED)
    assert found == pytest.approx(expected, rel=1e-5)


def test_all_pairs_by_default_count_alike() -> None:
    layer = made(weight=1.0, temperature=0.5)
    layer(GIVEN, training=True)
    expected = np.mean([expected_loss(layer, a, b, 0.5) for a, b in PAIRED])
    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-4)


def test_golden_values() -> None:
    # Rows 0 and 1 are negatives of each other, row 2 of none: rows log(1 + e^(0 - 1)), columns log(1 + e^(2 - 1)) for
    # row 0; rows log(1 + e^(2 - 3)), columns log(1 + e^(0 - 3)) for row 1; mean of the four numbers and of two zeros.
    logits = tf.constant([[1.0, 0.0, 5.0], [2.0, 3.0, 5.0], [7.0, 7.0, 1.0]])
    equal = tf.constant([[True, False, True], [False, True, True], [True, True, True]])
    terms = np.log1p(np.exp([-1.0, 1.0, -1.0, -3.0]))
    assert float(info_nce(logits, tf.ones([3]) > 0, equal)) == pytest.approx(terms.sum() / 6)
    assert float(info_nce(logits, tf.constant([True, True, False]), equal)) == pytest.approx(terms.sum() / 4)
    assert float(info_nce(logits, tf.constant([True, False, False]), equal)) == 0.0
    assert float(info_nce(logits, tf.zeros([3]) > 0, equal)) == 0.0


def test_equal_rows_are_equal_in_all_coordinates() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [0.0, -0.0], [-0.0, 0.0], [1.0, 2.0000002]], np.float32)
    many = np.random.default_rng(0).integers(-2, 3, [400, 4]).astype(np.float32)
    for given in (rows, many):
        key = _keys_of_rows(tf.constant(given)).numpy()
        np.testing.assert_array_equal(key[:, np.newaxis] == key, (given[:, np.newaxis] == given).all(2))
    np.testing.assert_array_equal(_keys_of_rows(tf.constant(many, tf.float16)), _keys_of_rows(tf.constant(many)))


def test_values_of_missing_modalities_do_not_matter() -> None:
    layer = made()
    vectors, presence = GIVEN
    layer(GIVEN, training=True)
    expected = float(layer.losses[0])
    hidden = {m: tf.where(presence[m][:, tf.newaxis] > 0, x, np.nan) for m, x in vectors.items()}
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        layer((hidden, presence), training=True)
        loss = layer.losses[0]
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    for name, gradient in tape.gradient(loss, hidden).items():
        missing = np.array(PRESENT[name]) == 0
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient.numpy()[missing], 0)
        assert np.abs(gradient.numpy()[~missing]).max() > 1e-4


@pytest.mark.parametrize("name", MAKES)
def test_the_loss_trains_every_fusion(name: str) -> None:
    layer = made(MAKES[name](groups=GROUPS, units=4))
    kernels = layer.get_prunable_weights()
    with tf.GradientTape() as tape:
        layer(GIVEN, training=True)
        loss = layer.losses[0]
    own = [k for k in kernels if "attention" not in k.name and "gate" not in k.name]  # one modality has weight 1
    assert all(np.abs(gradient).max() > 1e-6 for gradient in tape.gradient(loss, own))


def test_gradient_is_that_of_finite_differences() -> None:
    layer = made(temperature=1.0, weight=1.0)
    vectors, presence = GIVEN

    def loss(text: tf.Tensor) -> tf.Tensor:
        layer(({**vectors, "text": text}, presence), training=True)
        return layer.losses[0]

    text = tf.constant(RNG.normal(size=(ROWS, 4)), tf.float32)  # no rows that a step would make differ
    theory, numbers = tf.test.compute_gradient(loss, [text], delta=1e-2)
    np.testing.assert_allclose(theory[0], numbers[0], atol=2e-3)
    assert np.abs(theory[0]).max() > 0.01


def test_training_draws_views_nearer() -> None:
    layer = made(DecisionFusion(GROUPS, 4), pairs=[("text", "image")], weight=1.0)
    distinct = tf.nest.map_structure(lambda x: x[:3], INPUTS)
    everything = (distinct[0], {name: np.ones(3, np.float32) for name in MODALITIES})
    layer(everything)
    optimizer, losses = keras.optimizers.SGD(0.5), []
    for _ in range(60):
        with tf.GradientTape() as tape:
            layer(everything, training=True)
            loss = layer.losses[0]
        optimizer.minimize(loss, layer.trainable_variables, tape=tape)
        losses.append(float(loss))
    assert losses[-1] < 0.05 < losses[0]
    text, image = (layer._alone(everything, name).numpy() for name in ("text", "image"))
    assert (text @ image.T).argmax(1).tolist() == [0, 1, 2]


def test_outputs_are_those_of_the_fusion() -> None:
    inner = AttentionFusion(GROUPS, 4, modality_dropout=0.3, seed=2)
    layer = ContrastiveFusion(inner)
    np.testing.assert_array_equal(layer(INPUTS), inner(INPUTS))
    assert layer.losses == []
    assert layer.modalities == MODALITIES
    np.testing.assert_array_equal(layer.modality_weights(INPUTS), inner.modality_weights(INPUTS))
    np.testing.assert_array_equal(layer.fuse(*layer.complete(INPUTS)), inner(INPUTS))
    assert not hasattr(ContrastiveFusion(ConcatFusion(GROUPS)), "modality_weights")
    assert [w.name for w in layer.weights] == [w.name for w in inner.weights]


def test_no_weight_is_no_loss() -> None:
    layer = ContrastiveFusion(ConcatFusion(GROUPS), weight=0.0)
    layer(INPUTS, training=True)
    assert layer.losses == []


def test_half_precision_contrasts_in_float32_and_xla_agrees() -> None:
    layer = ContrastiveFusion(ConcatFusion(GROUPS, dtype="mixed_float16"), temperature=1e-3, dtype="mixed_float16")
    half = tf.nest.map_structure(lambda x: tf.cast(x, tf.float16), GIVEN)
    assert layer(half, training=True).dtype == tf.float16
    assert layer.losses[0].dtype == tf.float32
    assert np.isfinite(layer.losses[0])
    plain = made()

    def loss(inputs: Any) -> tf.Tensor:
        plain(inputs, training=True)
        return plain.losses[0]

    np.testing.assert_allclose(tf.function(loss, jit_compile=True)(GIVEN), loss(GIVEN), rtol=1e-4)


PAIRS = "`pairs` must hold pairs of two modalities, each once"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "`weight`"),
        ({"temperature": 0.0}, "`temperature`"),
        ({"block": 1}, "`block`"),
        ({"pairs": []}, PAIRS),
        ({"pairs": ["ab"]}, PAIRS),
        ({"pairs": "ab"}, PAIRS),
        ({"pairs": [("text", "text")]}, PAIRS),
        ({"pairs": [("text", "image"), ("image", "text")]}, PAIRS),
        ({"pairs": [("text", "image", "rest")]}, PAIRS),
        ({"pairs": [("text", "sound")]}, "Unknown modality ['sound'] in the pairs of 'f'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ContrastiveFusion(ConcatFusion(GROUPS), name="f", **arguments)(INPUTS)


def test_other_wrong_inputs_are_named() -> None:
    with pytest.raises(TypeError, match="`fusion` must be Fusion"):
        ContrastiveFusion("concat")  # type: ignore[arg-type]
    alone = ({"text": VECTORS["text"]}, {"text": PRESENCE["text"]})
    with pytest.raises(ValueError, match="contrasts two or more modalities"):
        ContrastiveFusion(ConcatFusion({"text": ["title"]}))(alone)


def test_a_model_trains_with_the_loss_and_serves_without_it(tmp_path: pathlib.Path) -> None:
    schema = Schema(
        [Categorical("user")], [Categorical("item"), MultiValued("tags", max_length=2)], labels=[Label("bought")]
    )
    rows = np.arange(24)
    table = pd.DataFrame({
        "user": [f"u{i % 5}" for i in rows], "item": [f"i{i % 12}" for i in rows],
        "tags": [[f"t{i % 4}", f"t{4 + i % 3}"] for i in rows % 12], "bought": 1.0,
    })  # fmt: skip
    preprocessor, heads = Preprocessor.fit(schema, table), [Retrieval("bought")]
    corpus = Candidates.from_frame(table.drop_duplicates("item"), preprocessor)
    inner = DecisionFusion({"id": ["item"], "content": ["tags"]}, 4, seed=2)
    noise = Regularization(modality_dropout=0.2, unknown_rate=0.0)
    models = {}
    for name, fusion in (("alone", inner), ("around", ContrastiveFusion(inner))):
        network = build_network(
            preprocessor, heads, embedding_dim=4, tower_units=(4,), fusion={"candidate": fusion}, regularization=noise
        )
        models[name] = MultiTaskModel(network, heads, preprocessor, candidates=corpus)
        models[name].compile("sgd")
    encoded = to_batch(table, preprocessor).features
    served = [model.tower("candidate")(encoded_of(encoded))["bought"] for model in models.values()]
    np.testing.assert_array_equal(*served)  # the same initial values
    around = models["around"]
    assert around.network.get_layer("candidate_fusion").fusion.modality_dropout == 0.2
    logs = {name: model.fit(table, batch_size=12, epochs=1, verbose=0).history for name, model in models.items()}
    more = logs["around"]["regularization_loss"][0] - logs["alone"]["regularization_loss"][0]
    assert more > 0.01
    assert around.evaluate(table, verbose=0, return_dict=True)["regularization_loss"] == pytest.approx(0, abs=1e-6)
    own = around.tower("candidate")(encoded_of(encoded))["bought"]
    assert np.abs(own - served[0]).max() > 1e-5
    save_model(around, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    np.testing.assert_array_equal(own, again.tower("candidate")(encoded_of(encoded))["bought"])
    assert again.network.get_layer("candidate_fusion").weight == 0.1
    version = export(around, tmp_path / "served", max_k=3)
    signatures = tf.saved_model.load(str(version)).signatures
    found = signatures["embed_query"](user=tf.constant(["u1"]))["embedding"]
    query = around.tower("query")({"user": to_batch(table[1:2], preprocessor).features["user"]})["bought"]
    np.testing.assert_allclose(found, query, rtol=1e-5, atol=1e-6)


def test_the_rows_are_the_candidates_of_a_full_softmax() -> None:
    schema = Schema([Categorical("user")], [Categorical("item"), Categorical("tag")], labels=[Label("bought")])
    rows = np.arange(12)
    table = pd.DataFrame({
        "user": [f"u{i % 5}" for i in rows], "item": [f"i{i}" for i in rows], "tag": [f"t{i % 4}" for i in rows],
        "bought": 1.0,
    })  # fmt: skip
    preprocessor, heads = Preprocessor.fit(schema, table), [Retrieval("bought", full_softmax=True)]
    fusion = ContrastiveFusion(ConcatFusion({"id": ["item"]}, 4), weight=1.0, temperature=1.0, block=5)
    network = build_network(
        preprocessor, heads, embedding_dim=4, tower_units=(4,), fusion={"candidate": fusion},
        regularization=Regularization(unknown_rate=0.0),
    )  # fmt: skip
    model = MultiTaskModel(network, heads, preprocessor, candidates=Candidates.from_frame(table, preprocessor))
    model.compile(keras.optimizers.SGD(0.0))
    found = model.fit(table[:3], batch_size=3, epochs=1, verbose=0).history["regularization_loss"][0]
    model.tower("candidate")({name: model.candidates.features[name] for name in ("item", "tag")}, training=True)
    assert found == pytest.approx(float(network.get_layer("candidate_fusion").losses[0]), rel=1e-5)


def encoded_of(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the features of the candidate."""
    return {name: features[name] for name in ("item", "tags")}
