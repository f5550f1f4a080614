"""The use of each kind of registered class: its outputs, its state, a network that holds it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tests.models import small
from tests.tasks.losses import ids_of
from tfmtl._keras import keras, tf
from tfmtl.balancing import BalancedTask, Balancer, GradientBalancer, GramianBalancer, TaskGradients
from tfmtl.balancing.schedules import WeightSchedule
from tfmtl.data import Preprocessor, to_batch, to_columns
from tfmtl.layers import (
    STEM,
    AtInference,
    AttentionPooling,
    Calibration,
    CategoryRates,
    CompressedEmbedding,
    ContextGate,
    ContrastivePooling,
    DomainAdversary,
    DotInteraction,
    Fusion,
    GatedAttention,
    HistoryMatch,
    MaskedMean,
    Mixup,
    MultiInterestPooling,
    PEPNet,
    PiecewiseLinear,
    SelfAttention,
    SelfAttentionHistory,
    SequenceAugmentation,
    TargetAttention,
    TreeColumns,
)
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.layers.experts.prior_gate import PriorGate
from tfmtl.layers.fusions.presence import Presence
from tfmtl.layers.noise.mixup import MixupPartners
from tfmtl.layers.noise.randomness import RandomMissing, RandomUnknown
from tfmtl.layers.number_bins import NumberBins
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import HeadInputs, LossInputs, Pool, Task, UserNeighbors
from tfmtl.tasks.ordered_thresholds import OrderedThresholds

ROWS = 6
_RNG = np.random.default_rng(9)
FLOATS = _RNG.normal(size=(ROWS, 5)).astype(np.float32)
INDICES = np.arange(3 * ROWS, dtype=np.int32).reshape(ROWS, 3) % 7
LISTS = np.float32(FLOATS[:, np.newaxis, :4] * [[1.0], [2.0], [5.0]])
PRESENT = np.float32(INDICES[:, :2] % 2)


@functools.singledispatch
def network_of(instance: Any) -> tuple[keras.Model, Any]:
    """Return a functional model that holds the instance, and inputs for it."""
    raise NotImplementedError(f"tests/conformance/kinds.py has no network for a {type(instance).__name__}.")


@network_of.register
def _(layer: keras.layers.Layer) -> tuple[keras.Model, Any]:
    inputs = keras.Input([5], name="x")
    return keras.Model({"x": inputs}, layer(inputs)), {"x": tf.constant(FLOATS)}


def _network(layer: Any, values: Any) -> tuple[keras.Model, Any]:
    """Return a model around a layer that reads a structure of tensors, with a named input for each."""
    named = {f"x_{i}": tf.constant(value) for i, value in enumerate(tf.nest.flatten(values))}
    inputs = {name: keras.Input(value.shape[1:], dtype=value.dtype, name=name) for name, value in named.items()}
    return keras.Model(inputs, layer(tf.nest.pack_sequence_as(values, list(inputs.values())))), named


@network_of.register
def _(pool: Pool) -> tuple[keras.Model, Any]:
    return _network(pool, [FLOATS[:, :2], -FLOATS[:, 1:3]])


@network_of.register(MaskedMean)
@network_of.register(AttentionPooling)
@network_of.register(ContrastivePooling)
@network_of.register(MultiInterestPooling)
@network_of.register(SelfAttentionHistory)
def _(layer: Any) -> tuple[keras.Model, Any]:
    return _network(layer, (LISTS, INDICES))


@network_of.register(GatedAttention)
@network_of.register(SelfAttention)
def _(layer: Any) -> tuple[keras.Model, Any]:
    return _network(layer, (LISTS, INDICES[:, np.newaxis] > np.array([[0], [3], [8]])))


@network_of.register
def _(layer: TargetAttention) -> tuple[keras.Model, Any]:
    return _network(layer, (LISTS[:, 1], LISTS, INDICES))


@network_of.register
def _(layer: HistoryMatch) -> tuple[keras.Model, Any]:
    return _network(layer, (INDICES[:, 0], INDICES[:, ::-1], np.resize(FLOATS, [ROWS, 7])))


@network_of.register
def _(layer: CategoryRates) -> tuple[keras.Model, Any]:
    return _network(layer, (np.resize(FLOATS, [ROWS, 18]), [INDICES[:, 0], INDICES[:, 1]]))


@network_of.register
def _(layer: TreeColumns) -> tuple[keras.Model, Any]:
    return _network(layer, [FLOATS[:, :3], np.concatenate([FLOATS[:, :2], PRESENT[:, :1]], axis=1), INDICES])


@network_of.register
def _(layer: PiecewiseLinear) -> tuple[keras.Model, Any]:
    return _network(layer, [np.stack([FLOATS[:, i], PRESENT[:, i]], 1) for i in (0, 1)])


@network_of.register
def _(layer: Calibration) -> tuple[keras.Model, Any]:
    return _network(layer, [FLOATS[:, :1], INDICES[:, 0]])


@network_of.register
def _(layer: UserNeighbors) -> tuple[keras.Model, Any]:
    return _network(layer, INDICES[:, 0])


@network_of.register
def _(layer: OrderedThresholds) -> tuple[keras.Model, Any]:
    return _network(layer, FLOATS[:, :1])


@network_of.register
def _(layer: AtInference) -> tuple[keras.Model, Any]:
    return _network(layer, [FLOATS, -FLOATS])


@network_of.register
def _(layer: Mixup) -> tuple[keras.Model, Any]:
    return _network(layer, (FLOATS, np.arange(ROWS, dtype=np.int32)[::-1], PRESENT[:, 0] / 4))


@network_of.register
def _(layer: MixupPartners) -> tuple[keras.Model, Any]:
    inputs = keras.Input([5], name="x")
    return keras.Model({"x": inputs}, list(layer(inputs))), {"x": tf.constant(FLOATS)}


@network_of.register(DomainAdversary)
@network_of.register(DotInteraction)
def _(layer: Any) -> tuple[keras.Model, Any]:
    return _network(layer, [FLOATS, np.roll(FLOATS, 1, 0)])


@network_of.register
def _(layer: Presence) -> tuple[keras.Model, Any]:
    return _network(layer, [INDICES, INDICES[:, 1], np.stack([FLOATS[:, 0], PRESENT[:, 0]], 1)])


@network_of.register
def _(layer: Fusion) -> tuple[keras.Model, Any]:
    vectors = {"image": FLOATS, "text": FLOATS[:, 1:4], "rest": FLOATS[:, :2]}
    presence = {"image": PRESENT[:, 0], "text": PRESENT[:, 1], "rest": PRESENT[:, 0]}
    return _network(layer, (vectors, presence))


@network_of.register(RandomMissing)
@network_of.register(RandomUnknown)
@network_of.register(SequenceAugmentation)
@network_of.register(CompressedEmbedding)
@network_of.register(JoinedEmbedding)
def _(layer: keras.layers.Layer) -> tuple[keras.Model, Any]:
    inputs = keras.Input([3], dtype=tf.int32, name="x")
    return keras.Model({"x": inputs}, layer(inputs)), {"x": tf.constant(INDICES)}


@network_of.register(ContextGate)
@network_of.register(PriorGate)
def _(layer: Any) -> tuple[keras.Model, Any]:
    return _of_floats(layer, encoding=5, prior=3, call=lambda inputs: layer(tuple(inputs.values())))


@network_of.register
def _(layer: STEM) -> tuple[keras.Model, Any]:
    return _of_floats(layer, shared=5, **dict.fromkeys(layer.task_names, 4))


@network_of.register
def _(layer: PEPNet) -> tuple[keras.Model, Any]:
    return _of_floats(layer, pair=5, domain=2, personal=3)


def _of_floats(layer: Any, call: Any = None, **widths: int) -> tuple[keras.Model, Any]:
    """Return a model around a layer that reads several encodings, given their names and widths."""
    inputs = {name: keras.Input([width], name=name) for name, width in widths.items()}
    values = {name: tf.constant(np.roll(FLOATS, i, 0)[:, :width]) for i, (name, width) in enumerate(widths.items())}
    return keras.Model(inputs, (call or layer)(inputs)), values


@network_of.register
def _(task: Task) -> tuple[keras.Model, Any]:
    task.prepare(7)
    inputs = {side: keras.Input([5], name=side) for side in ("query", "candidate", "pair")}
    logits = {"front": inputs["query"][:, :1]}
    encodings = HeadInputs(
        inputs["query"], inputs["candidate"], {task.name: inputs["pair"]}, seed=1, logits=logits,
        bins=lambda name, edges, own: NumberBins(edges, name=own)(inputs["candidate"][:, :2]),
    )  # fmt: skip
    values = {side: tf.constant(np.roll(FLOATS, i, 0)) for i, side in enumerate(inputs)}
    output = task.connect(encodings)
    task.prepare_output(output)
    return keras.Model(inputs, {task.name: output}), values


@functools.singledispatch
def outputs_of(instance: Any, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    """Call the instance, after setting its weights if they are given, and return its outputs and weights."""
    raise NotImplementedError(f"tests/conformance/kinds.py does not know how to run a {type(instance).__name__}.")


def _set(part: Any, weights: list[np.ndarray] | None) -> list[np.ndarray]:
    if weights is not None:
        part.set_weights(weights)
    return part.get_weights()  # type: ignore[no-any-return]


@outputs_of.register
def _(layer: keras.layers.Layer, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    network, inputs = network_of(layer)
    kept = _set(network, weights)
    plain = network(inputs)
    return [plain, network(inputs, training=True), network(inputs, training=True), network.losses], kept


@outputs_of.register
def _(task: Task, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    network, inputs = network_of(task)
    kept = _set(network, weights)
    outputs = network(inputs)[task.name]
    labels, ids = tf.constant([1.0, 0.0, float("nan"), 1.0, 1.0, 1.0]), ids_of(INDICES[:, 0])
    sample_weight = tf.where(tf.math.is_nan(labels), 0.0, 2.0)
    front = {"front": tf.constant([1.0, 0.0, 1.0, 1.0, float("nan"), 1.0])}
    keys = {"who": tf.constant([4, 5, 4, 4, -1, 5], tf.int64)}
    arguments = LossInputs({}, ids, None, training=True, labels=front, keys=keys)
    loss = task.compute_loss(labels, outputs, sample_weight, arguments)
    task.update_metrics(labels, outputs, sample_weight, arguments)
    metrics = {metric.name: metric.result() for metric in task.metrics}
    return [outputs, loss, task.predict(outputs), metrics, task.weights[0:1], task.num_extra_negatives], kept


def _bound(balancer: Balancer, weights: list[np.ndarray] | None) -> list[np.ndarray]:
    balancer.bind([BalancedTask("a"), BalancedTask("b", kendall_factor=0.5)])
    balancer.prepare([tf.Variable(FLOATS)])
    return _set(balancer, weights)


@outputs_of.register
def _(balancer: Balancer, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    kept = _bound(balancer, weights)
    losses = tf.constant([2.0, 3.0])
    return [balancer(losses), balancer(losses, observed=tf.constant([True, False])), balancer.current_weights()], kept


@outputs_of.register
def _(balancer: GramianBalancer, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    kept = _bound(balancer, weights)
    gramian, both = tf.constant([[1.0, -1.0], [-1.0, 4.0]]), tf.constant([True, True])
    steps = [balancer.task_weights(gramian, tf.constant([2.0, 3.0]), both) for _ in range(3)]
    return [steps, balancer.current_weights()], kept


@outputs_of.register
def _(balancer: GradientBalancer, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    kept = _bound(balancer, weights)
    gradients = [TaskGradients(tf.constant(np.stack([FLOATS, -2 * FLOATS[::-1]])), None, None)]
    both = tf.constant([True, True])
    steps = [balancer.mix(gradients, tf.constant([2.0, 3.0]), both) for _ in range(3)]
    return [steps, balancer.current_weights()], kept


@outputs_of.register
def _(schedule: WeightSchedule, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    return [[schedule.at(epoch) for epoch in range(6)]], []


@outputs_of.register
def _(preprocessor: Preprocessor, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    raw = to_columns(small.table(), small.SCHEMA.features.values())
    return preprocessor({name: tf.constant(column) for name, column in raw.items()}), []


@outputs_of.register
def _(optimizer: keras.optimizers.Optimizer, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    table, matrix = tf.Variable(FLOATS), tf.Variable(FLOATS)
    for scale in (1.0, 3.0):
        slices = tf.IndexedSlices(scale * FLOATS[:3], tf.constant([0, 4, 0]), tf.constant(FLOATS.shape))
        optimizer.apply_gradients([(slices, table), (tf.constant(scale * FLOATS), matrix)])
    return [table, matrix], []


@outputs_of.register
def _(model: MultiTaskModel, weights: list[np.ndarray] | None = None) -> tuple[Any, list[np.ndarray]]:
    kept = _set(model.network, weights)
    batch = to_batch(small.table(), small.preprocessor())
    losses = model.compute_losses(batch, training=False)
    return [model.predict_step(batch), losses, model.compute_loss(batch), model.balancer.current_weights()], kept
