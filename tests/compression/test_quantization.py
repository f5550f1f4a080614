from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.compression import models
from tfmtl._grid import exact_codes, nearest_codes
from tfmtl._keras import keras, tf
from tfmtl.compression import check_sparsity, prune, quantize, quantize_model, sparsity, strip
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel

SHAPES = [(100, 16), (16, 100), (3, 24, 8), (300,), (300, 1), (1, 300), (5, 5, 5), (0, 4), (2, 2)]


def weights(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Weights with rows of different orders of magnitude, one of them all zero."""
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(0, 3, shape[:1] + (1,) * (len(shape) - 1)))
    values = (rng.normal(0, 0.05, shape) * spread).astype(np.float32)
    values[:1] = 0.0
    return values


def test_codes_of_three_bits_by_hand() -> None:
    """q = 3: steps 1/2 and 1 by row; 0.7 / 0.5 = 1.4 -> 1, -1.3 / 0.5 = -2.6 -> -3, 2.6 -> 3."""
    values = np.float32([[1.5, 0.7, -1.3, 0.2, 0, 0, 0, 0], [3.0, 2.6, -1.4, 0.6, 0, 0, 0, 0]])
    codes = nearest_codes(values, 3)
    assert codes.steps.astype(float).tolist() == [[0.5], [1.0]]
    assert codes.codes.tolist() == [[3, 1, -3, 0, 0, 0, 0, 0], [3, 3, -1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_rounded_weights_are_found_again_exactly_and_stay(bits: int, shape: tuple[int, ...]) -> None:
    values = weights(shape)
    codes = nearest_codes(values, bits)
    again = exact_codes(codes.values())
    assert again is not None
    np.testing.assert_array_equal(again.values(), codes.values())
    np.testing.assert_array_equal(nearest_codes(codes.values(), bits).values(), codes.values())
    assert np.abs(codes.codes.astype(int)).max(initial=0) <= 2 ** (bits - 1) - 1
    assert np.all(codes.values()[values == 0] == 0)
    # No value is farther than half a step away, except the largest, since the step is rounded to 8 binary digits.
    error = np.abs(codes.values() - values) / np.where(codes.steps > 0, codes.steps, 1).astype(np.float32)
    assert error.max(initial=0) <= 0.5 + 2 ** (bits - 1) / 2**8


def test_weights_that_fit_no_grid_have_no_codes() -> None:
    assert exact_codes(weights((50, 16))) is None


def outputs(network: keras.Model) -> list[np.ndarray]:
    batch = to_batch(models.table(), models.preprocessor())
    return [np.asarray(value) for value in tf.nest.flatten(network(batch.features, training=False))]


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (16, 0.001)])
def test_network_answers_nearly_as_before(bits: int, tolerance: float) -> None:
    before = models.teacher().network.get_weights()
    network = quantize(models.teacher().network, bits)
    for one, other in zip(outputs(models.teacher().network), outputs(network), strict=True):
        assert 0 < np.abs(one - other).max() < tolerance * np.abs(one).max()
    assert all(np.array_equal(a, b) for a, b in zip(before, models.teacher().network.get_weights(), strict=True))


def test_every_matrix_and_no_vector_is_rounded() -> None:
    network = quantize(models.teacher().network)
    for variable, before in zip(network.weights, models.teacher().network.get_weights(), strict=True):
        if variable.shape.rank > 1:
            assert exact_codes(variable.numpy()) is not None, variable.name
        else:
            np.testing.assert_array_equal(variable.numpy(), before)


def test_only_selected_layers_are_rounded() -> None:
    network = quantize(models.teacher().network, select=lambda layer: layer.name == "item_id_embedding")
    changed = [
        after.name
        for after, before in zip(network.weights, models.teacher().network.get_weights(), strict=True)
        if not np.array_equal(after.numpy(), before)
    ]
    assert changed == ["item_id_embedding/embeddings:0"]


def test_pruned_weights_stay_zero_and_a_quantized_network_can_be_pruned() -> None:
    network = models.model(8).network
    for variable in network.trainable_variables:
        values = variable.numpy()
        variable.assign(np.where(np.abs(values) < np.median(np.abs(values)), 0, values))
    zeros = sparsity(network)
    assert all(after >= zeros[name] for name, after in sparsity(quantize(network)).items())
    check_sparsity(strip(prune(quantize(network), 0.3, end_step=5)), 0.3)


@pytest.mark.usefixtures("eager")
def test_model_keeps_its_state_and_can_be_trained_on() -> None:
    model = models.model(3)
    model.balancer.log_variances.assign([1.0, 2.0, 3.0, 4.0])
    result = quantize_model(model, 4)
    assert type(result) is MultiTaskModel
    assert result.balancer.log_variances.numpy().tolist() == [1, 2, 3, 4]
    result.fit(models.table(), batch_size=120, epochs=1, verbose=0)


@pytest.mark.parametrize("bits", [0, 1, 9, 32, 8.5, "int8"])
def test_bits_out_of_range_are_refused(bits: Any) -> None:
    with pytest.raises(ValueError, match=r"`bits` must be 2 to 8, or 16 for half precision. Received: bits="):
        quantize(models.teacher().network, bits)


def test_networks_that_cannot_be_quantized_are_refused() -> None:
    network = models.model(3).network
    with pytest.raises(ValueError, match="`strip` the network first"):
        quantize(prune(network, 0.5, end_step=3))
    with pytest.raises(ValueError, match="No matrix of the network is selected"):
        quantize(network, select=lambda layer: False)
    table = network.get_layer("item_id_embedding").embeddings
    table.assign(table + 1e6)
    with pytest.raises(ValueError, match="too large for half precision; use `bits=8`"):
        quantize(network, 16)
    table.assign(table * np.nan)
    with pytest.raises(ValueError, match="Weight 'item_id_embedding/embeddings:0' holds NaN or infinity"):
        quantize(network)
