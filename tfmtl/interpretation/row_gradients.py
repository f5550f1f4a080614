"""Inner products of the gradients of rows' losses, without a gradient per row in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf, traced
from tfmtl.data import Batch
from tfmtl.data.frames import rows_of, rows_of_pass
from tfmtl.models import MultiTaskModel
from tfmtl.models.encodings import LOOK_UPS
from tfmtl.models.explained import Floats, rows_at
from tfmtl.models.graph import ancestors, unwrapped
from tfmtl.tasks import Task
from tfmtl.tasks.batch_loss import batch_loss


class HeadGradients:
    """Gradients by the parameters of the last dense layers before the output of a task.

    The gradient of a row by the kernel and the bias of a layer is [a, 1] d^T, with a the input [n] of the layer and d
    the derivative of the loss by its output, so that the inner product of those of two rows is
    (a . a' + 1) (d . d'). It is summed over the layers.

    Args:
        model: a model.
        task: one of its tasks, with a loss that is a sum over rows.

    Raises:
        ValueError: if no dense layer leads to the output, or one is not linear.
    """

    def __init__(self, model: MultiTaskModel, task: Task) -> None:
        nodes = _last_dense(model.network.output[task.name])
        layers = [unwrapped(node.layer) for node in nodes]
        cure = "Choose the parameters 'dense'."
        require(bool(layers), f"No dense layer leads to the output of task {task.name!r}. {cure}")
        for layer in layers:
            linear = layer.activation is keras.activations.linear and layers.count(layer) == 1
            require(linear, f"The dense layer {layer.name!r} must be linear and used once. {cure}")
        ends = [(node.keras_inputs[0], node.outputs) for node in nodes]
        self._network = keras.Model(model.network.input, [ends, model.network.output[task.name]])
        self._model, self._task, self._layers = model, task, layers
        self._biases = np.array([float(layer.use_bias) for layer in layers])
        self._ends = traced(self._ends_of, reduce_retracing=True)

    def products(self, rows: Batch, others: Batch) -> Floats:
        """Return the inner products of the gradients [others, rows]."""
        own = [[end.numpy().astype(np.float64) for end in pair] for pair in self._ends(others)]
        parts = []
        for part in _passes(rows):
            pairs = zip(own, self._ends(part), self._biases, strict=True)
            parts.append(sum((a @ np.transpose(b) + bias) * (d @ np.transpose(e)) for (a, d), (b, e), bias in pairs))
        return np.concatenate(parts, axis=1)

    def _ends_of(self, batch: Batch) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Return by layer the inputs [B, n], and the derivatives of the losses by the outputs [B, m]."""
        with tf.GradientTape() as tape:
            tape.watch([layer.kernel for layer in self._layers])  # a frozen layer too
            ends, outputs = self._network(_read(self._model, batch), training=False)
            loss = _loss(self._model, self._task, batch, outputs)
        slopes = tape.gradient(loss, [output for _, output in ends], unconnected_gradients="zero")
        return [(a, slope) for (a, _), slope in zip(ends, slopes, strict=True)]


class DenseGradients:
    """Gradients by the trained parameters before the output of a task, except those of tables of embeddings.

    With g the gradient of an example, and o the outputs of the network for a row, the inner product with the gradient
    of the row is the derivative of its loss along g, dL/do . (do along g), by one pass forward for all rows.

    Args:
        model, task: as in `HeadGradients`.

    Raises:
        ValueError: if nothing is trained.
    """

    def __init__(self, model: MultiTaskModel, task: Task) -> None:
        network = keras.Model(model.network.input, {"outputs": model.network.output[task.name]})
        tables = {id(v) for layer in model.network.submodules if isinstance(layer, LOOK_UPS) for v in layer.weights}
        trained = ancestors(model.network, model.network.output[task.name]).trainable_variables
        self._variables = [v for v in trained if id(v) not in tables]
        require(bool(self._variables), f"Task {task.name!r} has no trained parameter except tables of embeddings.")
        self._model, self._task, self._network = model, task, network
        self._gradient = traced(self._gradient_of)
        self._along = traced(self._along_of, reduce_retracing=True)

    def products(self, rows: Batch, others: Batch) -> Floats:
        """Return the inner products of the gradients [others, rows]."""
        found = []
        for i in range(rows_of(others)):
            gradient = self._gradient(Batch(*(rows_at(columns, [i]) for columns in others)))
            found.append(np.concatenate([self._along(part, gradient).numpy() for part in _passes(rows)]))
        products: Floats = np.stack(found).astype(np.float64)
        return products

    def _gradient_of(self, batch: Batch) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = self._network(_read(self._model, batch), training=False)["outputs"]
            loss = _loss(self._model, self._task, batch, outputs)
        slopes = tape.gradient(loss, self._variables, unconnected_gradients="zero")
        return [tf.convert_to_tensor(slope) for slope in slopes]

    def _along_of(self, batch: Batch, direction: list[tf.Tensor]) -> tf.Tensor:
        """Return the derivatives of the losses [B] along a direction of the parameters."""
        with tf.autodiff.ForwardAccumulator(self._variables, direction) as forward:
            outputs = self._network(_read(self._model, batch), training=False)["outputs"]
        moved = forward.jvp(outputs, unconnected_gradients="zero")
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = _loss(self._model, self._task, batch, outputs)
        slopes = tape.gradient(loss, outputs, unconnected_gradients="zero")
        pairs = zip(tf.nest.flatten(moved), tf.nest.flatten(slopes), strict=True)
        products = [tf.cast(m, tf.float32) * tf.cast(s, tf.float32) for m, s in pairs]
        return tf.add_n([tf.reduce_sum(tf.reshape(p, [tf.shape(p)[0], -1]), axis=1) for p in products])


def _read(model: MultiTaskModel, batch: Batch) -> dict[str, tf.Tensor]:
    return {name: batch.features[name] for name in model.network.input}


def _loss(model: MultiTaskModel, task: Task, batch: Batch, outputs: Any) -> tf.Tensor:
    """Return the sum over the rows of weight times loss."""
    labels, weights, inputs = model.loss_arguments(task, batch, training=False)
    loss, weight = batch_loss(task, labels, outputs, weights, inputs)
    return loss * tf.stop_gradient(weight)


def _last_dense(outputs: Any) -> list[Any]:
    """Return the nodes of the last dense layer on each path to symbolic outputs."""
    found: dict[int, Any] = {}
    seen, left = set(), [tensor.node for tensor in tf.nest.flatten(outputs)]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(unwrapped(node.layer), keras.layers.Dense):
            found[id(node)] = node
        else:
            left += [tensor.node for tensor in node.keras_inputs]
    return list(found.values())


def _passes(rows: Batch) -> list[Batch]:
    """Return the rows in parts that the network reads at once."""
    size, count = rows_of_pass(rows.features), rows_of(rows)
    parts = [np.arange(i, min(i + size, count)) for i in range(0, count, size)]
    return [Batch(*(rows_at(columns, part) for columns in rows)) for part in parts]
