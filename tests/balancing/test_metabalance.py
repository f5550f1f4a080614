from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.balancing.mixing import SHAPES, Mixer, check, combine, generate
from tfmtl._keras import tf
from tfmtl.balancing.gramian import TaskGradients
from tfmtl.balancing.metabalance import MetaBalance, towards

NAMES = ["a", "b", "c"]


def bound(**arguments: Any) -> MetaBalance:
    balancer = MetaBalance("main", **arguments)
    balancer.bind(tasks_named(["aux", "main"]))
    balancer.prepare([tf.Variable([0.0, 0.0])])
    return balancer


def mix(balancer: MetaBalance, aux: list[float], main: list[float], observed: tuple[bool, bool] = (True, True)) -> Any:
    gradients = TaskGradients(tf.constant([aux, main], tf.float32), None, None)
    return balancer.mix([gradients], tf.ones([2]), tf.constant(observed))[0].numpy()


def test_golden_over_two_steps() -> None:
    balancer = bound(relax=0.5, beta=0.5)
    # Norms 10 and 5: the auxiliary gradient is multiplied by 0.5 5 / 10 + 0.5 = 0.75.
    np.testing.assert_allclose(mix(balancer, [10, 0], [3, 4]), [7.5 + 3, 4], rtol=1e-6)
    # Averages 0.5 5 + 0.5 20 = 12.5 and 0.5 2.5 + 0.5 5 = 3.75: factor 0.5 3.75 / 12.5 + 0.5 = 0.65.
    np.testing.assert_allclose(mix(balancer, [0, 20], [5, 0]), [5, 13], rtol=1e-6)
    np.testing.assert_allclose(balancer.current_weights(), [0.65, 1], rtol=1e-6)


def test_small_auxiliary_gradients_grow() -> None:
    np.testing.assert_allclose(mix(bound(relax=1.0), [0.0, 0.01], [3.0, 4.0]), [3, 9], rtol=1e-5)


def test_relax_zero_is_the_plain_sum() -> None:
    mixer = Mixer(MetaBalance("a", relax=0.0))
    for given in generate(3):
        check(mixer(given), [gradient.sum(0) for gradient in given.gradients], rtol=1e-5)


def test_relax_one_gives_every_task_the_size_of_the_target_by_variable() -> None:
    mixer, given = Mixer(MetaBalance("b", relax=1.0, beta=0.0)), generate(1, scale=(1e-3, 1.0, 1e3))[0]
    expected = []
    for values in given.gradients:
        norms = np.linalg.norm(values.reshape(3, -1), axis=1)
        expected.append(combine(norms[1] / norms, values))
    check(mixer(given), expected)


@pytest.mark.parametrize("hidden", [[], [set(), {1}, {0, 2}, {0}, {2}]])
def test_reference(hidden: list[set[int]]) -> None:
    """The formula variable by variable in numpy, averages corrected by each task's own number of steps."""
    relax, beta, mixer = 0.7, 0.9, Mixer(MetaBalance("b"))
    averages, steps = np.zeros([len(SHAPES), 3]), np.zeros(3)
    for given in generate(8, hidden=hidden, scale=(10.0, 1.0, 0.1)):
        steps += given.observed
        expected = []
        for v, values in enumerate(given.gradients):
            mixed = np.zeros(SHAPES[v])
            for task in np.flatnonzero(given.observed):
                averages[v, task] = beta * averages[v, task] + (1 - beta) * np.linalg.norm(values[task])
            for task in np.flatnonzero(given.observed):
                own = averages[v, task] / (1 - beta ** steps[task])
                target = averages[v, 1] / (1 - beta ** steps[1])
                mixed += (relax * target / own + 1 - relax) * values[task]
            expected.append(mixed)
        check(mixer(given), expected)


def test_without_a_label_of_the_target_its_average_counts() -> None:
    balancer = bound(relax=1.0, beta=0.5)
    mix(balancer, [2, 0], [3, 4])
    # The target's size stays 5; the auxiliary's average is (0.5 1 + 0.5 4) / (1 - 0.25) = 10/3, so 4 becomes 6.
    np.testing.assert_allclose(mix(balancer, [0, 4], [0, 0], (True, False)), [0, 6], rtol=1e-5)
    assert balancer.current_weights().numpy()[1] == 0


def test_before_the_first_label_of_the_target_others_stay() -> None:
    np.testing.assert_allclose(mix(bound(), [0, 4], [0, 0], (True, False)), [0, 4], rtol=1e-6)


def test_sizes_of_zero_scale_nothing() -> None:
    sizes = tf.constant([[0.0, 3.0], [2.0, 0.0], [0.0, 0.0], [1e-30, 3.0]])
    np.testing.assert_allclose(towards(sizes, 1, 0.7), np.ones([4, 2]), rtol=1e-6)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown task \['clik'\] in `main` of MetaBalance.*Did you mean 'click'"):
        MetaBalance("clik").bind(tasks_named(["click", "rating"]))


@pytest.mark.parametrize("arguments", [{"relax": 1.1}, {"relax": -0.1}, {"beta": 1.0}, {"beta": -0.5}])
def test_shares_outside_their_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be a number in"):
        MetaBalance("a", **arguments)
