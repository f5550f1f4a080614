from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.layers import MMoE, SharedBottom
from tfmtl.models import Regularization, build_network
from tfmtl.tasks import BinaryClassification, Regression, Retrieval

Encoded = dict[str, tf.Tensor]


@pytest.fixture(scope="module")
def features() -> Encoded:
    return to_batch(small.table(), small.preprocessor()).features


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return small.network()


def flat(outputs: Any) -> dict[str, np.ndarray]:
    """Return the outputs by path; those of retrieval are seen/query and seen/candidate."""
    found = {}
    for name, value in outputs.items():
        found.update(
            {f"{name}/{k}": v.numpy() for k, v in value.items()} if isinstance(value, dict) else {name: value.numpy()}
        )
    return found


def test_inputs_and_outputs_have_the_names_of_features_and_tasks(network: keras.Model) -> None:
    assert set(network.input) == set(small.SCHEMA.features)
    for name, feature in small.SCHEMA.features.items():
        assert tuple(network.input[name].shape) == (None, *feature.encoded_shape)
    shapes = {name: tuple(value.shape) for name, value in network.output.items() if name != "seen"}
    assert shapes == {"rating": (None, 1), "liked": (None, 1), "mood": (None, 2)}
    assert {side: tuple(v.shape) for side, v in network.output["seen"].items()} == {
        "query": (None, 3),
        "candidate": (None, 3),
    }


def test_the_seed_decides_every_initial_value(network: keras.Model, features: Encoded) -> None:
    noisy = Regularization(dropout=0.3, unknown_rate=0.2)
    first, again, other = (
        small.network(seed=s, regularization=noisy, trunk=small.trunk(s, dropout=0.3)) for s in (1, 1, 2)
    )
    tf.random.set_seed(1)
    for training in (False, True, True):  # noise is a function of the seed, too
        left, right = flat(first(features, training=training)), flat(again(features, training=training))
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    for name, value in flat(other(features)).items():
        assert np.abs(value - flat(first(features))[name]).max() > 1e-4, name


def test_no_two_parts_start_alike(network: keras.Model) -> None:
    kernels = [v.numpy() for v in network.trainable_variables if v.numpy().std() > 0]
    alike = [
        (i, j) for i, left in enumerate(kernels) for j, right in enumerate(kernels[:i])
        if left.shape == right.shape and np.allclose(left, right)
    ]  # fmt: skip
    assert alike == []


def changed_outputs(network: keras.Model, features: Encoded, *names: str) -> set[str]:
    """Return the names of the outputs that change with the given features."""
    perturbed = {**features, **{name: tf.roll(features[name], 1, axis=0) for name in names}}
    before, after = flat(network(features)), flat(network(perturbed))
    return {name for name in before if np.abs(before[name] - after[name]).max() > 0}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("item", "price"), {"seen/candidate", "rating", "liked"}),  # neither the query tower nor a task of the user
        (("position",), {"rating", "liked"}),  # only ranking reads the context
        (("user", "age", "recent"), {"seen/query", "rating", "liked", "mood"}),
    ],
)
def test_outputs_depend_on_their_side_only(
    network: keras.Model, features: Encoded, names: tuple[str, ...], expected: set[str]
) -> None:
    assert changed_outputs(network, features, *names) == expected


def test_a_sequence_shares_the_embedding_of_its_feature(network: keras.Model) -> None:
    tables = {
        layer.name: layer.embeddings.shape for layer in network.layers if isinstance(layer, keras.layers.Embedding)
    }
    size = small.statistics().size
    assert tables == {"user_embedding": [size("user"), 3], "item_embedding": [size("item"), 3]}


def test_embeddings_can_have_widths_of_their_own() -> None:
    widths = small.network(embedding_dim={"user": 2, "": 5})
    assert widths.get_layer("user_embedding").output_dim == 2
    assert widths.get_layer("item_embedding").output_dim == 5


