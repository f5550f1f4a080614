"""Integrated gradients in a graph: straight paths between encodings, and the integrals of the gradients along them."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.models.encodings import Encodings
from tfmtl.models.explained import Values

_PASSED = "tfmtl>PassedGradient"


@tf.RegisterGradient(_PASSED)
def _passed(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    """Return the gradient of the identity, for operations that stop gradients in training."""
    return gradient


class Along(NamedTuple):
    """The results of paths to B rows.

    Attributes:
        parts: by task, for each encoding, the integral of (e - e') dF/de [B, ...].
        values: values at the points [points, B, tasks].
        columns: the served values that count [B, tasks].
    """

    parts: list[list[tf.Tensor]]
    values: tf.Tensor
    columns: tf.Tensor


class PathGradients:
    """The gradients of tasks along straight paths from encodings e' to the encodings e of rows.

    Args:
        encodings: the network, cut at its encodings.
        values: the explained values F of its outputs.
    """

    def __init__(self, encodings: Encodings, values: Values) -> None:
        self.encodings, self.values = encodings, values

    def value(self, tensors: Any, kept: Any, features: Any, columns: tf.Tensor) -> tf.Tensor:
        """Return the values [B, tasks] at encodings, of the columns that count [B, tasks]."""
        found = self._found(tensors, kept, features)
        return tf.stack([tf.gather(v, columns[:, k], batch_dims=1) for k, v in enumerate(found)], axis=1)

    def along(
        self, origin: Any, tensors: Any, kept: Any, features: Any, shares: tf.Tensor, columns: Any = None
    ) -> Along:
        """Return the integrals of (e - e') dF/de between the points, and the values at them.

        With a single point, the integral is that of its gradient over the whole path.

        Args:
            origin, tensors: encodings at the start and at the end of the paths, each [B, ...].
            kept, features: compared tensors and encoded features of the rows.
            shares: positions of the points on the paths [points], ascending.
            columns: served values that count [B, tasks]; by default the largest ones at the last point.
        """
        count, rows = tf.size(shares), tf.shape(tensors[0])[0]
        points = [_between(start, end, shares) for start, end in zip(origin, tensors, strict=True)]
        repeated = tf.nest.map_structure(lambda x: _tiled(x, count), (kept, dict(features)))
        with tf.compat.v1.get_default_graph().gradient_override_map({"StopGradient": _PASSED}):
            found = self._found(points, *repeated)
        if columns is None:
            last = (count - 1) * rows
            columns = tf.stack([tf.argmax(v[last:], axis=1, output_type=tf.int32) for v in found], axis=1)
        chosen = [tf.gather(v, _tiled(columns[:, k], count), batch_dims=1) for k, v in enumerate(found)]
        values = tf.stack([tf.reshape(v, [count, rows]) for v in chosen], axis=2)
        parts = []
        for k, value in enumerate(chosen):
            slopes = tf.gradients(value, points, unconnected_gradients="zero")
            pairs = zip(slopes, origin, tensors, strict=True)
            moved = [tf.reshape(s, [count, rows, *s.shape[1:]]) * (end - start) for s, start, end in pairs]
            sizes = tf.add_n([tf.cast(tf.reduce_sum(p, axis=list(range(2, len(p.shape)))), tf.float32) for p in moved])
            weights = path_weights(values[..., k], sizes, shares)
            parts.append([tf.einsum("pb...,pb->b...", part, tf.cast(weights, part.dtype)) for part in moved])
        _forget_override(tf.compat.v1.get_default_graph())
        return Along(parts, values, columns)

    def _found(self, tensors: Any, kept: Any, features: Any) -> list[tf.Tensor]:
        return self.values.of_outputs(self.encodings.outputs(tensors, kept, features), features)


def _forget_override(graph: tf.Graph) -> None:
    """Remove the name of our gradient from operations, since a saved graph would need it in every process."""
    for operation in graph.get_operations():
        if operation.type == "StopGradient" and "_gradient_op_type" in operation.node_def.attr:
            operation._clear_attr("_gradient_op_type")  # TensorFlow has no public name for it


def path_weights(values: tf.Tensor, slopes: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Return the weights [points, B] of the gradients at points of a path.

    Between two points the slope is a weighted mean of those at its ends, where the weights give the change of the
    value, if any weights do. This is exact if the function is linear between the points except for one kink.

    Args:
        values: values at the points [points, B].
        slopes: derivatives by the share of the path [points, B].
        shares: positions of the points on the path [points].
    """
    if shares.shape[0] == 1:
        return tf.ones_like(slopes)
    width = (shares[1:] - shares[:-1])[:, tf.newaxis]
    bend = slopes[:-1] - slopes[1:]
    left = tf.math.divide_no_nan((values[1:] - values[:-1]) / width - slopes[1:], bend)
    left = tf.where(tf.equal(bend, 0.0), 0.5, tf.clip_by_value(left, 0.0, 1.0))
    return tf.pad(width * left, [[0, 1], [0, 0]]) + tf.pad(width * (1 - left), [[1, 0], [0, 0]])


def _between(start: tf.Tensor, end: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Return the points of a path [points B, ...], all rows of the first point first."""
    wide = tf.cast(tf.reshape(shares, [-1, *[1] * len(start.shape)]), start.dtype)
    return tf.reshape(start + wide * (end - start), [-1, *start.shape[1:]])


def _tiled(column: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.tile(column, tf.concat([[count], tf.ones([len(column.shape) - 1], tf.int32)], axis=0))
