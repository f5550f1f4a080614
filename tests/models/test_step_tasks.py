"""A step of some tasks: equal to a step on a batch without labels of the others, which are not computed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl import balancing
from tfmtl._keras import tf
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel, Regularization

NAMES = ["seen", "rating", "liked", "mood"]
SETS = [["rating"], ["seen", "mood"], ["liked", "mood"], NAMES]


def batch() -> Any:
    return to_batch(small.table(), small.preprocessor())


def step(model: MultiTaskModel, *arguments: Any) -> list[np.ndarray]:
    """Return the variables of the network after one step."""
    model.build_optimizer()
    model.make_step(*arguments)
    return [variable.numpy() for variable in model.network.trainable_variables]


@pytest.mark.parametrize("chosen", SETS, ids="+".join)
@pytest.mark.parametrize("balancer", ["FixedWeights", "Uncertainty", "FAMO", "PCGrad", "CAGrad", "GradNorm"])
def test_a_step_of_some_tasks_is_one_without_labels_of_the_others(balancer: str, chosen: list[str]) -> None:
    """Regularization is 0, so that a task without labels changes nothing either."""
    make = getattr(balancing, balancer)
    found = step(small.model(balancer=make()), batch(), chosen)
    whole = batch()
    absent = {name: tf.zeros([small.ROWS]) for name in NAMES if name not in chosen}
    expected = step(small.model(balancer=make()), whole._replace(weights={**whole.weights, **absent}))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_variables_of_other_tasks_stay_as_they_are_under_regularization() -> None:
    noise = Regularization(l2=0.1, embedding_l2=0.1, unknown_rate=0.0, context_dropout=0.0)
    model = small.model(regularization=noise)
    before = {v.name: v.numpy() for v in model.network.trainable_variables}
    step(model, batch(), ["mood"])
    moved = {v.name for v in model.network.trainable_variables if not np.array_equal(v.numpy(), before[v.name])}
    read = {v.name for v in model.network.trainable_variables if re.search("mood|query|user|age|item", v.name)}
    assert any(name.startswith("mood") for name in moved)
    assert moved <= read
    assert not any(re.search("liked|rating|mmoe|candidate_tower|price|position", name) for name in moved)


def test_layers_of_other_tasks_are_not_in_the_traced_step() -> None:
    model = small.model()
    model.build_optimizer()

    def layers(tasks: list[str]) -> set[str]:
        traced = tf.function(lambda rows: model.make_step(rows, tasks)).get_concrete_function(batch())
        found = {op.name for op in traced.graph.get_operations() if op.type == "MatMul"}
        return {name for name in ("liked", "rating", "mood") if any(name in op for op in found)}

    assert layers(["mood"]) == {"mood"}
    assert layers(["rating"]) == {"rating"}
    assert layers(NAMES) == {"liked", "rating", "mood"}


def test_the_log_counts_only_the_tasks_of_the_step() -> None:
    model = small.model()
    model.build_optimizer()
    logs = model.make_step(batch(), ["rating"])
    assert float(logs["rating_loss"]) > 0
    assert float(logs["seen_loss"]) == float(logs["liked_loss"]) == 0
    assert float(logs["loss"]) == pytest.approx(float(logs["rating_loss"]))
    assert [task.name for task in model.trained_tasks] == NAMES


@pytest.mark.parametrize("arguments", [{"balancer": balancing.FAMO()}, {"negatives": 3}, {}])
def test_a_schedule_makes_the_steps_of_its_sets_in_one_trace(arguments: dict[str, Any]) -> None:
    """Steps 0 to 4 train rating, all, rating, all, rating, traced and in one call, as they do one by one."""
    config = {key: type(value).from_config(value.get_config()) if key == "balancer" else value
              for key, value in arguments.items()}  # fmt: skip
    model, traces = small.model(**arguments), []

    def schedule(rows: Any) -> Any:
        traces.append(1)
        turn = tf.cast(model.optimizer.iterations % 2, tf.int32)
        return tf.switch_case(turn, [lambda: model.make_step(rows, ["rating"]), lambda: model.make_step(rows, NAMES)])

    model.schedule_steps(schedule)
    model.fit(small.table(), batch_size=10, epochs=2, verbose=0, shuffle=False)
    model.schedule_steps(None)
    assert len(traces) == 1
    other = small.model(**config)
    other.build_optimizer()
    for number in range(10):
        rows = small.table().iloc[number % 5 * 10 : number % 5 * 10 + 10]
        other.make_step(to_batch(rows, small.preprocessor()), NAMES if number % 2 else ["rating"])
    for one, two in zip(model.network.variables, other.network.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-4, atol=1e-6)
