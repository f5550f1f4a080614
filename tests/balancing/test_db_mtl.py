from __future__ import annotations

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.balancing.mixing import SHAPES, TABLE, Given, Mixer, check, combine, generate
from tfmtl._keras import tf
from tfmtl.balancing.db_mtl import DBMTL
from tfmtl.balancing.gramian import TaskGradients

DENSE = [0, 2]


def test_golden_over_two_steps() -> None:
    balancer = DBMTL(beta=0.5, decay=1.0)
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable([0.0, 0.0])])

    def mix(matrix: list[list[float]], losses: list[float]) -> np.ndarray:
        gradients = TaskGradients(tf.constant(matrix, tf.float32), None, None)
        return np.asarray(balancer.mix([gradients], tf.constant(losses), tf.constant([True, True]))[0])

    # a = (6, 8) / 2 = (3, 4) and (0, 3) / 1, lengths 5 and 3: 5 ((0.6, 0.8) + (0, 1)) = (3, 9).
    np.testing.assert_allclose(mix([[6, 8], [0, 3]], [2.0, 1.0]), [3, 9], rtol=1e-6)
    # The weights on the g_i: 5 / 5 / 2 and 5 / 3 / 1.
    np.testing.assert_allclose(balancer.current_weights(), [0.5, 5 / 3], rtol=1e-6)
    # b_2 = 0.5 / 2 = 1/4: a_1 = (3, 4) / 4 + 3/4 (-1, 0) = (0, 1); a_2 = (0, 3) / 4 + 3/4 (0, 1/3) = (0, 1).
    np.testing.assert_allclose(mix([[-4, 0], [0, 1]], [4.0, 3.0]), [0, 2], atol=1e-6)


@pytest.mark.parametrize(("beta", "decay"), [(0.9, 0.5), (0.5, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("hidden", [[], [set(), {1}, {0, 2}, {0}, {2}]])
def test_reference(beta: float, decay: float, hidden: list[set[int]]) -> None:
    """Algorithm 1 in numpy over the observed tasks, a table's own gradient beside the averages of the others."""
    epsilon, mixer = 1e-3, Mixer(DBMTL(beta, decay, 1e-3))
    averages, steps = np.zeros([3, 9]), np.zeros(3)
    for given in generate(8, hidden=hidden, scale=(10.0, 1.0, 0.1)):
        here = np.flatnonzero(given.observed)
        logs = np.where(given.observed, 1 / (given.losses + epsilon), 0.0)
        steps[here] += 1
        for task in here:
            kept = 0.0 if steps[task] == 1 else beta / steps[task] ** decay
            averages[task] = kept * averages[task] + (1 - kept) * logs[task] * given.flat(DENSE)[task]
        tables = logs[:, np.newaxis] * given.flat([TABLE])
        norms = np.sqrt((averages**2).sum(1) + (tables**2).sum(1))
        longest = norms[here].max()
        factors = np.zeros(3)
        factors[here] = longest / norms[here]
        flat = factors @ averages
        table = combine(factors * logs, given.gradients[TABLE])
        check(mixer(given), [flat[:6].reshape(SHAPES[0]), table, flat[6:]])
        np.testing.assert_allclose(mixer.weights(), factors * logs, rtol=1e-4)


def test_the_units_of_a_loss_do_not_matter() -> None:
    """A loss multiplied by 1000, its gradient with it, has the same logarithm's gradient."""
    one, other, units = Mixer(DBMTL(epsilon=1e-30)), Mixer(DBMTL(epsilon=1e-30)), np.array([1.0, 1000.0, 0.001])
    for given in generate(3):
        scaled = [g * units.reshape(-1, *[1] * (g.ndim - 1)) for g in given.gradients]
        check(one(given), other(Given(scaled, given.losses * units, given.observed, given.rows)))


def test_all_tasks_contribute_the_same_length() -> None:
    """Of orthogonal tasks, each is as long in the update as the longest."""
    balancer = DBMTL(beta=0.0)
    balancer.bind(tasks_named(["a", "b", "c"]))
    balancer.prepare([tf.Variable(tf.zeros([3]))])
    gradients = TaskGradients(tf.linalg.diag(tf.constant([7.0, 0.001, 30.0])), None, None)
    mixed = balancer.mix([gradients], tf.ones([3]), tf.fill([3], True))[0]
    np.testing.assert_allclose(mixed, [30, 30, 30], rtol=1e-5)


def test_without_dense_variables_the_batch_decides() -> None:
    balancer = DBMTL()
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable(tf.zeros([9, 1]), name="item/embeddings")])
    values = tf.constant([[[3.0], [4.0]], [[0.0], [2.0]]])
    gradients = TaskGradients(values, tf.constant([4, 8]), tf.constant([9, 1]))
    mixed = balancer.mix([gradients], tf.ones([2]), tf.fill([2], True))[0]
    np.testing.assert_allclose(mixed.values, [[3], [9]], rtol=1e-6)  # (3, 4) + 5 (0, 1)


def test_a_negative_loss_counts_as_zero() -> None:
    given = generate(1)[0]
    losses = [given.losses * 0, given.losses * 0 - 5]
    one, other = (Mixer(DBMTL())(Given(given.gradients, loss, given.observed, given.rows)) for loss in losses)
    check(one, other)


@pytest.mark.parametrize("arguments", [{"beta": 1.0}, {"beta": -0.1}, {"decay": -1.0}, {"epsilon": 0.0}])
def test_arguments_outside_their_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be a number"):
        DBMTL(**arguments)
