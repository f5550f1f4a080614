"""Where columns come from, and which axes of a layer's weights follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl import layers
from tfmtl._keras import keras, tf
from tfmtl.adaptation import warm_start
from tfmtl.adaptation.columns import Columns, axes, task_axes
from tfmtl.adaptation.tables import group_of, split_name, tables_of
from tfmtl.layers import PLE, STEM, MMoE, PEPNet, SharedBottom
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.models import Regularization

VOCABULARIES = ["user", "item"]


def columns_of(network: keras.Model, layer: str) -> list[list[Any]]:
    return Columns(network, VOCABULARIES).inputs_of(network.get_layer(layer))


def test_a_towers_columns_are_those_of_its_features() -> None:
    (query,) = columns_of(small.network(), "query_tower_0")
    assert query == [("", name, i) for name, width in (("user", 3), ("age", 2), ("recent", 3)) for i in range(width)]
    (second,) = columns_of(small.network(), "query_tower_1")
    assert second == [("query_tower_0", 0, i) for i in range(4)]


def test_the_trunk_reads_the_features_and_the_product_of_the_towers() -> None:
    network = small.network()
    trunk = next(layer for layer in network.layers if isinstance(layer, MMoE))
    (pair,) = columns_of(network, trunk.name)
    features = {column[1] for column in pair if column[0] == ""}
    assert features == {"user", "age", "recent", "item", "price", "position"}
    assert len(pair) == len(set(pair)) == trunk.input.shape[-1]


def test_a_layer_that_keras_names_is_the_same_in_every_network() -> None:
    first, second = (Columns(small.network(), VOCABULARIES) for _ in range(2))
    assert list(first.layers) == list(second.layers)
    assert [layer.name for layer in first.layers.values()] != [layer.name for layer in second.layers.values()]


def test_tables_of_a_tasks_own_are_a_group_of_their_own() -> None:
    network = small.network(trunk=STEM(small.ON_PAIRS, units=[4]))
    keys = set(tables_of(network, VOCABULARIES))
    assert keys == {(group, name) for group in ("", *small.ON_PAIRS) for name in VOCABULARIES}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("query_embedding_4", ""),
        ("candidate_embedding_4_1", ""),
        ("seen_embedding_4", "seen"),
        ("seen_again_embedding_4", "seen_again"),
        ("my_embedding_task_embedding_4", "my_embedding_task"),
    ],
)
def test_the_group_of_a_joined_table_ends_at_the_last_embedding_of_its_name(name: str, group: str) -> None:
    assert group_of(JoinedEmbedding({"user": 2}, 1, name=name)) == group


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user_embedding", ("", "user")),
        ("seen_user_embedding", ("seen", "user")),
        ("my_user_embedding", ("", "my_user")),  # the longest vocabulary comes first
        ("superuser_embedding", None),
        ("user", None),
    ],
)
def test_the_name_of_a_table_is_group_and_vocabulary(name: str, expected: tuple[str, str] | None) -> None:
    assert split_name(name, ["my_user", "user"]) == expected


def test_axes_are_those_that_grow_with_the_input() -> None:
    inputs = keras.Input([3])
    layer = keras.layers.Dense(3, name="d")
    network = keras.Model(inputs, layer(inputs))
    node = Columns(network, []).nodes["d"]
    kernel, bias = axes(layer, node, [["a", "b", "c"]])
    assert kernel == {0: ["a", "b", "c"]}  # though the kernel is square
    assert bias == {}


def test_an_axis_of_several_inputs_is_not_guessed_at() -> None:
    class Joined(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight("kernel", [shape[0][-1] + shape[1][-1], 2])

        def call(self, inputs: Any) -> tf.Tensor:
            return tf.concat(inputs[::-1], 1) @ self.kernel

    left, right = keras.Input([3]), keras.Input([2])
    layer = Joined(name="j")
    network = keras.Model([left, right], layer([left, right]))
    assert axes(layer, Columns(network, []).nodes["j"], [list("abc"), list("de")]) == [None]


@pytest.mark.parametrize(("trunk", "known"), [(MMoE, True), (SharedBottom, True), (PLE, False)])
def test_axes_of_tasks(trunk: type, known: bool) -> None:
    network = small.network(trunk=trunk(small.ON_PAIRS, units=[4]))
    layer = next(part for part in network.layers if isinstance(part, trunk))
    found = task_axes(layer, Columns(network, VOCABULARIES).nodes[layer.name])
    assert found is not None
    assert (len(found) == len(layer.trainable_weights)) is known  # in PLE tasks and all of them together share an axis
    for places in found.values():
        for axis, columns in places.items():
            assert axis in (0, 1)
            assert len(columns) % len(small.ON_PAIRS) == 0
            assert [name for name, _ in columns] == sorted((n for n, _ in columns), key=small.ON_PAIRS.index)


def test_what_is_not_told_apart_is_fresh_and_never_another_features() -> None:
    """PEPNet's gates read several encodings side by side; with a wider table they keep their initial values."""
    trunk = PEPNet(small.ON_PAIRS, domain=["position"], personal=["user"], units=[4])
    model = small.model(trunk=trunk)
    wider = small.model(trunk=trunk.from_config(trunk.get_config()), embedding_dim={"": 3, "item": 5}, seed=4)
    before = {v.name: v.numpy() for v in wider.network.weights}
    report = warm_start(wider, model)
    assert "item" in report.fresh
    assert any("gate" in name for name in report.fresh)
    fresh = {name.split("/")[0] for name in report.fresh} - {"item"}
    assert fresh
    for name in report.aligned:
        if "/" in name and name.split("/")[0] in ("query_tower_0", "candidate_tower_0"):
            assert report.aligned[name][0] < report.aligned[name][1]
    table = wider.network.get_layer("item_embedding").embeddings
    np.testing.assert_array_equal(table, before[table.name])


