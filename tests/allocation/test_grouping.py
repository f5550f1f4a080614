"""Groups of tasks: dynamic programming against all partitions, greedy and genetic against the optimum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl.allocation import Affinity, TaskGroups, group_tasks
from tfmtl.allocation.groupings.exact import scores_of_subsets
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.models.isolation import independent_groups
from tfmtl.tasks import Regression
from tfmtl.training import ConflictMonitor


def _partitions(tasks: list[int]) -> Iterator[list[list[int]]]:
    if not tasks:
        yield []
        return
    first, rest = tasks[0], tasks[1:]
    for partition in _partitions(rest):
        yield [[first], *partition]
        for i, group in enumerate(partition):
            yield [*partition[:i], [first, *group], *partition[i + 1 :]]


def _score(values: np.ndarray, partition: list[list[int]]) -> float:
    return sum(np.mean([values[i, j] for i in group if i != j]) for group in partition if len(group) > 1 for j in group)


def _affinity(seed: int) -> Affinity:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 7))
    return Affinity([f"t{i}" for i in range(size)], rng.normal(size=(size, size)))


def _best(affinity: Affinity, networks: int) -> float:
    partitions = _partitions(list(range(len(affinity.tasks))))
    return max(_score(affinity.values, p) for p in partitions if len(p) <= networks)


def _checked(found: TaskGroups, affinity: Affinity, networks: int) -> float:
    """Return the score, after a check that the groups are a partition with it."""
    assert sorted(name for group in found.groups for name in group) == sorted(affinity.tasks)
    assert 1 <= len(found.groups) <= networks
    groups = [[affinity.tasks.index(name) for name in group] for group in found.groups]
    assert found.score == pytest.approx(_score(affinity.values, groups))
    return found.score


def test_dynamic_programming_is_the_best_of_all_partitions() -> None:
    for seed in range(200):
        affinity = _affinity(seed)
        for networks in (1, 2, 3, 6):
            score = _checked(group_tasks(affinity, networks), affinity, networks)
            assert score == pytest.approx(_best(affinity, networks), abs=1e-9)


def test_greedy_and_genetic_are_partitions_and_near_the_best() -> None:
    ratios: dict[str, list[float]] = {"greedy": [], "genetic": []}
    for seed in range(25):
        affinity, networks = _affinity(seed), 3
        best = group_tasks(affinity, networks).score
        scores = {s: _checked(group_tasks(affinity, networks, solver=s), affinity, networks) for s in ratios}
        assert scores["greedy"] <= scores["genetic"] + 1e-9 <= best + 2e-9
        for solver, score in scores.items():
            ratios[solver].append(1.0 if best == pytest.approx(0, abs=1e-12) else score / best)
    assert np.mean(ratios["greedy"]) > 0.8
    assert np.mean(ratios["genetic"]) > 0.99


def test_scores_of_subsets_are_those_of_groups() -> None:
    values = Affinity("abcd", np.random.default_rng(0).normal(size=(4, 4))).values
    found = scores_of_subsets(values)
    for subset in range(16):
        members = [i for i in range(4) if subset >> i & 1]
        assert found[subset] == pytest.approx(_score(values, [members]), abs=1e-12)


def test_a_group_has_the_mean_of_the_effects_on_each_task() -> None:
    affinity = Affinity("abc", [[np.nan, 1.0, 2.0], [3.0, np.nan, 4.0], [5.0, 6.0, np.nan]])
    assert affinity.score(["a", "b"]) == 1.0 + 3.0
    assert affinity.score(list("abc")) == (3 + 5) / 2 + (1 + 6) / 2 + (2 + 4) / 2
    assert affinity.score(["a"]) == 0.0
    with pytest.raises(ValueError, match="'d'"):
        affinity.score(["a", "d"])


def test_tasks_that_harm_all_others_are_alone() -> None:
    affinity = Affinity("abc", [[0, 0.3, -0.2], [0.1, 0, -0.1], [-0.2, 0.05, 0]])
    found = group_tasks(affinity, 3)
    assert found.groups == (("a", "b"), ("c",))
    assert found.isolate == [["a", "b"], ["c"]]
    assert group_tasks(affinity, 1).isolate == []  # one network, without isolation
    assert str(found) == "+0.4000  a, b\n+0.0000  c\n+0.4000  in all, by the solver 'exact'"


def test_groups_isolate_the_tasks_of_a_network() -> None:
    names = ("click", "buy", "stars")
    groups = group_tasks(Affinity(names, [[1, 0.4, -0.3], [0.4, 1, -0.2], [-0.3, -0.2, 1]]), num_networks=2)
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label(name) for name in names])
    table = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], **{name: [0.0, 1.0] for name in names}})
    tasks = [Regression(name) for name in names]
    network = build_network(Preprocessor.fit(schema, table), tasks, isolate=groups.isolate)
    found = [sorted(members) for members, _ in independent_groups(network)]
    assert sorted(found) == [["buy", "click"], ["stars"]]


def test_cosines_of_a_monitor_are_an_affinity() -> None:
    names = ("click", "buy")
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label(name) for name in names])
    table = pd.DataFrame({"user": ["a", "b"] * 8, "item": ["x", "y", "y", "x"] * 4, "click": [0.0, 1.0] * 8})
    table["buy"] = 1.0 - table["click"]
    preprocessor, tasks = Preprocessor.fit(schema, table), [Regression(name) for name in names]
    model = MultiTaskModel(build_network(preprocessor, tasks, seed=1), tasks, preprocessor)
    model.compile("sgd")
    monitor = ConflictMonitor(every_n_steps=1, at="shared")
    model.fit(table, epochs=1, batch_size=8, callbacks=[monitor], verbose=0)
    affinity = Affinity(monitor.task_names, monitor.history[-1]["cosine"])
    assert affinity.values[0, 1] == pytest.approx(monitor.history[-1]["cosine"][0, 1])
    groups = group_tasks(affinity, num_networks=2).groups
    assert groups == ((names,) if affinity.values[0, 1] > 0 else (("click",), ("buy",)))


def test_more_networks_than_tasks_are_as_many_as_tasks() -> None:
    affinity = _affinity(3)
    assert group_tasks(affinity, 10**6) == group_tasks(affinity, len(affinity.tasks))


def test_the_same_seed_gives_the_same_groups() -> None:
    rng = np.random.default_rng(1)
    affinity = Affinity([f"t{i}" for i in range(12)], rng.normal(size=(12, 12)))
    found = [group_tasks(affinity, 4, solver="genetic", seed=3) for _ in range(2)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_networks": 0}, "`num_networks` must be a positive integer"),
        ({"num_networks": 2, "solver": "best"}, "'best'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_tasks(_affinity(0), **arguments)


def test_too_many_tasks_name_the_other_solvers() -> None:
    affinity = Affinity([f"t{i}" for i in range(17)], np.zeros((17, 17)))
    with pytest.raises(ValueError, match='takes at most 16 tasks; choose "greedy" or "genetic"'):
        group_tasks(affinity, 2)
    assert group_tasks(affinity, 2, solver="greedy").score == 0.0


@pytest.mark.parametrize(
    ("tasks", "values", "message"),
    [
        ("aa", np.zeros((2, 2)), "distinct names"),
        ("ab", np.zeros((2, 3)), r"the shape \[2, 2\]"),
        ("ab", [[0.0, np.nan], [0.0, 0.0]], "finite"),
        ("", np.zeros((0, 0)), "distinct names"),
    ],
)
def test_an_affinity_of_another_shape_is_refused(tasks: str, values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Affinity(tasks, values)
