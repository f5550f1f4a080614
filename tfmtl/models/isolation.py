"""Isolated groups of tasks in one network: no variable of one group is read by a task of another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tfmtl._checks import require, require_known, require_several
from tfmtl._keras import keras, tf
from tfmtl._names import layer_name
from tfmtl.layers import MultiTaskLayer
from tfmtl.models.graph import ancestors, keras_name
from tfmtl.models.regularization import Regularization
from tfmtl.tasks import Task

Isolate = Sequence[Sequence[str]]
"""Groups of names of tasks, as `build_network(isolate=...)` takes them."""


def isolated_groups(
    tasks: Sequence[Task], isolate: Isolate, trunk: MultiTaskLayer | None, regularization: Regularization
) -> list[list[Task]]:
    """Return the groups of tasks: first the tasks that `isolate` does not name, if any, then its groups.

    Raises:
        ValueError: if a group is empty or one string, a name is unknown or in two groups, a task depends on a task of
            another group, or the trunk or mixup would join groups.
    """
    require_several(isolate=isolate)
    names = [task.name for task in tasks]
    group_of: dict[str, int] = {}
    for i, group in enumerate(isolate, start=1):
        valid = not isinstance(group, str) and len(group) > 0
        require(valid, '`isolate` must hold lists of task names, such as [["bought"]].', isolate=isolate)
        require_known(group, names, "task", "`isolate`")
        for name in group:
            require(name not in group_of, f"`isolate` names task {name!r} twice.", isolate=isolate)
            group_of[name] = i
    for task in tasks:
        apart = [name for name in task.depends_on if group_of.get(name, 0) != group_of.get(task.name, 0)]
        rule = f"Task {task.name!r} depends on {apart}, so that `isolate` must keep them in one group."
        require(not apart, rule, isolate=isolate)
    groups = [[task for task in tasks if group_of.get(task.name, 0) == i] for i in range(len(isolate) + 1)]
    groups = [group for group in groups if group]
    if len(groups) > 1:
        _check_parts(groups, trunk, regularization)
    return groups


def _check_parts(
    groups: Sequence[Sequence[Task]], trunk: MultiTaskLayer | None, regularization: Regularization
) -> None:
    """Raise if a trunk or mixup would join the groups."""
    named = trunk is not None and bool(trunk.task_names)
    rule = "Each isolated group has a copy of the trunk; leave out the trunk's `task_names`, or `isolate`."
    require(not named, rule, task_names=trunk and trunk.task_names)
    on_pairs = [[task.name for task in group if task.uses_trunk] for group in groups]
    readers = [names for names in on_pairs if names]
    rule = "`mixup` mixes the rows of a single trunk; isolate only tasks that read no trunk, or leave it out."
    require(not regularization.mixup or len(readers) < 2, rule, trunks=readers)


def joined(networks: Sequence[keras.Model], groups: Sequence[Sequence[Task]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs and outputs of one network that holds the networks of all groups.

    The layers of the first network keep their names. Those of a later one are copied with the name of the group's first
    task as a prefix, except a head's, which has its task's name already.

    Args:
        networks: the network of each group, with inputs for the same features; only the first is used afterwards.
        groups: the tasks of each network.

    Cost: a second copy of the weights of all networks except the first, until these are discarded.
    """
    first, *others = networks
    outputs = dict(first.output)
    taken = {layer.name for layer in first.layers}
    for network, tasks in zip(others, groups[1:], strict=True):
        outputs |= _copied(network, first.input, [task.name for task in tasks], taken)
    return dict(first.input), outputs


def independent_groups(network: keras.Model) -> list[tuple[list[str], list[tf.Variable]]]:
    """Return the groups of tasks that read no trainable variable in common, and the variables that each group reads.

    A task that reads a variable behind a stopped gradient reads it. Variables that are not trained, such as batch
    statistics, are those of the first group that reads them.

    Args:
        network: from `build_network`.

    Example:
        >>> inputs = keras.Input([3])
        >>> heads = {name: keras.layers.Dense(1)(inputs) for name in ("click", "buy")}
        >>> [(tasks, len(variables)) for tasks, variables in independent_groups(keras.Model(inputs, heads))]
        [(['click'], 2), (['buy'], 2)]
    """
    groups: list[tuple[list[str], set[int]]] = []
    for name, output in network.output.items():
        read = {id(v) for v in ancestors(network, output).trainable_variables}
        with_it = [group for group in groups if group[1] & read]
        names = [known for group in with_it for known in group[0]]
        groups = [group for group in groups if not group[1] & read]
        groups.append(([*names, name], read.union(*(ids for _, ids in with_it))))
    found, taken = [], set[int]()
    for names, _ in groups:
        weights = ancestors(network, [network.output[name] for name in names]).weights
        found.append((names, [v for v in weights if id(v) not in taken]))
        taken |= {id(v) for v in weights}
    return found


def _copied(network: keras.Model, inputs: dict[str, Any], tasks: Sequence[str], taken: set[str]) -> dict[str, Any]:
    """Return the outputs of a copy of a network on other inputs, and add the names of its layers to `taken`."""
    copies: dict[str, keras.layers.Layer] = {}

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        name = _free_name(layer, tasks, taken)
        taken.add(name)
        copies[layer.name] = type(layer).from_config({**layer.get_config(), "name": name})
        return copies[layer.name]

    given = {id(tensor): inputs[name] for name, tensor in network.input.items()}
    order = [given[id(tensor)] for tensor in network.inputs]
    copy = keras.models.clone_model(network, input_tensors=order, clone_function=copied)
    for name, layer in copies.items():
        layer.set_weights(network.get_layer(name).get_weights())
    return dict(copy.output)


def _free_name(layer: keras.layers.Layer, tasks: Sequence[str], taken: Collection[str]) -> str:
    """Return the name of a layer's copy in the network of isolated tasks."""
    name = layer.name
    if any(name.startswith(f"{task}_") for task in tasks) and name not in taken:
        return name
    prefixed = layer_name(f"{tasks[0]}_{keras_name(layer) or name}")
    while prefixed in taken:
        prefixed = layer_name(f"{tasks[0]}_{prefixed}")
    return prefixed