def test_embedding_gradients_are_slices(network: keras.Model, features: Encoded) -> None:
    few = {name: value[:2] for name, value in features.items()}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(few)["rating"])
    gradient = tape.gradient(loss, network.get_layer("user_embedding").embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    assert set(gradient.indices.numpy()) == set(few["user"].numpy())


def test_noise_is_for_training_only(features: Encoded) -> None:
    noisy = small.network(regularization=Regularization(dropout=0.5, unknown_rate=0.5), trunk=small.trunk(dropout=0.5))
    plain, again = flat(noisy(features)), flat(noisy(features, training=False))
    first, second = flat(noisy(features, training=True)), flat(noisy(features, training=True))
    for name, value in plain.items():
        np.testing.assert_array_equal(value, again[name])
        assert np.abs(value - first[name]).max() > 0
        assert np.abs(first[name] - second[name]).max() > 0


def test_regularization_penalizes_kernels_and_looked_up_rows(features: Encoded) -> None:
    penalized = small.network(regularization=Regularization(l1=0.1, l2=0.2, embedding_l2=0.3, unknown_rate=0))
    one = {name: value[:5] for name, value in features.items()}
    penalized(one)
    kernels = [layer.kernel.numpy() for layer in penalized.layers if "_tower_" in layer.name]
    expected = sum(0.1 * np.abs(k).sum() + 0.2 * (k**2).sum() for k in kernels)
    for feature in ("user", "item", "recent"):  # the sum over looked-up embeddings by the rows of the batch
        table = penalized.get_layer(f"{'item' if feature == 'recent' else feature}_embedding").embeddings
        expected += 0.3 * (tf.gather(table, one[feature]).numpy() ** 2).sum() / 5
    assert len(kernels) == 4
    assert float(tf.add_n(penalized.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_clone_with_the_same_weights_gives_the_same_outputs(network: keras.Model, features: Encoded) -> None:
    heads = [Retrieval("seen", units=[3], normalize=True, temperature=0.5, candidate_bias=True), *small.tasks()[1:]]
    original = small.network(heads)
    clone = keras.models.clone_model(original)
    clone.set_weights(original.get_weights())
    for name, value in flat(clone(features)).items():
        np.testing.assert_array_equal(value, flat(original(features))[name])


def test_a_schema_without_candidates() -> None:
    schema = Schema([Numeric("age"), Categorical("user")], labels=[Label("y")], query_id="user")
    frame = pd.DataFrame({"user": ["a", "b"], "age": [1.0, 2.0], "y": [1.0, 3.0]})
    found = build_network(Preprocessor.fit(schema, frame), [Regression("y")], tower_units=[2], embedding_dim=2)
    assert set(found.input) == {"age", "user"}
    assert found.output["y"].shape == [None, 1]


def test_tasks_of_the_query_need_no_trunk() -> None:
    found = small.network([BinaryClassification("liked", scope="query")], trunk=None)
    assert not [layer for layer in found.layers if isinstance(layer, SharedBottom)]


def test_the_default_trunk_is_a_shared_bottom() -> None:
    (layer,) = [layer for layer in small.network(trunk=None).layers if isinstance(layer, SharedBottom)]
    assert layer.task_names == ("rating", "liked")


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"heads": []}, ValueError, "`tasks` must have distinct names. Received: tasks=[]."),
        (
            {"heads": [Regression("a"), Regression("a")]},
            ValueError,
            "`tasks` must have distinct names. Received: tasks=['a', 'a'].",
        ),
        (
            {"trunk": MMoE(["rating"])},
            ValueError,
            "The trunk's tasks ['rating'] differ from the tasks on pairs ['liked', 'rating'].",
        ),
        (
            {"trunk": "mmoe"},
            TypeError,
            "`trunk` must be MultiTaskLayer. Received: trunk='mmoe'. Pass an instance such as MMoE().",
        ),
        (
            {"tower_units": []},
            ValueError,
            "Retrieval task 'seen' has no dot product, because its towers have outputs of different widths; give "
            "`Retrieval(units=...)` or `tower_units` a width, or choose `embedding_dim` for equal widths. Received: "
            "widths={'query': 8, 'candidate': 5}.",
        ),
        ({"tower_units": [3, 0]}, ValueError, "`tower_units` must be a positive integer. Received: tower_units=0."),
        ({"embedding_dim": 0}, ValueError, "`embedding_dim` must be a positive integer. Received: embedding_dim=0."),
        (
            {"embedding_dim": {"usr": 3}},
            ValueError,
            "Unknown vocabulary ['usr'] in `embedding_dim`; known: ['user', 'item']. Did you",
        ),
    ],
)
def test_contradictions_are_named(arguments: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        small.network(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"l1": -1}, {"l2": -1}, {"embedding_l2": -1}, {"dropout": 1}, {"unknown_rate": -0.1}]
)
def test_regularization_is_checked(arguments: dict[str, float]) -> None:
    (name, value), = arguments.items()  # fmt: skip
    with pytest.raises(ValueError, match=re.escape(f"`{name}` must be ")) as raised:
        Regularization(**arguments)
    assert f"Received: {name}={value}." in str(raised.value)


def test_a_schema_instead_of_the_preprocessor_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"`preprocessor` must be Preprocessor.*Pass `Preprocessor.fit\(schema, table\)`"
    ):
        build_network(small.SCHEMA, [Regression("rating")])  # type: ignore[arg-type]