class Unnamed(keras.layers.Layer):
    """A user's pooling that does not name its columns: the most recent embedding."""

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return inputs[0][:, 0]


class Named(Unnamed):
    """The same, with the columns of the embeddings."""

    def column_sources(self, inputs: Any, own: Any) -> Any:
        return inputs[0]


class Wrong(Unnamed):
    """One that names fewer columns than it has."""

    def column_sources(self, inputs: Any, own: Any) -> Any:
        return inputs[0][:1]


@pytest.mark.parametrize(("pooling", "followed"), [(Named, 3), (Unnamed, 0), (Wrong, 0)])
def test_kernels_follow_the_columns_that_a_users_pooling_names(pooling: type, followed: int) -> None:
    """From an item table of width 3 to one of width 5; the 4 units of the first layer read "recent" by the pooling."""
    model = small.model(poolings={"recent": pooling()})
    wider = small.model(poolings={"recent": pooling()}, embedding_dim={"": 3, "item": 5}, seed=4)
    fresh = wider.network.get_layer("query_tower_0").kernel.numpy()
    report = warm_start(wider, model)
    kernel = wider.network.get_layer("query_tower_0").kernel.numpy()
    assert report.aligned["query_tower_0/kernel"] == (4 * (3 + 2 + followed), 4 * (3 + 2 + 5))
    known = model.network.get_layer("query_tower_0").kernel.numpy()
    np.testing.assert_array_equal(kernel[: 5 + followed], known[: 5 + followed])  # user, age, and part of "recent"
    np.testing.assert_array_equal(kernel[5 + followed :], fresh[5 + followed :])


def test_noise_keeps_the_columns() -> None:
    noisy = small.network(regularization=Regularization(feature_dropout=0.2, embedding_dropout=0.2, mixup=0.3))
    plain = small.network()
    for name in ("query_tower_0", "candidate_tower_0"):
        assert columns_of(noisy, name) == columns_of(plain, name)
    trunks = [next(layer.name for layer in n.layers if isinstance(layer, MMoE)) for n in (noisy, plain)]
    assert columns_of(noisy, trunks[0]) == columns_of(plain, trunks[1])


@pytest.mark.parametrize("name", ["AdaTT", "CGC", "CrossStitch", "DSelectK", "LearningToBranch", "MTAN", "OMoE", "PLE"])
def test_every_trunk_is_taken_over_whole(name: str) -> None:
    kind = getattr(layers, name)
    model, other = (small.model(trunk=kind(small.ON_PAIRS, units=[4], seed=seed), seed=seed) for seed in (0, 5))
    assert warm_start(other, model).fresh == ()
    for found, expected in zip(other.network.trainable_weights, model.network.trainable_weights, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
