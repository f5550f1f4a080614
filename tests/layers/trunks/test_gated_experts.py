"""Properties of every trunk that mixes experts with gates of several levels or kinds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import keras_tuner
import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, TASKS, randomize, reach, values_of
from tfmtl._keras import keras, tf
from tfmtl.balancing.gramian import gated_gramian
from tfmtl.layers import CGC, PLE, AdaTT, DSelectK, HoME, MultiTaskLayer
from tfmtl.layers.marks import marking

GROUPS = {"alone": ["b"], "pair": ["c", "a"]}
KINDS: dict[str, Callable[..., MultiTaskLayer]] = {
    "AdaTT-1": lambda **given: AdaTT(TASKS, 2, num_levels=1, **given),
    "AdaTT-2": lambda **given: AdaTT(TASKS, 1, num_levels=2, **given),
    "AdaTT-3": lambda **given: AdaTT(TASKS, 2, num_levels=3, **given),
    "CGC": lambda **given: CGC(TASKS, 2, 3, **given),
    "DSelectK": lambda **given: DSelectK(TASKS, 3, gamma=50.0, **given),
    "DSelectK-static": lambda **given: DSelectK(TASKS, 4, gamma=50.0, static=True, **given),
    "HoME": lambda **given: HoME(TASKS, groups=GROUPS, rank=2, **given),
    "HoME-one-group": lambda **given: HoME(TASKS, groups={"all": TASKS}, rank=2, **given),
    "HoME-single-tasks": lambda **given: HoME(TASKS, groups={f"g{task}": [task] for task in TASKS}, rank=2, **given),
    "PLE-1": lambda **given: PLE(TASKS, 2, 3, num_levels=1, **given),
    "PLE-2": lambda **given: PLE(TASKS, 2, 1, num_levels=2, **given),
    "PLE-3": lambda **given: PLE(TASKS, 1, 2, num_levels=3, **given),
    "PLE-4": lambda **given: PLE(TASKS, 2, 2, num_levels=4, **given),
}
Make = Callable[..., MultiTaskLayer]


@pytest.fixture(params=sorted(KINDS))
def make(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]


def test_shared_variables_are_those_of_which_every_element_serves_several_tasks(make: Make) -> None:
    layer = make(units=[4, 3], activation="tanh")
    randomize(layer)
    shared = {variable.name for variable in layer.shared_variables}
    counts = reach(layer)
    assert len(counts) == len(layer.trainable_weights)
    for name, tasks in counts.items():
        if "gate:" in name:
            tasks = tasks[tasks > 0]  # columns of experts that a reader may not read
        assert tasks.min() >= 1, f"a part of {name} is reached by no task"
        assert (tasks.min() > 1) == (tasks.max() > 1) == (name in shared), name


def test_initial_values_are_distinct(make: Make) -> None:
    for initializer in ("glorot_uniform", keras.initializers.HeNormal(seed=7)):
        layer = make(units=[5, 5], kernel_initializer=initializer)
        layer(INPUTS)
        values = values_of(layer)
        matrices = [matrix for name, kernels in values.items() if "expert_kernel" in name for matrix in kernels]
        gates = [column for name, kernel in values.items() if name.endswith("gate") for column in kernel.T]
        bits = [column for name, kernel in values.items() if "gate_bits" in name for column in kernel.T]
        for group in (matrices, gates, bits):
            for left, right in itertools.combinations(group, 2):
                assert left.shape != right.shape or np.abs(left - right).max() > 1e-4


def test_seed_and_config_decide_the_initial_values(make: Make) -> None:
    def first(layer: MultiTaskLayer) -> dict[str, np.ndarray]:
        layer(INPUTS)
        return {name: value for name, value in values_of(layer).items() if np.ptp(value) > 0}

    layer = make(seed=1)
    one, same, other = first(layer), first(type(layer).from_config(layer.get_config())), first(make(seed=2))
    assert len(one) >= 2
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
        assert np.abs(value - other[name]).max() > 1e-3


def test_gates_sum_to_one_and_readers_lead_with_the_tasks(make: Make) -> None:
    layer = make(units=[4])
    randomize(layer)
    for weights in layer.gate_weights(INPUTS).values():
        assert weights.shape[:2] in ([6, 3], [6, 4])
        assert np.min(weights) >= 0
        np.testing.assert_allclose(np.sum(weights, axis=2), 1.0, rtol=1e-5)


def test_a_gated_representation_gives_the_inner_products_at_the_marked_tensor(make: Make) -> None:
    """Compared with the gradients themselves; a trunk without gated sums marks a tensor that serves all tasks."""
    layer = make(units=[4, 3], activation="tanh")
    randomize(layer)
    with marking() as marks, tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs := tf.constant(INPUTS))
        losses = [tf.reduce_sum(tf.sin(output * (1 + i))) for i, output in enumerate(layer(inputs).values())]
    (representation,) = marks.trunk
    flat = [tf.reshape(tape.gradient(loss, representation), [-1]).numpy() for loss in losses]
    direct = np.stack(flat) @ np.stack(flat).T
    assert np.diag(direct).min() > 0
    if not marks.gated:
        assert layer.num_levels > 1 if isinstance(layer, PLE) else isinstance(layer, HoME)
        return
    ((outputs, gates),) = [gated.of(TASKS) for gated in marks.gated]
    gradients = [tape.gradient(loss, output) for loss, output in zip(losses, outputs, strict=True)]
    np.testing.assert_allclose(gated_gramian(gradients, gates), direct, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only_and_alike_after_a_restart(make: Make) -> None:
    for rates in ({"dropout": 0.5}, {"dropout": 0.0, "expert_dropout": 0.5}):
        if "expert_dropout" in rates and isinstance(make(), DSelectK):
            continue
        first, again = make(units=[16], **rates), make(units=[16], **rates)
        for layer in (first, again):
            randomize(layer)
        plain, noisy = first(INPUTS)["a"].numpy(), first(INPUTS, training=True)["a"].numpy()
        np.testing.assert_array_equal(first(INPUTS, training=False)["a"], plain)
        assert np.abs(noisy - plain).max() > 0.01
        np.testing.assert_array_equal(again(INPUTS, training=True)["a"], noisy)
        assert np.abs(first(INPUTS, training=True)["a"] - noisy).max() > 0.01


def test_xla_gives_the_same_values_and_gradients(make: Make) -> None:
    layer = make(units=[4], activation="tanh")
    randomize(layer)

    def step(inputs: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            total = tf.add_n([tf.reduce_sum(x**2) for x in layer(inputs, training=True).values()])
        return [total, *tape.gradient(total, layer.trainable_weights)]

    compiled = tf.function(step, jit_compile=True, input_signature=[tf.TensorSpec([6, 5])])
    for found, expected in zip(compiled(INPUTS), step(INPUTS), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_half_precision_stays_close(make: Make) -> None:
    full = make(units=[4], activation="tanh")
    full(INPUTS)
    half = type(full).from_config({**full.get_config(), "dtype": "mixed_float16"})
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = type(full).from_config(half.get_config())
        half(INPUTS)
        half.set_weights(full.get_weights())
        outputs, gates = half(INPUTS), half.gate_weights(INPUTS)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for task, expected in full(INPUTS).items():
        assert outputs[task].dtype == tf.float16
        np.testing.assert_allclose(outputs[task], expected, atol=2e-2)
    for name, expected in full.gate_weights(INPUTS).items():
        np.testing.assert_allclose(gates[name], expected, atol=2e-2)


def test_prunable_weights_are_the_kernels_of_experts(make: Make) -> None:
    layer = make(units=[4, 3])
    layer(INPUTS)
    found = layer.get_prunable_weights()
    assert found
    assert {v.name for v in found} == {v.name for v in layer.trainable_weights if "expert_kernel" in v.name}
    assert len({v.name for v in layer.weights}) == len(layer.weights)


def test_regularizer_is_that_of_the_kernels(make: Make) -> None:
    free = {"entropy_weight": 0.0} if isinstance(make(), DSelectK) else {}
    layer = make(units=[4], kernel_regularizer=keras.regularizers.L2(0.5), **free)
    randomize(layer)
    expected = sum(0.5 * np.sum(kernel.numpy() ** 2) for kernel in layer.get_prunable_weights())
    assert float(tf.add_n(layer.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [AdaTT, CGC, DSelectK, HoME, PLE])
def test_the_default_of_the_search_space_is_a_trunk(kind: Any) -> None:
    hp = keras_tuner.HyperParameters()
    given = {"groups": GROUPS} if kind is HoME else {}
    found = kind(TASKS, **given, **kind.search_space(hp)).get_config()
    assert found == {**kind(TASKS, **given).get_config(), "name": found["name"]}
    assert len(hp.values) >= 4
    assert ("ple_num_levels" in hp.values) == (kind is PLE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task_names": ["a", "a"]}, "`task_names` must be one or more distinct"),
        ({"units": []}, "`units` must name at least one width. Received: units=[]."),
        ({"dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
        ({"gate_temperature": 0.0}, "`gate_temperature` must be above 0. Received: gate_temperature=0.0."),
        ({"expert_dropout": -0.5}, "`expert_dropout` must be a number in [0, 1). Received: expert_dropout=-0.5."),
    ],
)
@pytest.mark.parametrize("kind", [CGC, PLE, AdaTT])
def test_bad_argument_is_named(kind: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind(**{"task_names": TASKS, **arguments})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (AdaTT, "num_task_experts"), (AdaTT, "num_levels"), (CGC, "num_task_experts"), (CGC, "num_shared_experts"),
        (DSelectK, "num_experts"), (DSelectK, "num_selectors"), (HoME, "num_experts"), (HoME, "rank"),
        (PLE, "num_levels"),
    ],
)  # fmt: skip
def test_counts_are_checked(kind: Any, name: str) -> None:
    given = {"groups": GROUPS} if kind is HoME else {}
    with pytest.raises(ValueError, match=re.escape(f"`{name}` must be a positive integer. Received: {name}=0.")):
        kind(TASKS, **given, **{name: 0})
