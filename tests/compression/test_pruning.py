"""Pruning by the toolkit, on the optimiser's clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.compression import models
from tfmtl._keras import keras, tf
from tfmtl.compression import DistilledModel, UpdatePruning, check_sparsity, prune, prune_model, sparsity, strip
from tfmtl.compression.pruning import OptimizerSchedule
from tfmtl.compression.sparsity import prunable_weights
from tfmtl.data import to_batch
from tfmtl.layers import Experts
from tfmtl.models import MultiTaskModel
from tfmtl.training import LazyAdam

STEPS = 8  # batches of 60 in two epochs


def outputs(network: keras.Model, training: bool = False) -> list[np.ndarray]:
    features = to_batch(models.table(), models.preprocessor()).features
    return [
        value.numpy() for value in tf.nest.flatten(network({n: features[n] for n in network.input}, training=training))
    ]


def fit(model: MultiTaskModel, network: keras.Model, epochs: int = 2, spe: int = 1) -> MultiTaskModel:
    pruned = model.with_network(network)
    pruned.compile(LazyAdam(0.01), steps_per_execution=spe, run_eagerly=spe == 1)  # tracing costs more than these steps
    pruned.fit(models.table(), batch_size=60, epochs=epochs, callbacks=[UpdatePruning()], verbose=0)
    return pruned


def masked(network: keras.Model) -> dict[str, float]:
    """Fraction of zeros in the mask of each wrapped embedding."""
    return {
        layer.layer.name: float(np.mean(mask.numpy() == 0))
        for layer in network.layers
        if isinstance(getattr(layer, "layer", None), keras.layers.Embedding)
        for _, mask, _ in layer.pruning_vars
    }


@pytest.mark.parametrize(("target", "spe"), [(0.5, 1), (0.8, 8)])
def test_every_weight_ends_with_exactly_the_zeros_the_toolkit_promises(target: float, spe: int) -> None:
    model = models.model(4, negatives=3)
    pruned = fit(model, prune(model.network, target, end_step=STEPS - 1), spe=spe)
    stripped = strip(pruned.network)
    for layer in stripped.layers:
        for weight in prunable_weights(layer):
            size = weight.numpy().size
            kept = max(round(size * (1 - target)), 1)
            assert np.count_nonzero(weight) == kept, weight.name
    check_sparsity(stripped, target)
    for own, bare in zip(outputs(pruned.network), outputs(stripped), strict=True):
        np.testing.assert_allclose(own, bare, atol=1e-6)


def test_layers_may_have_shares_and_patterns_of_their_own() -> None:
    model = models.model(8)
    wanted = {"item_id_embedding": 0.75, "query_tower_0": (2, 4), "candidate_tower_0": (3, 8)}
    stripped = strip(fit(model, prune(model.network, wanted, end_step=STEPS - 1)).network)
    check_sparsity(stripped, wanted)
    zeros = sparsity(stripped)
    dense = [name for name, share in zeros.items() if name.split("/")[0] not in wanted]
    assert dense
    assert max(zeros[name] for name in dense) < 0.05
    kernel = stripped.get_layer("query_tower_0").kernel.numpy()
    groups = kernel.reshape(-1, 4, kernel.shape[1])  # four successive inputs of a unit
    assert np.all(np.sum(groups == 0, axis=1) == 2)
    with pytest.raises(ValueError, match=r"Weight 'query_tower_0/kernel' has 50.0% zeros instead of 3 of each 4"):
        check_sparsity(stripped, {"query_tower_0": (3, 4)})


def test_blocks_vanish_together() -> None:
    model = models.model(8)
    towers = {"query_tower_0": 0.5, "candidate_tower_0": 0.5}
    stripped = strip(fit(model, prune(model.network, towers, block_size=(4, 2), end_step=STEPS - 1)).network)
    for name in towers:
        kernel = stripped.get_layer(name).kernel.numpy()
        blocks = (kernel == 0).reshape(kernel.shape[0] // 4, 4, kernel.shape[1] // 2, 2).mean(axis=(1, 3))
        assert set(np.unique(blocks)) == {0.0, 1.0}
        assert np.mean(blocks) == pytest.approx(0.5, abs=1 / blocks.size)


@pytest.mark.parametrize("spe", [1, 4])
def test_schedule_follows_the_optimizer_although_shared_layers_are_called_more_often(spe: int) -> None:
    # One epoch is four steps, t = 0..3 of a schedule of 16: the last update saw s(3) = 0.8 (1 - (1 - 3/16)^3). The
    # table of items is called three times per step: as candidate, in "recent", and for the negatives.
    model = models.model(4, negatives=3)
    pruned = fit(model, prune(model.network, 0.8, end_step=16, frequency=1), epochs=1, spe=spe)
    expected = 0.8 * (1 - (1 - 3 / 16) ** 3)
    calls = {
        layer.layer.name: int(layer.pruning_step) for layer in pruned.network.layers if hasattr(layer, "pruning_step")
    }
    assert (calls["item_id_embedding"], calls["user_id_embedding"]) == (12, 4)
    for name, fraction in masked(pruned.network).items():
        size = pruned.network.get_layer(f"prune_low_magnitude_{name}").layer.embeddings.numpy().size
        assert fraction == pytest.approx(expected, abs=1 / size), name


def test_schedule_ends_at_its_last_step_although_the_frequency_does_not_divide_it() -> None:
    schedule = OptimizerSchedule(0.0, 0.8, begin_step=2, end_step=9, frequency=3)
    due = [step for step in range(12) if bool(schedule(tf.constant(step, tf.int64))[0])]
    assert due == [2, 5, 8, 9]
    assert float(schedule(tf.constant(9, tf.int64))[1]) == pytest.approx(0.8)
    # halfway: 0.8 (1 - 0.5^3)
    assert float(OptimizerSchedule(0.0, 0.8, 0, 10)(tf.constant(5, tf.int64))[1]) == pytest.approx(0.7)


def test_schedule_reads_the_clock_once_it_has_one() -> None:
    schedule = OptimizerSchedule(0.0, 0.8, begin_step=0, end_step=10)
    schedule.clock = tf.Variable(5, dtype=tf.int64)
    assert float(schedule(tf.constant(10, tf.int64))[1]) == pytest.approx(0.7)


@pytest.mark.usefixtures("eager")
def test_wrapping_changes_neither_the_network_nor_what_it_computes() -> None:
    model = models.model(4, dropout=0.5, unknown_rate=0.1, candidate_bias=True)
    before = [value.copy() for value in model.network.get_weights()]
    wrapped = prune(model.network, 0.5, end_step=10)
    assert wrapped.output.keys() == model.network.output.keys()
    for own, other in zip(outputs(model.network), outputs(wrapped), strict=True):
        np.testing.assert_array_equal(own, other)
    # The penalty on looked-up rows belongs to Keras' part of the call, which the toolkit's wrapper leaves out.
    assert float(tf.add_n(wrapped.losses)) == pytest.approx(float(tf.add_n(model.network.losses)))
    assert float(tf.add_n(wrapped.losses)) > 0
    fit(model, wrapped, epochs=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.network.get_weights(), strict=True))


def test_trunk_knows_through_the_wrapper_whether_it_trains() -> None:
    model = models.model(4, dropout=0.9)
    wrapped = prune(model.network, 0.5, end_step=10)
    for layer in wrapped.layers:
        if hasattr(layer, "pruning_step"):
            layer.pruning_step.assign(0)
    trunk = next(layer for layer in wrapped.layers if "shared_bottom" in layer.name)
    x = tf.ones([200, model.network.get_layer("pair").output.shape[-1]])
    assert np.mean(trunk(x, training=True)["rating"].numpy() == 0) > np.mean(
        trunk(x, training=False)["rating"].numpy() == 0
    )


@pytest.mark.usefixtures("eager")
def test_stripped_network_survives_its_configuration() -> None:
    model = models.model(4, candidate_bias=True)
    stripped = strip(fit(model, prune(model.network, 0.5, end_step=3), epochs=1).network)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.network.layers]
    again = keras.Model.from_config(stripped.get_config())
    again.set_weights(stripped.get_weights())
    for own, other in zip(outputs(stripped), outputs(again), strict=True):
        np.testing.assert_array_equal(own, other)
    tower = model.with_network(stripped).tower("candidate")
    assert tower(model.candidates.features)["seen"].shape == (models.ITEMS, 5)


@pytest.mark.usefixtures("eager")
def test_pruned_model_is_checked_compiled_and_as_sparse_as_asked() -> None:
    model = models.model(4)
    fit_arguments: dict[str, Any] = {"epochs": 2, "batch_size": 60, "verbose": 0}
    pruned = prune_model(DistilledModel.of(model, models.teacher()), models.table(), 0.5, **fit_arguments)
    assert isinstance(pruned, DistilledModel)
    assert min(sparsity(pruned.network).values()) >= 0.4
    assert len(pruned.history.history["loss"]) == 2
    assert "rating_rmse" in pruned.evaluate(models.table(), verbose=0, return_dict=True)
    assert max(sparsity(model.network).values()) == 0
    assert sparsity(pruned) == sparsity(pruned.network)
    check_sparsity(pruned, 0.5)


@pytest.mark.usefixtures("eager")
def test_layers_that_are_not_selected_stay_dense() -> None:
    model = models.model(4)

    def towers(layer: keras.layers.Layer) -> bool:
        return "tower" in layer.name

    pruned = prune_model(model, models.table(), 0.5, epochs=1, batch_size=60, select=towers, verbose=0)
    fractions = sparsity(pruned.network)
    assert {name.split("/")[0] for name, fraction in fractions.items() if fraction > 0} == {
        "query_tower_0",
        "candidate_tower_0",
    }


@pytest.mark.usefixtures("eager")
def test_weights_restored_from_before_the_end_are_found_out() -> None:
    model = models.model(4)

    class Restore(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            for layer in self.model.network.layers:
                for weight, mask, _ in getattr(layer, "pruning_vars", ()):
                    weight.assign(tf.ones_like(weight))
                    mask.assign(tf.ones_like(mask))

    with pytest.raises(ValueError, match=r"has 0.0% zeros instead of 50.0%; train beyond the schedule's `end_step`"):
        prune_model(model, models.table(), 0.5, epochs=1, batch_size=60, callbacks=[Restore()], verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0, "end_step": 5}, r"`sparsity` must be a number in \[0, 1\). Received: sparsity=1.0."),
        ({"sparsity": -0.1, "end_step": 5}, r"`sparsity` must be a number in \[0, 1\)"),
        ({"sparsity": (4, 4), "end_step": 5}, r"`sparsity` as \(m, n\) must be integers with 0 < m < n"),
        ({"sparsity": {"item_id_embeding": 0.5}, "end_step": 5}, "Unknown layer .*item_id_embeding"),
        ({"sparsity": {}, "end_step": 5}, "No layer of the network is selected"),
        ({"block_size": (0, 4), "end_step": 5}, "`block_size` must be two positive integers"),
        ({"begin_step": 5, "end_step": 5}, "Steps must satisfy 0 <= begin_step < end_step"),
        ({"end_step": 5, "frequency": 0}, "`frequency` must be a positive integer"),
        ({"end_step": 5, "select": lambda layer: False}, "No layer of the network is selected"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune(models.teacher().network, **arguments)


def test_patterns_are_for_matrices() -> None:
    inputs = keras.Input([3])
    network = keras.Model(inputs, Experts(2, (4, 4), name="experts")(inputs))  # its second kernel is [2, 4, 4]
    with pytest.raises(ValueError, match="Layer 'experts' cannot have m zeros of n: that is for matrices"):
        prune(network, (2, 4), end_step=5)
    with pytest.raises(ValueError, match=r"Blocks are for matrices, but the layers \['experts'\] have other weights"):
        prune(network, 0.5, block_size=(4, 4), end_step=5)


def test_mixed_precision_is_refused() -> None:
    inputs = keras.Input([3])
    half = keras.Model(inputs, keras.layers.Dense(2, name="half", dtype="mixed_bfloat16")(inputs))
    with pytest.raises(ValueError, match=r"cannot prune in mixed precision, as in layers \['half'\]"):
        prune(half, 0.5, end_step=5)


def test_unknown_number_of_steps_is_refused() -> None:
    unknown = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=tf.TensorSpec([]))
    with pytest.raises(ValueError, match="give `steps_per_epoch`"):
        prune_model(models.teacher(), unknown)
    with pytest.raises(ValueError, match="`ramp` must lie in"):
        prune_model(models.teacher(), models.table(), ramp=0.0)
