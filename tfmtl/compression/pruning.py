"""Magnitude pruning by the TensorFlow model-optimization toolkit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_model_optimization.sparsity import keras as toolkit

from tfmtl._checks import require, require_fraction, require_positive_int, require_type
from tfmtl._keras import keras, tf
from tfmtl.compression.distillation import fresh_optimizer
from tfmtl.compression.sparsity import Select, Sparsity, check_sparsity, is_prunable, prunable_weights, targets
from tfmtl.data.source import as_source
from tfmtl.models import MultiTaskModel
from tfmtl.models.graph import unwrapped

_UPDATES = 30  # mask updates in a schedule; each sorts every pruned weight


class OptimizerSchedule(toolkit.PolynomialDecay):
    """The toolkit's polynomial schedule, read from the optimiser's step.

    s(t) = s_f + (s_0 - s_f) (1 - (t - begin) / (end - begin))^power. The toolkit counts the calls of a layer, so a
    layer that is called twice per step, such as a shared embedding, finishes the schedule twice as fast; and it reaches
    the final sparsity only if `frequency` divides the length of the schedule. Here t is `optimizer.iterations`, for any
    number of calls and any `steps_per_execution`, and the masks are also updated at `end_step`.

    Args:
        initial_sparsity, final_sparsity, begin_step, end_step, power, frequency: as in
            `tfmot.sparsity.keras.PolynomialDecay`.

    Attributes:
        clock: the optimiser's step, set by `UpdatePruning`; the layer's own count until then.

    Reference:
        Zhu, Gupta, "To prune, or not to prune", 2017, https://arxiv.org/abs/1710.01878, section 3.
    """

    clock: tf.Variable | None = None

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return whether the masks are updated in this step, and the target sparsity."""
        now = step if self.clock is None else tf.cast(self.clock, tf.int64)
        due, wanted = super().__call__(now)
        return due | tf.equal(now, self.end_step), wanted


