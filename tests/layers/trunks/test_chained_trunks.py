"""Trunks around trunks: values against plain numpy, tasks per variable, and the inner trunk's marks."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.compression import prune, strip
from tfmtl.layers import AITM, BayesianRelations, ChainedTrunk, MMoE, MultiTaskLayer, SharedBottom
from tfmtl.layers.marks import marking
from tfmtl.layers.reach import readers_of

TASKS = ["a", "b", "c"]
INPUTS = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
WIDTH = {AITM: 3, BayesianRelations: [4, 3]}


@pytest.fixture(params=[AITM, BayesianRelations])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def make(kind: Any, after: Any, trunk: MultiTaskLayer | None = None, **arguments: Any) -> Any:
    """Return a called trunk with distinct weights, also biases."""
    layer = kind(trunk or MMoE(TASKS, 2, units=[4]), after, **{"units": WIDTH[kind], **arguments})
    layer(INPUTS)
    rng = np.random.default_rng(4)
    layer.set_weights([rng.normal(size=w.shape) if w.dtype == np.float32 else w for w in layer.get_weights()])
    return layer


def weights(layer: Any) -> dict[str, np.ndarray]:
    return {"/".join(v.name.split(":")[0].split("/")[-2:]): v.numpy() for v in layer.trainable_weights}


def test_aitm_is_its_definition() -> None:
    layer = make(AITM, {"b": "a", "c": ["a", "b"]}, activation="tanh")
    values, own = weights(layer), {name: z.numpy() for name, z in layer.trunk(INPUTS).items()}
    expected = {"a": own["a"]}
    for task, parents in (("b", "a"), ("c", "ab")):
        read = [np.tanh(expected[p] @ values[f"{p}_to_{task}/kernel"] + values[f"{p}_to_{task}/bias"]) for p in parents]
        read.append(own[task])
        query, key, value = ([u @ values[f"{task}_{part}/kernel"] for u in read] for part in ("query", "key", "value"))
        logits = np.stack([(q * k).sum(1) / np.sqrt(3) for q, k in zip(query, key, strict=True)])
        attention = np.exp(logits) / np.exp(logits).sum(0)
        expected[task] = sum(w[:, np.newaxis] * v for w, v in zip(attention, value, strict=True))
    found = layer(INPUTS)
    assert list(found) == TASKS
    for task in TASKS:
        np.testing.assert_allclose(found[task], expected[task], rtol=1e-4, atol=1e-5)


def test_bayesian_relations_are_their_definition() -> None:
    layer = make(BayesianRelations, {"b": "a", "c": ["a", "b"]}, activation="tanh")
    values, own = weights(layer), {name: z.numpy() for name, z in layer.trunk(INPUTS).items()}
    expected = {"a": own["a"]}
    for task, parents in (("b", "a"), ("c", "ab")):
        hidden = np.concatenate([own[task], *(expected[parent] for parent in parents)], axis=1)
        for level in (0, 1):
            name = f"{task}_relation_{level}"
            hidden = np.tanh(hidden @ values[f"{name}/kernel"] + values[f"{name}/bias"])
        expected[task] = hidden
    found = layer(INPUTS)
    assert list(found) == TASKS
    for task in TASKS:
        np.testing.assert_allclose(found[task], expected[task], rtol=1e-4, atol=1e-5)


class Separate(MultiTaskLayer):
    """A trunk that shares nothing: one dense layer per task."""

    def __init__(self, task_names: Any, **kwargs: Any) -> None:
        super().__init__(task_names, **kwargs)
        self._dense = {name: keras.layers.Dense(4, "tanh", name=f"own_{name}") for name in self.task_names}

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        return {name: self._dense[name](inputs) for name in self.task_names}

    @property
    def shared_variables(self) -> list[tf.Variable]:
        return []


@pytest.mark.parametrize("trunk", [Separate, SharedBottom, lambda names: MMoE(names, 2, units=[4])])
@pytest.mark.parametrize("after", [{"b": "a"}, {"b": "a", "c": "b"}, {"c": ["a", "b"]}])
def test_shared_variables_are_what_two_tasks_reach(kind: Any, trunk: Any, after: Any) -> None:
    layer = make(kind, after, trunk(TASKS), activation="tanh")
    count = dict.fromkeys([v.ref() for v in layer.trainable_weights], 0)
    for task in TASKS:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(INPUTS)[task] ** 2)
        for variable, gradient in zip(
            layer.trainable_weights, tape.gradient(total, layer.trainable_weights), strict=True
        ):
            count[variable.ref()] += gradient is not None and float(tf.reduce_max(tf.abs(gradient))) > 0
    shared = {variable.ref() for variable in layer.shared_variables}
    assert shared == {ref for ref, tasks in count.items() if tasks > 1}
    assert set(count) - shared  # the last task has variables of its own
    own = {v.ref() for v in layer.trunk.shared_variables}
    assert own <= shared


def test_a_first_tasks_own_layer_is_shared_with_the_task_after_it() -> None:
    layer = make(AITM, {"b": "a"}, Separate(TASKS))
    names = {variable.name.split("/")[-2] for variable in layer.shared_variables}
    assert names == {"own_a"}


def test_gate_weights_are_those_of_the_inner_trunk(kind: Any) -> None:
    layer = make(kind, {"b": "a"})
    np.testing.assert_array_equal(layer.gate_weights(INPUTS)["experts"], layer.trunk.gates(INPUTS))


def test_tasks_that_read_each_other_read_no_gated_sums(kind: Any) -> None:
    """The shared tensors stay marked, but more than one task reads an output."""
    layer, other = make(kind, {"b": "a"}), SharedBottom(TASKS)
    other(INPUTS)
    with marking() as marks:
        other(INPUTS)
        layer(INPUTS)
    assert [list(gated.outputs) for gated in marks.gated] == [TASKS]
    assert [tensor.shape.rank for tensor in marks.trunk] == [2, 3]  # other trunk, experts
    with marking() as marks:
        kind(MMoE(TASKS, 2, units=[4]), {"b": "a"}, units=WIDTH[kind])(INPUTS)
    assert len(marks.trunk) == 1  # none of the pass that computes the widths


def test_siblings_have_distinct_initial_values(kind: Any) -> None:
    layer = kind(SharedBottom(TASKS, units=[3]), {"b": "a", "c": ["a", "b"]}, units=3 if kind is AITM else [3, 3])
    layer(INPUTS)
    kernels = [v.numpy() for v in layer.get_prunable_weights() if "dense_" not in v.name]
    assert len(kernels) == (3 * 2 + 3 if kind is AITM else 4)
    for left, right in itertools.combinations([k for k in kernels if k.shape == (3, 3)], 2):
        assert np.abs(left - right).max() > 0.05


def test_a_copy_from_its_config_has_the_inner_trunk_and_gives_the_same(kind: Any) -> None:
    layer = make(kind, {"b": "a", "c": ("a", "b")}, MMoE(TASKS, 5, units=[2, 4], seed=7), seed=2)
    again = kind.from_config(layer.get_config())
    assert (again.trunk.num_experts, again.trunk.units, again.trunk.seed, again.seed) == (5, (2, 4), 7, 2)
    again(INPUTS)
    again.set_weights(layer.get_weights())
    for task in TASKS:
        np.testing.assert_array_equal(again(INPUTS)[task], layer(INPUTS)[task])


def test_chained_trunks_nest(kind: Any) -> None:
    inner = AITM(SharedBottom(TASKS, units=[4]), {"b": "a"}, units=4)
    layer = make(kind, {"c": "b"}, inner)
    assert {name: z.shape[1] for name, z in layer(INPUTS).items()} == {"a": 4, "b": 4, "c": 3}


def test_dropout_acts_in_training_only() -> None:
    layer = make(BayesianRelations, {"b": "a"}, units=[64], activation="linear", dropout=0.5)
    plain = layer(INPUTS)
    trained = layer(INPUTS, training=True)
    np.testing.assert_array_equal(trained["a"], plain["a"])
    assert np.abs(trained["b"] - plain["b"]).max() > 0.1


def test_readers_are_found_below_structures_and_behind_stopped_gradients() -> None:
    variable, other = tf.Variable(2.0), tf.Variable(3.0)

    def call(x: tf.Tensor) -> dict[str, Any]:
        return {"a": {"query": variable * x, "candidate": x}, "b": tf.stop_gradient(variable) * other * x}

    assert readers_of(call, tf.zeros([1]), [variable, other]) == [{"a"}, {"b"}]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"after": {}}, "`after` must map at least one task to its parents. Received: after={}."),
        ({"after": {"b": "b"}}, "No label can come after itself: b -> b."),
        ({"after": {"b": "a", "a": "b"}}, "No label can come after itself: a -> b -> a."),
        (
            {"after": {"b": "x"}},
            "Unknown task ['x'] in `after` (the tasks of the inner trunk); known: ['a', 'b', 'c'].",
        ),
        ({"after": {"x": "a"}}, "Unknown task ['x'] in `after`"),
    ],
)
def test_a_bad_chain_is_named(kind: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind(SharedBottom(TASKS), **arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        (AITM, {"units": 0}, "`units` must be a positive integer. Received: units=0."),
        (BayesianRelations, {"units": []}, "`units` must name at least one width. Received: units=[]."),
        (BayesianRelations, {"units": [3, 0]}, "`units` must be a positive integer. Received: units=0."),
        (BayesianRelations, {"dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
    ],
)
def test_a_bad_argument_is_named(kind: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind(SharedBottom(TASKS), {"b": "a"}, **arguments)


def test_the_inner_trunk_must_be_one(kind: type[ChainedTrunk]) -> None:
    with pytest.raises(TypeError, match="`trunk` must be MultiTaskLayer"):
        kind("MMoE", {"b": "a"})  # type: ignore[arg-type]


def test_chained_trunks_can_be_pruned(kind: Any) -> None:
    """The larger half of the weights stays, in the inner trunk and in the layers between tasks."""
    layer = kind(SharedBottom(TASKS, units=[8]), {"b": "a"}, units=8 if kind is AITM else [8, 8])
    inputs = keras.Input([5])
    network = keras.Model(inputs, layer(inputs))
    pruned = prune(network, 0.5, begin_step=0, end_step=1)
    stripped = strip(pruned)
    tf.nest.map_structure(np.testing.assert_array_equal, stripped(INPUTS), network(INPUTS))
    (copy,) = (part for part in stripped.layers if isinstance(part, kind))
    assert [v.shape for v in copy.get_prunable_weights()] == [v.shape for v in layer.get_prunable_weights()]
    assert len(copy.get_prunable_weights()) > len(copy.trunk.get_prunable_weights()) > 0
