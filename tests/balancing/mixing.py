"""Steps of generated gradients for balancers that mix variable by variable, an embedding table among the variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import TaskGradients

SHAPES = ((2, 3), (7, 2), (3,))
TABLE = 1
ROWS = 3


@dataclasses.dataclass(frozen=True)
class Given:
    """The tasks' gradients of one step as arrays [K, *shape]; of the table, only `rows` are not zero."""

    gradients: list[np.ndarray]
    losses: np.ndarray
    observed: np.ndarray
    rows: np.ndarray

    def of(self, tasks: Sequence[int]) -> Given:
        """Return the step of some of the tasks, in the given order."""
        places = list(tasks)
        parts = [gradient[places] for gradient in self.gradients]
        return Given(parts, self.losses[places], self.observed[places], self.rows)

    def flat(self, places: Sequence[int] = (0, 1, 2)) -> np.ndarray:
        """Return the gradients of some variables as rows [K, size]."""
        return np.concatenate([self.gradients[v].reshape(len(self.losses), -1) for v in places], axis=1)


def generate(count: int, tasks: int = 3, hidden: Sequence[set[int]] = (), scale: Any = 1.0) -> list[Given]:
    """Return seeded steps; `hidden` names the unobserved tasks of the steps, in order and again from the start."""
    rng, steps = np.random.default_rng(7), []
    scales = np.broadcast_to(np.asarray(scale, np.float64), [tasks])
    for step in range(count):
        absent = hidden[step % len(hidden)] if hidden else set()
        observed = np.array([task not in absent for task in range(tasks)])
        rows = rng.choice(SHAPES[TABLE][0], ROWS, replace=False)
        gradients = []
        for v, shape in enumerate(SHAPES):
            values = rng.normal(size=(tasks, *shape)) * (observed * scales).reshape(-1, *[1] * len(shape))
            if v == TABLE:
                values[:, np.setdiff1d(np.arange(shape[0]), rows)] = 0
            gradients.append(values)
        steps.append(Given(gradients, rng.uniform(0.5, 2, tasks) * observed, observed, rows))
    return steps


class Mixer:
    """A balancer ready to mix, traced once."""

    def __init__(self, balancer: GradientBalancer, tasks: int = 3, names: str = "abcdefgh") -> None:
        self.balancer = balancer
        balancer.bind(tasks_named(list(names[:tasks])))
        labels = ["kernel", "item/embeddings", "bias"]
        balancer.prepare([tf.Variable(tf.zeros(s), name=n) for s, n in zip(SHAPES, labels, strict=True)])
        self._traced = tf.function(self._mix)

    def _mix(self, values: list[tf.Tensor], rows: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> Any:
        dense_shape = tf.constant(SHAPES[TABLE], tf.int64)
        given = [
            TaskGradients(v, rows, dense_shape) if i == TABLE else TaskGradients(v, None, None)
            for i, v in enumerate(values)
        ]
        return self.balancer.mix(given, losses, observed)

    def __call__(self, given: Given) -> list[np.ndarray]:
        """Return the mixed gradients as dense arrays."""
        parts = [tf.constant(g[:, given.rows] if v == TABLE else g, tf.float32) for v, g in enumerate(given.gradients)]
        mixed = self._traced(parts, tf.constant(given.rows), tf.constant(given.losses, tf.float32), given.observed)
        assert [isinstance(gradient, tf.IndexedSlices) for gradient in mixed] == [False, True, False]
        assert mixed[TABLE].values.shape == (ROWS, SHAPES[TABLE][1])
        return [tf.convert_to_tensor(gradient).numpy() for gradient in mixed]

    def weights(self) -> np.ndarray:
        """Return the weights that the log shows."""
        return np.asarray(self.balancer.current_weights())


def combine(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return sum_i w_i g_i."""
    return np.tensordot(weights, values, axes=1)


def check(found: list[np.ndarray], expected: list[np.ndarray], rtol: float = 1e-4) -> None:
    """Compare the mixed gradients of all variables."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-6 * (1 + np.abs(other).max()))