class UpdatePruning(toolkit.UpdatePruningStep):
    """Keras callback that updates the masks of a pruned network: it connects the schedules with the optimiser's step.

    Pass it to `fit` before callbacks that save or restore weights, so that the saved weights are sparse.
    """

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Give every schedule its clock."""
        super().on_train_begin(logs)
        for layer in self.prunable_layers:
            if isinstance(layer.pruning_schedule, OptimizerSchedule):
                layer.pruning_schedule.clock = self.model.optimizer.iterations


def prune(
    network: keras.Model,
    sparsity: Sparsity = 0.8,
    *,
    begin_step: int = 0,
    end_step: int,
    frequency: int | None = None,
    initial_sparsity: float = 0.0,
    block_size: tuple[int, int] = (1, 1),
    select: Select = is_prunable,
) -> keras.Model:
    """Return a copy of a network with pruning wrappers that make its weights sparse; `prune_model` also trains it.

    Args:
        network: functional network, from `build_network`; it is not changed.
        sparsity: fraction of each selected weight that ends at zero, in [0, 1); or (m, n), m zeros among each n
            successive inputs of a unit from the first update on; or either by layer name, "" being all others.
        begin_step, end_step: optimiser steps between which the sparsity rises.
        frequency: steps between two updates of the masks; by default a thirtieth of the schedule.
        initial_sparsity: fraction at `begin_step`.
        block_size: rows and columns of the blocks that become zero together; only for layers with weight matrices.
        select: layers to prune; dense layers, embeddings and trunks by default.

    Returns:
        A functional network with the same inputs, outputs and weights, wrapped by the toolkit's
        `PruneLowMagnitude`; train it with the callback `UpdatePruning` and `strip` it.

    Raises:
        ValueError: if the sparsity is not in [0, 1), the steps do not increase, no layer is selected, one computes in
            half precision, or a pattern does not fit a layer's weights.

    Example:
        >>> inputs = keras.Input([3])
        >>> network = keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))
        >>> pruned = prune(network, 0.5, end_step=10)
        >>> pruned.layers[-1].name, strip(pruned).layers[-1].name
        ('prune_low_magnitude_head', 'head')

    Cost: a product with the mask a call and a sort an update: 4 ms and 0.14 s of CPU time for a table of 50,000 x 32.
    """
    require_fraction(initial_sparsity=initial_sparsity)
    ordered = isinstance(begin_step, int) and isinstance(end_step, int) and 0 <= begin_step < end_step
    require(ordered, "Steps must satisfy 0 <= begin_step < end_step.", begin_step=begin_step, end_step=end_step)
    frequency = max(1, (end_step - begin_step) // _UPDATES) if frequency is None else frequency
    require_positive_int(frequency=frequency)
    wanted = targets(network, sparsity, select, "sparsity")
    _check_layers([network.get_layer(name) for name in wanted], tuple(block_size))

    def wrap(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name not in wanted:
            return layer
        fraction, m_by_n = wanted[layer.name]
        schedule = OptimizerSchedule(initial_sparsity, fraction, begin_step, end_step, frequency=frequency)
        # The wrapper calls only the layer's `call`, so the wrapper itself must apply the activity penalty.
        layer.activity_regularizer = penalty = network.get_layer(layer.name).activity_regularizer
        around = {"activity_regularizer": penalty, "dtype": layer.dtype_policy}
        pattern = {"block_size": tuple(block_size), "sparsity_m_by_n": m_by_n}
        return toolkit.prune_low_magnitude(layer, schedule, **pattern, **around)

    return keras.models.clone_model(_copy_to_wrap(network), clone_function=wrap)


def _check_layers(layers: Sequence[keras.layers.Layer], block_size: tuple[int, ...]) -> None:
    half = [layer.name for layer in layers if layer.compute_dtype != layer.variable_dtype]
    require(
        not half, f"The toolkit cannot prune in mixed precision, as in layers {half}; build the network in float32."
    )
    pair = len(block_size) == 2 and all(isinstance(n, int) and n > 0 for n in block_size)
    require(pair, "`block_size` must be two positive integers.", block_size=block_size)
    flat = [layer.name for layer in layers if any(len(weight.shape) != 2 for weight in prunable_weights(layer))]
    require(
        block_size == (1, 1) or not flat,
        f"Blocks are for matrices, but the layers {flat} have other weights; leave them out by `select`.",
    )


def strip(network: keras.Model) -> keras.Model:
    """Return a copy of a pruned network without wrappers, its weights multiplied by their masks.

    Args:
        network: from `prune`, trained.
    """
    for layer in network.layers:
        for weight, mask, _ in getattr(layer, "pruning_vars", ()):
            weight.assign(weight * mask)
    # The toolkit's `strip_pruning` calls the wrapped layers again, and the network then reports their penalties.
    stripped = keras.models.clone_model(network, clone_function=lambda layer: _fresh(unwrapped(layer)))
    for layer in network.layers:
        stripped.get_layer(unwrapped(layer).name).set_weights(layer.get_weights())
    return stripped


def prune_model(
    model: MultiTaskModel,
    x: Any,
    sparsity: Sparsity = 0.8,
    *,
    epochs: int = 6,
    batch_size: int = 1024,
    ramp: float = 0.6,
    block_size: tuple[int, int] = (1, 1),
    select: Select = is_prunable,
    optimizer: keras.optimizers.Optimizer | None = None,
    callbacks: list[keras.callbacks.Callback] | None = None,
    **fit: Any,
) -> MultiTaskModel:
    """Prune a trained model by further training, and check the sparsity of the result.

    Args:
        model: the trained model; it is not changed. A `DistilledModel` keeps learning from its teacher.
        x, batch_size, epochs, callbacks, **fit: as in `MultiTaskModel.fit`.
        sparsity, block_size, select: as in `prune`.
        ramp: share of the steps in which the sparsity rises, in (0, 1]; the other steps recover the accuracy.
        optimizer: a Keras 2 optimiser; by default a fresh one with the model's settings. A learning rate two or three
            times that of training lets the remaining weights compensate for the lost ones sooner.

    Returns:
        A compiled model of the same kind around the stripped network, `history` being that of the pruning.

    Raises:
        ValueError: if an argument is out of range, the number of steps is unknown, or the stripped weights miss the
            sparsity.
    """
    require_type(model, MultiTaskModel, "model")
    require_positive_int(epochs=epochs, batch_size=batch_size)
    require(0 < ramp <= 1, "`ramp` must lie in (0, 1].", ramp=ramp)
    steps = epochs * _steps_per_epoch(x, batch_size, fit.get("steps_per_epoch"))
    require(steps > 1, "Pruning needs more than one step; add epochs or make the batches smaller.", steps=steps)
    end_step = max(1, min(round(ramp * steps), steps - 1))
    wrapped = prune(model.network, sparsity, end_step=end_step, block_size=block_size, select=select)
    pruned = model.with_network(wrapped)
    pruned.compile(fresh_optimizer(model) if optimizer is None else optimizer)
    everything = [UpdatePruning(), *(callbacks or [])]
    rows = None if as_source(x).batched else batch_size
    history = pruned.fit(x, epochs=epochs, batch_size=rows, callbacks=everything, **fit)
    result = pruned.with_network(strip(pruned.network))
    check_sparsity(result.network, sparsity, select=select)
    result.compile(fresh_optimizer(pruned))
    result.history = history
    return result


def _steps_per_epoch(x: Any, batch_size: int, given: int | None) -> int:
    steps = as_source(x).steps(batch_size) if given is None else given
    if not steps or steps < 0:
        raise ValueError(f"The number of batches is unknown; give `steps_per_epoch`. Received: steps={steps}.")
    return steps


def _copy_to_wrap(network: keras.Model) -> keras.Model:
    """Copy a network with its weights but without activity penalties.

    A penalty that a layer adds while the copy is built would stay in the losses of its wrapper.
    """
    copy = keras.models.clone_model(network, clone_function=lambda layer: _fresh(layer, activity_regularizer=None))
    copy.set_weights(network.get_weights())
    return copy


def _fresh(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    config = layer.get_config()
    return type(layer).from_config({**config, **{name: value for name, value in changes.items() if name in config}})
