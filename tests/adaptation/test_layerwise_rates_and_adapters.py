"""Rates by part, exactly; adapters that change nothing until they are trained."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.models import small
from tfmtl import serving
from tfmtl._keras import keras, tf
from tfmtl.adaptation import layers_of, layerwise_rates, with_adapters
from tfmtl.compression import prune, strip
from tfmtl.layers import Adapter, MMoE, SharedBottom
from tfmtl.training import GroupedOptimizer, LazyAdam, LazySGD, RowWiseAdagrad, ScaledRates

pytestmark = pytest.mark.usefixtures("eager_steps")


def test_adam_at_a_tenth_of_the_rate_moves_a_tenth_as_far() -> None:
    start = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    gradients = [np.array([[0.3, -1.0], [0.0, 2.0]], np.float32) * k for k in (1.0, -0.25, 3.0)]
    plain, scaled = (tf.Variable(start, name=name) for name in ("plain/kernel", "scaled/kernel"))
    optimizer = ScaledRates(keras.optimizers.Adam(0.1), {"scaled/*": 0.1})
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), plain), (tf.constant(gradient), scaled)])
    np.testing.assert_allclose(scaled - start, (plain - start) / 10, rtol=1e-5)
    alone = tf.Variable(start)
    adam = keras.optimizers.Adam(0.1)
    for gradient in gradients:
        adam.apply_gradients([(tf.constant(gradient), alone)])
    np.testing.assert_allclose(plain, alone, rtol=1e-6)


def test_schedules_and_what_callbacks_set_reach_every_part() -> None:
    x, y = tf.Variable(0.0, name="x"), tf.Variable(0.0, name="y")
    halving = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.5])  # 1 at step 0, then 1/2
    optimizer = ScaledRates(keras.optimizers.SGD(halving), {"y": 0.25})
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant(-1.0), x), (tf.constant(-1.0), y)])
    assert (float(x), float(y)) == (1.5, 0.375)
    optimizer = ScaledRates(keras.optimizers.SGD(1.0), {"y": 0.25})
    keras.backend.set_value(optimizer.learning_rate, 2.0)  # as Keras' callbacks do
    optimizer.apply_gradients([(tf.constant(1.0), x), (tf.constant(1.0), y)])
    assert (float(x), float(y)) == (-0.5, -0.125)


def test_clipping_is_of_all_parts_together() -> None:
    x, y = tf.Variable(0.0, name="x"), tf.Variable(0.0, name="y")
    optimizer = ScaledRates(keras.optimizers.SGD(1.0, global_clipnorm=1.0), {"y": 0.5})
    optimizer.apply_gradients([(tf.constant(-3.0), x), (tf.constant(-4.0), y)])
    np.testing.assert_allclose([float(x), float(y)], [0.6, 0.4], rtol=1e-6)  # (3, 4) / 5, the second halved


def test_parts_of_a_model_have_rates_of_their_own() -> None:
    deltas = {}
    for factor in (1.0, 0.25):
        model = small.model()
        optimizer = layerwise_rates(model, LazySGD(0.01), {"query_tower_0": factor, "towers": 1.0})
        model.compile(optimizer)
        layer = model.network.get_layer("query_tower_0")
        before = layer.get_weights()
        model.fit(small.table(), batch_size=50, verbose=0)
        deltas[factor] = [after - start for after, start in zip(layer.get_weights(), before, strict=True)]
    for whole, part in zip(deltas[1.0], deltas[0.25], strict=True):
        assert np.abs(whole).max() > 0
        np.testing.assert_allclose(part, whole / 4, rtol=1e-3, atol=1e-7)


def test_wrong_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="factor of 'x' must be a number of at least 0"):
        ScaledRates(LazyAdam(), {"x": -1.0})
    with pytest.raises(ValueError, match="GroupedOptimizer has several rates already"):
        ScaledRates(GroupedOptimizer(RowWiseAdagrad(), LazyAdam()), {})
    with pytest.raises(TypeError, match="optimizer"):
        ScaledRates("adam", {})  # type: ignore[arg-type]


def test_a_golden_adapter() -> None:
    """y = x + U relu(D x + b) + c: x = (1, 2), D = (1, -1)^T and (2, 1)^T, so relu gives (0, 4)."""
    layer = Adapter(2)
    layer(tf.ones([1, 2]))
    down, up = [[1.0, 2.0], [-1.0, 1.0]], [[5.0, 6.0], [1.0, 2.0]]
    layer.set_weights([np.array(w) for w in (down, [0.0, 0.0], up, [0.5, 0.0])])
    np.testing.assert_allclose(layer(tf.constant([[1.0, 2.0]])), [[1 + 4 + 0.5, 2 + 8]])


@pytest.mark.parametrize("trunk", [MMoE(small.ON_PAIRS, 2, units=[4]), SharedBottom(small.ON_PAIRS, [4])])
def test_adapters_change_nothing_at_first_and_then_they_and_the_heads_alone_are_trained(trunk: object) -> None:
    model = small.model(trunk=trunk)
    model.fit(small.table(), verbose=0)
    expected = model.predict(small.table(), verbose=0)
    adapted = model.with_network(with_adapters(model.network, 3, seed=1))
    adapted.compile(LazyAdam(0.1))
    for name, values in adapted.predict(small.table(), verbose=0).items():
        np.testing.assert_array_equal(values, expected[name])
    trained = [layer.name for part in ("adapters", "heads") for layer in layers_of(adapted.network, part)]
    assert len(layers_of(adapted.network, "adapters")) == 4 + 2  # two layers a tower, an output a task of the trunk
    before = {layer.name: layer.get_weights() for layer in layers_of(adapted.network)}
    adapted.fit(small.table(), epochs=2, batch_size=25, verbose=0)
    after = {layer.name: layer.get_weights() for layer in layers_of(adapted.network)}
    changed = [n for n, ws in before.items() if any((a != b).any() for a, b in zip(after[n], ws, strict=True))]
    assert sorted(changed) == sorted(trained)
    for name, values in model.predict(small.table(), verbose=0).items():
        np.testing.assert_array_equal(values, expected[name])


def test_an_adapted_network_prunes_and_exports(tmp_path: pathlib.Path) -> None:
    model = small.model()
    network = with_adapters(model.network, 3)
    stripped = strip(prune(network, 0.5, end_step=2, select=lambda layer: isinstance(layer, Adapter)))
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in network.layers]
    adapted = model.with_network(stripped)
    assert serving.export(adapted, tmp_path / "adapted").exists()  # the exporter compares the reloaded model


def test_a_network_takes_adapters_once() -> None:
    network = with_adapters(small.network(), 2)
    with pytest.raises(ValueError, match="adapters already"):
        with_adapters(network, 2)
    with pytest.raises(ValueError, match="`strip` the network first"):
        with_adapters(prune(small.network(), 0.5, end_step=2), 2)
    inputs = keras.Input([2])
    with pytest.raises(ValueError, match="neither towers nor a trunk"):
        with_adapters(keras.Model(inputs, {"t": keras.layers.Dense(1)(inputs)}))
