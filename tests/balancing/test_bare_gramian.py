"""Weights of a Gramian alone, as a training loop outside of this package takes them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.conformance.balancers import BALANCERS
from tfmtl._keras import tf
from tfmtl.balancing import CRMOGM, MGDA, PELTR, GradNorm, GramianBalancer, NashMTL, PCGrad, UPGrad

METHODS = {name: type(make()) for name, make in BALANCERS.items() if isinstance(make(), GramianBalancer)}
STATEFUL = {"CRMOGM", "GradCraft", "GradNorm", "GradVac"}
GRADIENTS = np.random.default_rng(3).normal(size=(3, 5))
GRAMIAN = GRADIENTS @ GRADIENTS.T


def make(name: str) -> GramianBalancer:
    return CRMOGM(UPGrad()) if name == "CRMOGM" else METHODS[name]()


@pytest.mark.parametrize("name", sorted(set(METHODS) - STATEFUL))
@pytest.mark.parametrize("observed", [None, [True, False, True]])
def test_the_weights_are_those_of_a_bound_balancer(name: str, observed: list[bool] | None) -> None:
    bare, bound = make(name), make(name)
    bound.bind(tasks_named("abc"))
    seen = np.ones(3, bool) if observed is None else np.array(observed)
    masked = tf.constant(GRAMIAN * np.outer(seen, seen), tf.float32)
    expected = bound.task_weights(masked, tf.ones([3]), tf.constant(seen)).numpy()
    np.testing.assert_array_equal(bare.task_weights(GRAMIAN, observed=observed).numpy()[seen], expected[seen])
    assert bare.weights == []


@pytest.mark.parametrize("name", sorted(STATEFUL))
def test_methods_with_state_need_the_tasks(name: str) -> None:
    sentence = f"{name} keeps state from step to step; call `bind` with the tasks before `task_weights`."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make(name).task_weights(GRAMIAN, losses=[1.0, 1.0, 1.0])
    balancer = make(name)
    balancer.bind(tasks_named("abc"))
    assert np.isfinite(balancer.task_weights(GRAMIAN, losses=[1.0, 1.0, 1.0])).all()


def test_state_depends_on_the_arguments() -> None:
    assert not NashMTL().keeps_state
    with pytest.raises(ValueError, match="NashMTL keeps state from step to step"):
        NashMTL(update_every=2).task_weights(GRAMIAN)


@pytest.mark.parametrize(("balancer", "argument"), [(UPGrad({"a": 2.0}), "preferences"), (PELTR({"a": 0.5}), "lower_")])
def test_arguments_by_name_need_the_tasks(balancer: GramianBalancer, argument: str) -> None:
    with pytest.raises(ValueError, match=f"`{argument}.*names tasks; call `bind` with the tasks first"):
        balancer.task_weights(GRAMIAN)


def test_losses_are_required_where_they_are_read() -> None:
    with pytest.raises(ValueError, match="MGDA reads the losses; pass `losses`, one per task"):
        MGDA("loss").task_weights(GRAMIAN)
    by_loss = MGDA("loss").task_weights(GRAMIAN, losses=[1.0, 2.0, 4.0])
    assert np.isfinite(by_loss).all()
    assert np.abs(by_loss - MGDA().task_weights(GRAMIAN)).max() > 0.01
    assert GradNorm().reads_losses
    assert CRMOGM(MGDA("loss")).reads_losses


def test_golden_values_of_a_list() -> None:
    # Gradients (1, 0) and (-1, 1): each is projected onto the normal of the other.
    assert PCGrad().task_weights([[1.0, -1.0], [-1.0, 2.0]]).numpy().tolist() == [2.0, 1.5]
