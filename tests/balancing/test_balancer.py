from __future__ import annotations

import inspect

import pytest

from tests.conformance.balancers import BALANCERS
from tfmtl._keras import tf
from tfmtl.balancing import BalancedTask, UPGrad
from tfmtl.balancing.balancer import PERIOD, next_seed


def test_the_count_restarts_while_a_float_still_counts() -> None:
    counter = tf.Variable(0.0)
    assert [next_seed(7, counter).numpy().tolist() for _ in range(3)] == [[7, 0], [7, 1], [7, 2]]
    counter.assign(PERIOD - 1)
    assert [next_seed(7, counter).numpy().tolist()[1] for _ in range(3)] == [PERIOD - 1, 0, 1]


def test_it_counts_in_a_traced_step() -> None:
    counter = tf.Variable(0.0)
    traced = tf.function(lambda: next_seed(7, counter))
    assert [traced().numpy().tolist()[1] for _ in range(3)] == [0, 1, 2]


def test_without_a_counter_the_count_is_zero() -> None:
    assert next_seed(7, None).numpy().tolist() == [7, 0]


def test_values_by_name_come_in_the_order_of_the_tasks() -> None:
    balancer = UPGrad({"b": 2.0})
    assert UPGrad().in_task_order("preferences", tasks=2) == (1.0, 1.0)
    with pytest.raises(ValueError, match=r"`preferences` of UPGrad names tasks; call `bind` with the tasks first\."):
        balancer.in_task_order("preferences", tasks=2)
    balancer.bind([BalancedTask("a"), BalancedTask("b"), BalancedTask("c")])
    assert balancer.in_task_order("preferences") == (1.0, 2.0, 1.0)


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_a_balancer_with_a_seed_draws_with_it(name: str) -> None:
    module = inspect.getmodule(type(BALANCERS[name]()))
    assert ("seed" in inspect.signature(type(BALANCERS[name]())).parameters) == hasattr(module, "next_seed")
