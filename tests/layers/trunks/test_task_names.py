"""A trunk without task names takes those of the tasks that it serves."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.layers.probes import PAIR
from tests.models import small
from tfmtl import layers
from tfmtl._keras import tf
from tfmtl.data import to_columns
from tfmtl.layers import MultiTaskLayer, SharedBottom

Make = Callable[..., MultiTaskLayer]


def _around(kind: Any) -> Make:
    """Return a function that makes a chained trunk from the arguments of its inner trunk."""
    return lambda **given: kind(layers.MMoE(num_experts=2, units=[4], **given), {"liked": "rating"})


TRUNKS: dict[str, Make] = {
    "AITM": _around(layers.AITM),
    "AdaTT": lambda **given: layers.AdaTT(units=[4], **given),
    "BayesianRelations": _around(layers.BayesianRelations),
    "CGC": lambda **given: layers.CGC(units=[4], **given),
    "CrossStitch": lambda **given: layers.CrossStitch(units=[4], **given),
    "DSelectK": lambda **given: layers.DSelectK(num_experts=3, units=[4], **given),
    "HoME": lambda **given: layers.HoME(groups={"x": ["liked"], "y": ["rating"]}, units=[4], **given),
    "LearningToBranch": lambda **given: layers.LearningToBranch(units=[4, 3], num_nodes=2, **given),
    "MMoE": lambda **given: layers.MMoE(num_experts=2, units=[4], **given),
    "MTAN": lambda **given: layers.MTAN(units=[4, 3], attention_units=2, **given),
    "OMoE": lambda **given: layers.OMoE(num_experts=2, units=[4], **given),
    "PEPNet": lambda **given: layers.PEPNet(domain=["position"], personal=["user", "item"], units=[4], **given),
    "PLE": lambda **given: layers.PLE(units=[4], **given),
    "STEM": lambda **given: layers.STEM(units=[4], **given),
    "SharedBottom": lambda **given: layers.SharedBottom(units=[4], **given),
}


@pytest.fixture(params=sorted(TRUNKS))
def make(request: pytest.FixtureRequest) -> Make:
    return TRUNKS[request.param]


def test_every_trunk_is_tried() -> None:
    kinds = [value for value in vars(layers).values() if isinstance(value, type) and issubclass(value, MultiTaskLayer)]
    abstract = {"MultiTaskLayer", "ChainedTrunk"}
    assert {kind.__name__ for kind in kinds} - abstract == set(TRUNKS)


def test_in_a_network_it_is_the_trunk_with_names(make: Make) -> None:
    networks = [small.network(trunk=make(**names)) for names in ({}, {"task_names": small.ON_PAIRS})]
    for left, right in zip(networks[0].get_weights(), networks[1].get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    raw = to_columns(small.table(), small.SCHEMA.features.values())
    encoded = small.preprocessor()({name: tf.constant(column) for name, column in raw.items()})
    tf.nest.map_structure(np.testing.assert_array_equal, *(network(encoded) for network in networks))


def test_config_keeps_names_and_their_absence(make: Make) -> None:
    for names in ((), tuple(small.ON_PAIRS)):
        trunk = make(**({"task_names": names} if names else {}))
        again = type(trunk).from_config(trunk.get_config())
        assert trunk.task_names == again.task_names == names
        assert again.get_config() == trunk.get_config()


def test_a_copy_has_the_given_names_and_a_trunk_with_names_is_left_alone(make: Make) -> None:
    trunk = make()
    named = trunk.for_tasks(["rating", "liked"])
    assert type(named) is type(trunk)
    assert trunk.task_names == ()
    assert named.task_names == ("rating", "liked")
    assert named.name == trunk.name
    assert named.for_tasks(["other"]) is named


def test_alone_it_names_the_cure(make: Make) -> None:
    trunk = make()
    sentence = (
        f"Trunk '{trunk.name}', a {type(trunk).__name__}, names no tasks. "
        'Pass task_names, such as MMoE(["click", "buy"]), or give the trunk to build_network.'
    )
    for use in (trunk, lambda inputs: trunk.build(inputs.shape)):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            use(PAIR)


def test_tasks_outside_the_groups_of_home_are_rejected() -> None:
    trunk = layers.HoME(groups={"x": ["liked"], "y": ["rating"]})
    with pytest.raises(ValueError, match=re.escape("`groups` must hold each of the tasks ['liked', 'mood'] once")):
        trunk.for_tasks(["liked", "mood"])


def test_a_relation_to_a_task_that_is_not_served_is_rejected() -> None:
    with pytest.raises(ValueError, match=re.escape("Unknown task ['rating'] in `after`")):
        layers.AITM(SharedBottom(), {"liked": "rating"}).for_tasks(["liked", "mood"])


def test_a_network_without_tasks_on_pairs_needs_no_trunk() -> None:
    heads = [head for head in small.tasks() if not head.uses_trunk]
    with pytest.raises(ValueError, match=re.escape("`trunk` serves tasks on pairs, but none of the tasks")):
        small.network(heads, trunk=SharedBottom())
