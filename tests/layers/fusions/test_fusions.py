"""Values of the fusions against plain numpy, and properties of every fusion."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.layers.lists import randomize, softmax
from tfmtl._keras import keras, tf
from tfmtl.layers import AttentionFusion, BilinearFusion, ConcatFusion, DecisionFusion, Fusion, LowRankFusion
from tfmtl.layers.fusions.presence import Presence

GROUPS = {"text": ["title", "tags"], "image": ["pixels"]}
MODALITIES = ["text", "image", "rest"]
RNG = np.random.default_rng(5)
VECTORS = {name: RNG.normal(size=(5, d)).astype(np.float32) for name, d in zip(MODALITIES, (4, 3, 2), strict=True)}
PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32)
PRESENCE = dict(zip(MODALITIES, PRESENT.T, strict=True))
INPUTS = (VECTORS, PRESENCE)
COUNTED = np.where(PRESENT.any(1, keepdims=True), PRESENT, 1)  # a row without any modality reads all learned vectors

Make = Callable[..., Any]
MAKES: dict[str, Make] = {
    "concat": ConcatFusion,
    "bilinear": BilinearFusion,
    "low_rank": LowRankFusion,
    "attention": AttentionFusion,
    **{kind: functools.partial(DecisionFusion, kind=kind) for kind in ("mean", "learned", "gated")},
}  # fmt: skip


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Make:
    return lambda **arguments: MAKES[request.param](**{"groups": GROUPS, "units": 4, **arguments})


def completed(layer: Fusion) -> list[np.ndarray]:
    """Return each modality's vectors, the learned one where it is missing."""
    return [
        np.where(PRESENT[:, i : i + 1] > 0, VECTORS[name], layer._missing[i].numpy())
        for i, name in enumerate(MODALITIES)
    ]


def dense(layer: keras.layers.Dense, inputs: np.ndarray) -> np.ndarray:
    return inputs @ layer.kernel.numpy() + layer.bias.numpy()


def test_concatenation_is_its_definition() -> None:
    layer = ConcatFusion(GROUPS, 4, activation="tanh")
    randomize(layer, INPUTS)
    expected = np.tanh(dense(layer._output, np.concatenate(completed(layer), 1)))
    np.testing.assert_allclose(layer(INPUTS), expected, rtol=1e-4, atol=1e-5)


def test_bilinear_fusion_is_its_definition() -> None:
    layer = BilinearFusion(GROUPS, 4, rank=3)
    randomize(layer, INPUTS)
    text, image, rest = (dense(part, x) for part, x in zip(layer._projections, completed(layer), strict=True))
    read = np.concatenate([text, image, rest, text * image, text * rest, image * rest], 1)
    np.testing.assert_allclose(layer(INPUTS), dense(layer._output, read), rtol=1e-4, atol=1e-4)


def test_low_rank_fusion_is_the_full_tensor_applied_to_the_outer_product() -> None:
    layer = LowRankFusion(GROUPS, 4, rank=2)
    randomize(layer, INPUTS)
    text, image, rest = (np.concatenate([x, np.ones([5, 1])], 1) for x in completed(layer))
    factors = [
        np.concatenate([part.kernel.numpy(), part.bias.numpy()[np.newaxis]]).reshape(-1, 2, 4)
        for part in layer._factors
    ]
    tensor = np.einsum("aru,bru,cru->abcu", *factors)
    expected = np.einsum("na,nb,nc,abcu->nu", text, image, rest, tensor) + layer._bias.numpy()
    np.testing.assert_allclose(layer(INPUTS), expected, rtol=1e-4, atol=1e-4)


def test_low_rank_fusion_starts_near_zero_and_reaches_every_modality() -> None:
    layer = LowRankFusion(GROUPS, 4)
    with tf.GradientTape() as tape:
        found = layer(tf.nest.map_structure(lambda x: 1e-3 * x, INPUTS))
    assert np.abs(found).max() < 0.1
    for kernel in tape.gradient(found, layer.get_prunable_weights()):
        assert np.abs(kernel).max() > 1e-4


@pytest.mark.parametrize("kind", ["mean", "learned", "gated"])
def test_decisions_are_averaged_over_what_is_present(kind: Any) -> None:
    layer = DecisionFusion(GROUPS, 4, kind=kind, hidden_units=3, activation="tanh")
    randomize(layer, INPUTS)
    vectors = completed(layer)
    kernel, bias = (v.numpy() for v in layer._towers.trainable_weights)
    hidden = [np.tanh(dense(part, x)) for part, x in zip(layer._hidden, vectors, strict=True)]
    decisions = np.stack([h @ kernel[i] + bias[i] for i, h in enumerate(hidden)], 1)
    logits = {
        "mean": np.zeros([5, 3]),
        "learned": layer._logits.numpy() + np.zeros([5, 1]) if kind == "learned" else None,
        "gated": dense(layer._gate, np.concatenate(vectors, 1)) if kind == "gated" else None,
    }[kind]
    weights = softmax(np.where(COUNTED > 0, logits, -np.inf))
    np.testing.assert_allclose(layer.modality_weights(INPUTS), weights, rtol=1e-4)
    np.testing.assert_allclose(layer(INPUTS), np.einsum("nm,nmu->nu", weights, decisions), rtol=1e-4, atol=1e-4)


