"""Isolated groups of tasks: each as if it were trained alone, in one network that is saved, grown and exported."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.adaptation import extend_vocabularies, layers_of, warm_start
from tfmtl.adaptation.tables import tables_of
from tfmtl.balancing import PCGrad
from tfmtl.data import Categorical, Label, Preprocessor, Schema, to_columns
from tfmtl.layers import STEM, CrossNetwork, MMoE, SharedBottom
from tfmtl.layers.reach import readers_of
from tfmtl.models import MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.models.network import shared_variables
from tfmtl.serving import export
from tfmtl.serving.recommender import Recommender
from tfmtl.tasks import BinaryClassification, EntireSpaceConversion, Task
from tfmtl.training import LazyAdam

APART = [["seen"], ["rating", "mood"]]


def _network(heads: list[Task] | None = None, isolate: Any = APART, **arguments: Any) -> keras.Model:
    on_pairs = any(task.uses_trunk for task in heads or small.tasks())
    trunk = MMoE(num_experts=2, units=[4]) if on_pairs else None
    return small.network(heads, **{"trunk": trunk, "isolate": isolate, **arguments})


def _model(heads: list[Task] | None = None, isolate: Any = APART, **arguments: Any) -> MultiTaskModel:
    heads = heads or small.tasks()
    balancer = arguments.pop("balancer", None)
    network = _network(heads, isolate, **arguments)
    model = MultiTaskModel(network, heads, small.preprocessor(), balancer, small.candidates())
    model.compile(LazyAdam(0.02))
    return model


def _only(*names: str) -> list[Task]:
    return [task for task in small.tasks() if task.name in names]


def _fitted(model: MultiTaskModel) -> MultiTaskModel:
    model.fit(small.table(), epochs=2, batch_size=16, verbose=0)
    return model


def test_no_variable_is_read_by_tasks_of_two_groups() -> None:
    network = _network()
    found = readers_of(network, network.input, network.trainable_variables)
    groups = [{"liked"}, {"seen"}, {"rating", "mood"}]
    assert all(any(names <= group for group in groups) for names in found)
    assert {name for names in found for name in names} == {"seen", "rating", "mood", "liked"}
    shared = {v.name for v in shared_variables(network)}
    assert shared  # rating and mood share towers and tables
    assert all(name.startswith("rating_") for name in shared)
    assert list(network.output) == ["seen", "rating", "liked", "mood"]
    assert sorted(network.input) == sorted(small.SCHEMA.features)


def test_a_group_has_the_weights_of_a_model_of_its_tasks_alone_after_training() -> None:
    joint = _fitted(_model())
    for names in (["seen"], ["rating", "mood"], ["liked"]):
        alone = _fitted(_model(_only(*names), isolate=()))
        for name in names:
            for left, right in zip(
                tf.nest.flatten(joint.predict(small.table(), verbose=0)[name]),
                tf.nest.flatten(alone.predict(small.table(), verbose=0)[name]),
                strict=True,
            ):
                np.testing.assert_array_equal(left, right, err_msg=name)
    assert np.ptp(joint.predict(small.table(), verbose=0)["liked"]) > 0


def test_layers_of_the_first_group_keep_their_names_and_the_others_have_a_prefix() -> None:
    names, again = ({layer.name for layer in _network().layers if layer.weights} for _ in range(2))
    assert {"user_embedding", "query_tower_0", "seen_user_embedding", "seen_query_tower_1", "liked_output"} <= names
    assert {"rating_user_embedding", "rating_candidate_tower_0", "rating_m_mo_e", "rating_output"} <= names
    assert [name.rsplit("_", 1)[0] for name in names - again] == ["m_mo_e"]  # Keras counts the layers of a class
    keys = set(tables_of(_network(), small.SCHEMA.vocabularies))
    assert keys == {(group, name) for group in ("", "seen", "rating") for name in ("user", "item")}
    towers = [layer.name for layer in layers_of(_network(), "towers")]
    assert len(towers) == 3 * 4
    assert "rating_query_tower_0" in towers


def test_joined_tables_belong_to_their_group() -> None:
    query, candidate = ([Categorical(name) for name in names] for names in (("user", "age"), ("item", "price")))
    schema = Schema(query, candidate, labels=[Label("rating"), Label("liked")])
    prepared = Preprocessor.fit(schema, small.table().astype({"age": str, "price": str}))
    network = build_network(prepared, _only("rating", "liked"), isolate=[["rating"]])
    keys = {(group, name) for group in ("", "rating") for name in ("user", "age", "item", "price")}
    assert set(tables_of(network, schema.vocabularies)) == keys


def test_a_vocabulary_with_the_prefix_of_a_group_keeps_its_table() -> None:
    schema = Schema(
        [Categorical("user"), Categorical("rating_user")],
        [Categorical("item")],
        labels=[Label("rating"), Label("liked")],
    )
    prepared = Preprocessor.fit(schema, small.table().assign(rating_user="one"))
    widths = {"user": 3, "rating_user": 4, "item": 5}  # of different widths, they are not joined
    network = build_network(prepared, _only("rating", "liked"), embedding_dim=widths, isolate=[["rating"]])
    tables = tables_of(network, schema.vocabularies).values()
    assert sorted(table.vocabulary for table in tables) == sorted([*widths, *widths])
    assert {table.vocabulary: table.read().shape[1] for table in tables} == widths
    assert all(table.size == prepared.statistics.size(table.vocabulary) for table in tables)


def test_a_saved_an_exported_and_a_grown_model_give_equal_outputs(tmp_path: pathlib.Path) -> None:
    model, table = _fitted(_model()), small.table()
    wanted = model.predict(table, verbose=0)
    loaded = load_model(save_model(model, tmp_path / "saved"))
    grown = extend_vocabularies(model, table.assign(user=table["user"] + "x"), headroom=0.5)
    for other in (loaded, grown):
        found = other.predict(table, verbose=0)
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    served = tf.saved_model.load(str(export(model, tmp_path / "served", max_k=4))).signatures
    query = {name: tf.constant(column) for name, column in to_columns(table, small.SCHEMA.query).items()}
    memory = Recommender(model, max_k=4)
    for signature in ("retrieve", "recommend"):
        found = served[signature](**query)
        for name, values in getattr(memory, signature)(**query).items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    _fitted(grown)


def test_a_warm_start_takes_over_every_weight_of_an_isolated_model() -> None:
    source, target = _fitted(_model()), _model(seed=1)
    report = warm_start(target, source)
    assert (report.fresh, report.unused) == ((), ())
    for name, values in source.predict(small.table(), verbose=0).items():
        np.testing.assert_allclose(target.predict(small.table(), verbose=0)[name], values, rtol=1e-5, err_msg=name)


def test_tables_of_a_group_start_from_the_shared_tables_of_another_model() -> None:
    source, target = _fitted(_model(isolate=())), _model(isolate=[["seen"]])
    report = warm_start(target, source)
    assert {"user", "item", "seen/user", "seen/item"} <= set(report.aligned)


def test_a_gradient_balancer_balances_only_inside_a_group() -> None:
    joint = _fitted(_model(balancer=PCGrad()))
    alone = _fitted(_model(_only("seen"), isolate=()))
    for left, right in zip(
        [v for v in joint.network.weights if v.name.startswith("seen_")], alone.network.weights, strict=True
    ):
        # The softmax of a query does not depend on the last bias of the candidates: its steps are rounding errors.
        if not left.name.startswith("seen_candidate_tower_1/bias"):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6, err_msg=left.name)


def test_parts_given_once_are_copied_for_each_group() -> None:
    network = _network(isolate=[["rating"]], trunk=STEM(units=[4]), interactions=[CrossNetwork(name="cross")])
    found = readers_of(network, network.input, network.trainable_variables)
    assert all(not {"rating", "liked"} <= names for names in found)
    assert {"cross", "rating_cross"} <= {layer.name for layer in network.layers}


def test_one_group_of_all_tasks_is_the_network_without_isolation() -> None:
    names = [task.name for task in small.tasks()]
    whole, plain = (_network(isolate=isolate) for isolate in ([names], ()))
    for left, right in zip(whole.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("isolate", "message"),
    [
        (["seen"], "`isolate` must hold lists"),
        ("seen", "isolate"),
        ([[]], "`isolate` must hold lists"),
        ([["sen"]], "'sen'"),
        ([["seen"], ["seen", "rating"]], "names task 'seen' twice"),
    ],
)
def test_wrong_groups_are_refused(isolate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _network(isolate=isolate)


def test_parts_that_join_the_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="copy of the trunk; leave out"):
        _network(trunk=SharedBottom(small.ON_PAIRS))
    with pytest.raises(ValueError, match="`mixup` mixes"):
        _network(isolate=[["rating"]], regularization=Regularization(mixup=0.2))
    chain: list[Task] = [BinaryClassification("liked"), EntireSpaceConversion("seen", after="liked")]
    with pytest.raises(ValueError, match="depends on \\['liked'\\], so that `isolate` must keep them in one group"):
        _network(chain, isolate=[["seen"]], trunk=None)