def test_attention_is_its_definition() -> None:
    layer = AttentionFusion(GROUPS, 4, attention_units=3)
    randomize(layer, INPUTS)
    tokens = np.stack([dense(part, x) for part, x in zip(layer._projections, completed(layer), strict=True)], 1)
    kernel, bias, query = (v.numpy() for v in layer._attention.trainable_weights)
    weights = softmax(np.where(COUNTED > 0, (np.tanh(tokens @ kernel + bias) @ query)[..., 0], -np.inf))
    np.testing.assert_allclose(layer.modality_weights(INPUTS), weights, rtol=1e-4)
    np.testing.assert_allclose(layer(INPUTS), np.einsum("nm,nmu->nu", weights, tokens), rtol=1e-4, atol=1e-4)


def test_what_a_missing_modality_holds_does_not_matter(make: Make) -> None:
    layer = make()
    randomize(layer, INPUTS)
    poisoned = {name: np.where(PRESENCE[name][:, np.newaxis] > 0, VECTORS[name], np.nan) for name in MODALITIES}
    vectors = {name: tf.constant(value, tf.float32) for name, value in poisoned.items()}
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        found = layer((vectors, PRESENCE))
    np.testing.assert_array_equal(found, layer(INPUTS))
    for name, gradient in tape.gradient(found, vectors).items():
        np.testing.assert_array_equal(gradient.numpy()[PRESENCE[name] == 0], 0)
        assert np.isfinite(gradient).all()


def test_dropped_in_training_is_missing_at_serving(make: Make) -> None:
    layer = make(modality_dropout=0.5)
    randomize(layer, INPUTS)
    everything = (VECTORS, {name: np.ones(5, np.float32) for name in MODALITIES})
    masks = [np.array(mask, np.float32) for mask in itertools.product([0, 1], repeat=3) if any(mask)]
    served = {
        tuple(mask): layer((VECTORS, dict(zip(MODALITIES, np.repeat(mask[:, np.newaxis], 5, 1), strict=True)))).numpy()
        for mask in masks
    }
    seen = set()
    for _ in range(12):
        for row, value in enumerate(layer(everything, training=True).numpy()):
            alike = [mask for mask in served if np.allclose(served[mask][row], value, rtol=1e-4, atol=1e-5)]
            assert alike, "a row of training is none of serving"
            seen |= set(alike)
    assert len(seen) == 7
    np.testing.assert_array_equal(layer(everything), served[1, 1, 1])


def test_modalities_are_dropped_at_the_rate_but_never_all_of_a_row() -> None:
    layer = ConcatFusion(GROUPS, modality_dropout=0.3)
    rows = 4000
    vectors = {name: np.ones([rows, value.shape[1]], np.float32) for name, value in VECTORS.items()}
    half = np.arange(rows) < rows / 2
    presence = {"text": np.ones(rows), "image": half, "rest": half}
    inputs = (vectors, {name: np.float32(value) for name, value in presence.items()})
    layer(inputs)
    present = layer.complete(inputs, training=True)[1].numpy()
    assert present.any(1).all()
    assert present[half].mean(0) == pytest.approx(np.full(3, 0.7 + 0.3**3), abs=0.04)
    assert present[~half].tolist() == [[True, False, False]] * (rows // 2)  # the only modality is kept


def test_the_seed_and_the_step_decide_the_draws() -> None:
    def draws(seed: int) -> list[np.ndarray]:
        layer = ConcatFusion(GROUPS, modality_dropout=0.5, seed=seed)
        layer(INPUTS)
        return [layer.complete(INPUTS, training=True)[1].numpy() for _ in range(4)]

    np.testing.assert_array_equal(draws(1), draws(1))
    assert (np.array(draws(1)) != draws(2)).any()
    assert any((left != right).any() for left, right in itertools.pairwise(draws(1)))


def test_the_learned_vector_learns_from_rows_without_the_modality(make: Make) -> None:
    layer = make()
    randomize(layer, INPUTS)
    with tf.GradientTape() as tape:
        nothing = tf.reduce_sum(layer((VECTORS, {name: np.zeros(5, np.float32) for name in MODALITIES})) ** 2)
    for gradient in tape.gradient(nothing, layer._missing):
        assert np.abs(gradient).max() > 0


def test_all_kernels_start_apart(make: Make) -> None:
    layer = make(units=6, kernel_initializer=keras.initializers.GlorotUniform(seed=3))
    same = dict.fromkeys(MODALITIES, VECTORS["text"])
    layer((same, PRESENCE))
    kernels = [m for v in layer.get_prunable_weights() for m in (v.numpy() if len(v.shape) == 3 else [v.numpy()])]
    for left, right in itertools.combinations(kernels, 2):
        assert left.shape != right.shape or np.abs(left - right).max() > 0.05


def test_regularizer_is_that_of_the_kernels(make: Make) -> None:
    layer = make(kernel_regularizer=keras.regularizers.L2(0.5))
    layer(INPUTS)
    kernels = [v for v in layer.get_prunable_weights() if "attention/kernel" not in v.name]
    assert float(tf.add_n(layer.losses)) == pytest.approx(0.5 * sum((k.numpy() ** 2).sum() for k in kernels), rel=1e-5)


def test_half_precision_and_xla(make: Make) -> None:
    layer = make(modality_dropout=0.3, dtype="mixed_float16")
    half = tf.nest.map_structure(lambda x: tf.cast(x, tf.float16), INPUTS)
    for training in (False, True):
        found = layer(half, training=training)
        assert found.dtype == tf.float16
        assert np.isfinite(found).all()
    if hasattr(layer, "modality_weights"):
        np.testing.assert_allclose(tf.reduce_sum(layer.modality_weights(half), 1), 1, rtol=1e-3)
    plain = make()
    np.testing.assert_allclose(tf.function(plain, jit_compile=True)(INPUTS), plain(INPUTS), rtol=1e-4, atol=1e-5)


def test_features_that_no_group_names_are_the_rest() -> None:
    layer = ConcatFusion(GROUPS)
    assert layer.split(["id", "title", "pixels", "tags", "price"]) == {**GROUPS, "rest": ["id", "price"]}
    assert layer.split(["title", "tags", "pixels"]) == GROUPS


def test_presence_reads_indices_lists_and_flags() -> None:
    numbers = np.array([[0.5, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    vectors = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1]], np.float32)
    lists, index = np.array([[0, 0], [0, 0], [0, 0], [0, 1]]), np.array([0, 1, 0, 0])
    assert Presence()([numbers]).numpy().tolist() == [1, 0, 0, 0]
    assert Presence()([vectors]).numpy().tolist() == [0, 0, 1, 0]
    assert Presence()([lists]).numpy().tolist() == [0, 0, 0, 1]
    assert Presence()([index, lists]).numpy().tolist() == [0, 1, 0, 1]


LISTS = "`groups` must map modalities to lists of one or more features."


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ConcatFusion({}), f"{LISTS} Received: groups={{}}."),
        (lambda: ConcatFusion({"text": "title"}), f"{LISTS} Received: groups={{'text': 'title'}}."),
        (lambda: ConcatFusion({"text": []}), f"{LISTS} Received: groups={{'text': []}}."),
        (
            lambda: ConcatFusion({"rest": ["a"]}),
            "`groups` must not name 'rest', the modality of the remaining features.",
        ),
        (
            lambda: ConcatFusion({"a": ["x", "y"], "b": ["y"]}),
            "A feature may be in one group of a fusion only. Received: twice=['y'].",
        ),
        (lambda: ConcatFusion(GROUPS, 0), "`units` must be a positive integer. Received: units=0."),
        (lambda: ConcatFusion(GROUPS, modality_dropout=1), "`modality_dropout` must be a number in [0, 1)."),
        (lambda: BilinearFusion(GROUPS, rank=0), "`rank` must be a positive integer. Received: rank=0."),
        (lambda: LowRankFusion(GROUPS, rank=0), "`rank` must be a positive integer. Received: rank=0."),
        (lambda: AttentionFusion(GROUPS, attention_units=0), "`attention_units` must be a positive integer."),
        (lambda: DecisionFusion(GROUPS, hidden_units=0), "`hidden_units` must be a positive integer."),
        (
            lambda: DecisionFusion(GROUPS, kind="max"),  # type: ignore[arg-type]
            "`kind` must be 'mean', 'learned' or 'gated'. Received: kind='max'.",
        ),
        (
            lambda: ConcatFusion(GROUPS).split(["title", "pixels"]),
            "Unknown feature ['tags'] in the groups of a fusion; known: ['title', 'pixels'].",
        ),
        (
            lambda: BilinearFusion({"text": ["a"]})(({"text": VECTORS["text"]}, {"text": PRESENCE["text"]})),
            "A bilinear fusion needs two or more modalities. Received: modalities=['text'].",
        ),
        (
            lambda: ConcatFusion(GROUPS, name="f")(({"text": VECTORS["text"]}, {"text": PRESENCE["text"]})),
            "Fusion 'f' has the modalities ['text', 'image']. Received: modalities=['text'].",
        ),
    ],
)  # fmt: skip
def test_bad_argument_is_named(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


def test_another_width_is_named(make: Make) -> None:
    layer = make(name="f")
    layer(INPUTS)
    widths = {"text": 4, "image": 3, "rest": 2}
    sentence = f"Fusion 'f' was built for modalities of widths {widths}. Received: widths={ {**widths, 'text': 3} }."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layer(({**VECTORS, "text": VECTORS["image"]}, PRESENCE))
